/* What hostile data do to rans.c, under sanitizers: tests/tools/codec/test_native.py builds and runs this.
 *
 *     hostile SEED ROUNDS
 *
 * Each round draws tables, models and symbols, encodes and decodes them, in parts, and compares; then it damages one
 * buffer or number and calls again. All buffers are as long as they are said to be, and no byte longer. At the end it
 * prints how often each code was returned. Damage may be told or may yield other symbols: it may not touch more. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rans.c"

static uint64_t drawn;

static uint32_t draw(uint32_t below) {
    drawn = drawn * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(drawn >> 33) % below;
}

static void *room(uint64_t bytes) {
    void *found = malloc(bytes ? bytes : 1);
    if (!found) {
        exit(2);
    }
    return found;
}

static void fail(const char *what) {
    printf("%s\n", what);
    exit(1);
}

struct stream {
    uint32_t lanes, *states;
    uint64_t tables, runs, count, held;
    uint16_t *frequencies, *starts;
    uint8_t *slots, *models, *symbols, *words;
    uint64_t *lengths;
};

/* Draw tables of few or many symbols, and runs of symbols that occur in theirs. */
static struct stream made(void) {
    struct stream s = {.lanes = 1 + draw(draw(2) ? 4 : 40), .tables = 1 + draw(4), .runs = draw(30)};
    s.frequencies = room(512 * s.tables);
    memset(s.frequencies, 0, 512 * s.tables);
    for (uint64_t table = 0; table < s.tables; table++) {
        uint32_t left = TOTAL;
        for (uint32_t kinds = 1 + draw(40); kinds-- > 0 && left;) {
            uint32_t share = kinds ? 1 + draw(left) : left;
            s.frequencies[256 * table + draw(256)] += (uint16_t)share;
            left -= share;
        }
        s.frequencies[256 * table + draw(256)] += (uint16_t)left;
    }
    s.lengths = draw(3) ? room(8 * s.runs) : NULL;
    s.models = room(s.runs);
    for (uint64_t run = 0; run < s.runs; run++) {
        s.models[run] = (uint8_t)draw((uint32_t)s.tables);
        if (s.lengths) {
            s.lengths[run] = draw(draw(2) ? 3 : 90);
        }
        s.count += s.lengths ? s.lengths[run] : 1;
    }
    s.symbols = room(s.count);
    uint64_t at = 0;
    for (uint64_t run = 0; run < s.runs; run++) {
        for (uint64_t stop = at + (s.lengths ? s.lengths[run] : 1); at < stop; at++) {
            do {
                s.symbols[at] = (uint8_t)draw(256);
            } while (!s.frequencies[256 * (size_t)s.models[run] + s.symbols[at]]);
        }
    }
    s.starts = room(512 * s.tables);
    s.slots = room(TOTAL * s.tables);
    s.states = room(4 * (uint64_t)s.lanes);
    for (uint32_t lane = 0; lane < s.lanes; lane++) {
        s.states[lane] = LOWEST;
    }
    return s;
}

static void freed(struct stream s) {
    void *all[] = {s.states, s.frequencies, s.starts, s.slots, s.models, s.symbols, s.words, s.lengths};
    for (size_t at = 0; at < sizeof all / sizeof *all; at++) {
        free(all[at]);
    }
}

/* Decode a stream that holds all symbols, or none of those that are certain. */
static int decoded(struct stream s, int all, uint8_t *found, uint64_t count, uint32_t lane, uint64_t read) {
    uint32_t *held = room(4 * (uint64_t)s.lanes);
    memcpy(held, s.states, 4 * (uint64_t)s.lanes);
    uint64_t where = 0, coded = 0;
    int code = haversack_rans_decode(held, s.lanes, &lane, s.words, s.held, &read, s.models, s.lengths, s.runs,
                                     s.frequencies, s.starts, s.slots, s.tables, found, count,
                                     all ? NULL : &coded, &where);
    if (coded > count) {
        fail("more symbols are coded than there are");
    }
    if (code == WORDS && where >= count) {
        fail("a word is missing behind the last symbol");
    }
    free(held);
    return code;
}

static int encoded(struct stream *s, uint64_t space) {
    uint64_t where = 0, written = 0;
    uint8_t *words = room(2 * space);
    int code = haversack_rans_encode(s->states, s->lanes, s->symbols, s->count, s->models, s->lengths, s->runs,
                                     s->frequencies, s->starts, s->tables, words, space, &written, &where);
    s->held = code ? 0 : written;
    s->words = room(2 * s->held);
    memcpy(s->words, words + 2 * (space - s->held), 2 * s->held);
    free(words);
    return code;
}

/* Damage one thing; whatever stays is as long as it was. */
static void damage(struct stream *s, uint64_t *count, uint32_t *lane, uint64_t *read) {
    struct { void *at; uint64_t bytes; } buffers[] = {
        {s->states, 4 * (uint64_t)s->lanes}, {s->frequencies, 512 * s->tables}, {s->starts, 512 * s->tables},
        {s->slots, TOTAL * s->tables},       {s->models, s->runs},              {s->symbols, s->count},
        {s->words, 2 * s->held},             {s->lengths, s->lengths ? 8 * s->runs : 0},
    };
    uint32_t which = draw(15);
    if (which < 8) {
        for (uint32_t times = 1 + draw(8); buffers[which].bytes && times-- > 0;) {
            ((uint8_t *)buffers[which].at)[draw((uint32_t)buffers[which].bytes)] ^= (uint8_t)(1 + draw(255));
        }
        return;
    }
    if (which == 14 && s->lengths && s->runs) { /* the same sum, modulo 2^64 */
        uint64_t moved = draw(2) ? draw(4) : (uint64_t)draw(UINT32_C(1) << 31) << 32;
        s->lengths[draw((uint32_t)s->runs)] += moved;
        s->lengths[draw((uint32_t)s->runs)] -= moved;
    }
    *lane = which == 8 ? draw(2 * s->lanes) : *lane;
    *read = which == 9 ? draw((uint32_t)(2 * s->held + 2)) : *read;
    *count = which == 10 ? draw((uint32_t)*count + 1) : *count;
    s->held = which == 11 ? draw((uint32_t)s->held + 1) : s->held;
    s->tables = which == 12 ? draw(2) * 257 : s->tables;
    s->lanes = which == 13 ? 0 : s->lanes;
}

int main(int given, char **arguments) {
    unsigned long returned[6] = {0}, rounds = given > 2 ? strtoul(arguments[2], NULL, 10) : 1000;
    drawn = given > 1 ? strtoull(arguments[1], NULL, 10) : 1;
    while (rounds-- > 0) {
        struct stream s = made();
        uint8_t *found = room(s.count);
        if (haversack_rans_tables(s.frequencies, s.tables, s.starts, s.slots) || encoded(&s, s.count)) {
            fail("what was drawn is refused");
        }
        if (decoded(s, 1, found, s.count, 0, 0) || memcmp(found, s.symbols, s.count)) {
            fail("other symbols came back");
        }
        uint64_t count = s.count, read = 0;
        uint32_t lane = 0;
        damage(&s, &count, &lane, &read);
        returned[decoded(s, (int)draw(2), found, count, lane, read)]++;
        if (s.tables <= 4) {
            returned[haversack_rans_tables(s.frequencies, s.tables, s.starts, s.slots)]++;
        }
        if (count == s.count) {
            free(s.words);
            returned[encoded(&s, draw((uint32_t)s.count + 1))]++;
        }
        free(found);
        freed(s);
    }
    for (int code = 0; code < 6; code++) {
        printf("%lu\n", returned[code]);
    }
    return 0;
}
