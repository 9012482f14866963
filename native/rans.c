/* The loops of src/haversack/tools/codec/rans.py: range asymmetric numeral systems over bytes, with frozen tables and
 * interleaved lanes. The same bits and the same refusals as there, where the arithmetic is explained.
 *
 * C11, no dependencies, no allocation, no state. Nothing that is given is trusted: counts are checked before anything
 * is indexed by them, and whatever lies in tables, states and words, only the buffers that were given are touched. The
 * caller vouches for the length of each buffer, which is stated beside it.
 */

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

enum { PRECISION = 14, TOTAL = 1 << PRECISION, MOST_TABLES = 256, MOST_LANES = 4096 };
static const uint32_t LOWEST = UINT32_C(1) << 16;

/* What a function returns; src/haversack/tools/codec/native.py has the same numbers. */
enum { DONE = 0, ARGUMENTS = 1, TABLE = 2, MODEL = 3, WORDS = 4, SYMBOL = 5 };

/* Models of symbols: of runs of symbols, or of each symbol where there are no lengths. */
struct models {
    const uint8_t *tables;   /* [runs] */
    const uint64_t *lengths; /* [runs], in symbols, or NULL: 1 each */
    uint64_t runs;
};

/* Which revision of these functions this is. */
EXPORT uint32_t haversack_revision(void) { return 2; }

static int fit(struct models models, uint64_t count, uint64_t tables, uint64_t *where) {
    uint64_t sum = 0;
    for (uint64_t run = 0; run < models.runs; run++) {
        uint64_t length = models.lengths ? models.lengths[run] : 1;
        if (models.tables[run] >= tables) {
            *where = models.tables[run];
            return MODEL;
        }
        if (length > count - sum) {
            return ARGUMENTS;
        }
        sum += length;
    }
    return sum == count ? DONE : ARGUMENTS;
}

/* Prepare tables: `starts` [256 * tables] gets the sums below each symbol, `symbols` [16384 * tables], unless it is
 * NULL, the symbol of each slot. `frequencies` is [256 * tables]. */
EXPORT int32_t haversack_rans_tables(const uint16_t *frequencies, uint64_t tables, uint16_t *starts,
                                     uint8_t *symbols) {
    if (tables > MOST_TABLES) {
        return ARGUMENTS;
    }
    for (uint64_t table = 0; table < tables; table++) {
        uint32_t below = 0;
        for (uint32_t symbol = 0; symbol < 256; symbol++) {
            uint32_t frequency = frequencies[256 * table + symbol];
            if (frequency > TOTAL - below) {
                return TABLE;
            }
            starts[256 * table + symbol] = (uint16_t)below;
            if (symbols) {
                for (uint32_t slot = below; slot < below + frequency; slot++) {
                    symbols[TOTAL * table + slot] = (uint8_t)symbol;
                }
            }
            below += frequency;
        }
        if (below != TOTAL) {
            return TABLE;
        }
    }
    return DONE;
}

/* Decode the next `count` symbols of a stream into `found` [count].
 *
 * states [lanes], and lane, that of the next symbol, and read, the words read so far, are where the stream stands:
 * they are moved on. words is [2 * held] bytes; frequencies and starts [256 * tables], symbols [16384 * tables] as
 * prepared. Where `coded` is not NULL, symbols of tables that have but one take no lane and no bits, and `coded` gets the
 * number of all others. Where it returns WORDS, `where` is the symbol, from 0, for which no word is left; MODEL: the
 * model. */
EXPORT int32_t haversack_rans_decode(uint32_t *states, uint32_t lanes, uint32_t *lane, const uint8_t *words,
                                     uint64_t held, uint64_t *read, const uint8_t *of_runs, const uint64_t *lengths,
                                     uint64_t runs, const uint16_t *frequencies, const uint16_t *starts,
                                     const uint8_t *symbols, uint64_t tables, uint8_t *found, uint64_t count,
                                     uint64_t *coded, uint64_t *where) {
    struct models models = {of_runs, lengths, runs};
    if (!symbols || !lanes || lanes > MOST_LANES || *lane >= lanes || *read > held || tables > MOST_TABLES) {
        return ARGUMENTS;
    }
    int fault = fit(models, count, tables, where);
    if (fault) {
        return fault;
    }
    uint32_t at = *lane;
    uint64_t next = *read, done = 0, certain = 0;
    for (uint64_t run = 0; run < runs; run++) {
        const uint16_t *frequency = frequencies + 256 * (size_t)of_runs[run];
        const uint16_t *start = starts + 256 * (size_t)of_runs[run];
        const uint8_t *symbol = symbols + TOTAL * (size_t)of_runs[run];
        uint64_t stop = done + (lengths ? lengths[run] : 1);
        if (coded && frequency[symbol[0]] == TOTAL) {
            for (certain += stop - done; done < stop; done++) {
                found[done] = symbol[0];
            }
        }
        for (; done < stop; done++) {
            uint32_t state = states[at], slot = state & (TOTAL - 1);
            uint8_t value = symbol[slot];
            state = (uint32_t)frequency[value] * (state >> PRECISION) + slot - start[value];
            if (state < LOWEST) {
                if (next == held) {
                    *where = done;
                    return WORDS;
                }
                state = state << 16 | (uint32_t)words[2 * next] | (uint32_t)words[2 * next + 1] << 8;
                next++;
            }
            states[at] = state;
            found[done] = value;
            at = at + 1 == lanes ? 0 : at + 1;
        }
    }
    *lane = at;
    *read = next;
    if (coded) {
        *coded = count - certain;
    }
    return DONE;
}

/* Encode `symbols` [count], the last first, so that symbol j is lane j mod lanes's; states [lanes] are moved on.
 *
 * Words go to the end of `words` [2 * room] bytes; `written` is how many. Where it returns SYMBOL, `where` is the first
 * symbol that has no frequency in its table; MODEL: the model; WORDS: room is less than the words. */
EXPORT int32_t haversack_rans_encode(uint32_t *states, uint32_t lanes, const uint8_t *symbols, uint64_t count,
                                     const uint8_t *of_runs, const uint64_t *lengths, uint64_t runs,
                                     const uint16_t *frequencies, const uint16_t *starts, uint64_t tables,
                                     uint8_t *words, uint64_t room, uint64_t *written, uint64_t *where) {
    struct models models = {of_runs, lengths, runs};
    if (!lanes || lanes > MOST_LANES || tables > MOST_TABLES) {
        return ARGUMENTS;
    }
    int fault = fit(models, count, tables, where);
    if (fault) {
        return fault;
    }
    uint64_t left = 0;
    for (uint64_t run = 0; run < runs; run++) {
        for (uint64_t stop = left + (lengths ? lengths[run] : 1); left < stop; left++) {
            if (!frequencies[256 * (size_t)of_runs[run] + symbols[left]]) {
                *where = left;
                return SYMBOL;
            }
        }
    }
    uint64_t free = room;
    uint32_t at = (uint32_t)(count % lanes);
    for (uint64_t run = runs; run-- > 0;) {
        const uint16_t *frequency = frequencies + 256 * (size_t)of_runs[run];
        const uint16_t *start = starts + 256 * (size_t)of_runs[run];
        for (uint64_t stop = left - (lengths ? lengths[run] : 1); left > stop;) {
            uint8_t value = symbols[--left];
            at = at ? at - 1 : lanes - 1;
            uint32_t state = states[at], share = frequency[value];
            if (state >> (32 - PRECISION) >= share) {
                if (!free) {
                    return WORDS;
                }
                free--;
                words[2 * free] = (uint8_t)state;
                words[2 * free + 1] = (uint8_t)(state >> 8);
                state >>= 16;
            }
            states[at] = (state / share << PRECISION) + state % share + start[value];
        }
    }
    *written = room - free;
    return DONE;
}
