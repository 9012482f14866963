"""Range asymmetric numeral systems over bytes, with frozen tables and interleaved lanes; integers only.

J. Duda, "Asymmetric numeral systems", arXiv:1311.2540; the interleaving of F. Giesen, arXiv:1402.3392. Symbol j belongs
to lane j mod N. A lane is one 32-bit state in [2^16, 2^32); what it cannot hold goes out as 16-bit words, at most one a
symbol, which a decoder reads in the order in which it decodes. docs/spec/download.md is the format. The loops stand
here in NumPy, and in C for ``native``, which are the same bit for bit.
"""

from __future__ import annotations

import numpy as np

from haversack.tools.codec import native

PRECISION = 14
"""Frequencies of a table add up to 2^PRECISION."""

TOTAL = 1 << PRECISION
MOST_LANES = 4096
MOST_TABLES = 256
MOST_OF_LANE = 1 << 20
"""So many symbols has a lane at most: few lanes for many symbols would keep a decoder of whole rows busy for hours."""
_LOWEST = 1 << 16
_CHUNK = 1 << 20
_BASE = np.uint32(PRECISION)
_FULL = np.uint32(32 - PRECISION)


def lanes_for(count: int) -> int:
    """Return how many lanes serve ``count`` symbols: each costs four bytes, and NumPy takes one step for all."""
    wanted = max(min(count // 2048, 512), count // 8192, 1)
    return min(1 << (wanted.bit_length() - 1), MOST_LANES)


def encode(
    symbols: np.ndarray, models: np.ndarray, frequencies: np.ndarray, lanes: int, lengths: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the states that a decoder starts from, uint32 [lanes], and the words that it reads, uint16 [words].

    Args:
        symbols: uint8 [count].
        models: integers [runs]: the row of ``frequencies`` that codes each run of symbols.
        frequencies: integers [tables, 256]; each row adds up to 2^14, and is at least 1 where a symbol occurs.
        lanes: how many states, 1 to 4096.
        lengths: integers [runs]: how many symbols each run has, ``count`` in all; without them, one.

    Raises:
        ValueError: a symbol has no frequency in its table, a row has another sum, or a model is no row.
    """
    _check(frequencies, lanes)
    models, lengths = _runs(models, lengths, len(frequencies))
    if (len(models) if lengths is None else int(lengths.sum())) != len(symbols):
        message = f"the runs have other symbols than the {len(symbols)} that are there"
        raise ValueError(message)
    states = np.full(lanes, _LOWEST, np.uint32)
    library = native.library()
    each = models if lengths is None else np.repeat(models, lengths.astype(np.int64))
    for first in range(0, len(symbols), _CHUNK):
        share = frequencies[each[first : first + _CHUNK], symbols[first : first + _CHUNK]]
        if not share.all():
            message = f"symbol {first + int(np.argmin(share))} has no frequency in its table"
            raise ValueError(message)
    if library is None:
        return states, _encoded(states, symbols, each, frequencies)
    made = native.Tables(library, frequencies, slots=False)
    return states, made.encode(states, np.ascontiguousarray(symbols, np.uint8), models, lengths)


def decode(
    states: np.ndarray,
    words: np.ndarray,
    models: np.ndarray,
    frequencies: np.ndarray,
    lengths: np.ndarray | None = None,
) -> np.ndarray:
    """Return the symbols, uint8 [count]: what ``encode`` was given.

    Args:
        states: uint32 [lanes], as ``encode`` returned them.
        words: uint16 [words], likewise.
        models: integers [runs]: the row of ``frequencies`` that codes each run of symbols.
        frequencies: integers [tables, 256]; each row adds up to 2^14.
        lengths: integers [runs]: how many symbols each run has; without them, one.

    Raises:
        ValueError: the words end too early or are too many, a state is not what an encoder starts from, or a model is
            no row.
    """
    decoder = Decoder(states, words, frequencies)
    found = decoder.take(models, lengths)
    decoder.finish()
    return found


def certain(models: np.ndarray, frequencies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the symbols of tables that have but one, uint8 [count], and which these are, bool [count].

    Args:
        models: the table of each symbol, integers [count].
        frequencies: integers [tables, 256].
    """
    if not len(frequencies):
        return np.zeros(0, np.uint8), np.zeros(0, bool)
    symbols = frequencies.argmax(axis=1)
    alone = frequencies[np.arange(len(frequencies)), symbols] == TOTAL
    both = (symbols | alone << 8).astype(np.uint16)[models]  # one look-up for the two
    return both.astype(np.uint8), both > 0xFF


class Decoder:
    """A stream of which symbols are taken in as many calls as one likes, so that nobody holds all of them.

    Args:
        states: uint32 [lanes], as ``encode`` returned them.
        words: uint16 [words], likewise.
        frequencies: integers [tables, 256]; each row adds up to 2^14.
        uncertain: whether symbols of tables that have but one (``certain``) are not in the stream: they take no lane.

    Attributes:
        coded: how many symbols were taken from the stream.

    Raises:
        ValueError: a state is not one, or a row has another sum.
    """

    def __init__(
        self, states: np.ndarray, words: np.ndarray, frequencies: np.ndarray, *, uncertain: bool = False
    ) -> None:
        _check(frequencies, len(states))
        if states.min() < _LOWEST:
            raise ValueError("a state is below 2^16")
        self._states, self._words = states.astype(np.uint32), np.ascontiguousarray(words, "<u2")
        self._frequencies, self._uncertain = frequencies, uncertain
        self._lane, self._read, self._taken, self.coded = 0, 0, 0, 0
        library = native.library()
        self._native = native.Tables(library, frequencies, slots=True) if library else None
        self._slots = None if library else _slots(frequencies)

    def take(self, models: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Return the next symbols, uint8 [count].

        Args:
            models: integers [runs]: the table of each run of symbols.
            lengths: integers [runs]: how many symbols each run has; without them, one.

        Raises:
            ValueError: the words end too early, or a model is no table.
        """
        models, lengths = _runs(models, lengths, len(self._frequencies))
        try:
            if self._native is not None:
                found, self._lane, self._read, coded = self._native.decode(
                    self._states, self._lane, self._words, self._read, models, lengths, uncertain=self._uncertain
                )
            else:
                each = models if lengths is None else np.repeat(models, lengths.astype(np.int64))
                found, coded = self._without_certain(each) if self._uncertain else (self._decoded(each), len(each))
        except native.NoWordError as error:
            raise native.NoWordError(self._taken + error.symbol) from None
        self._taken += len(found)
        self.coded += coded
        return found

    def finish(self) -> None:
        """Check that this was all.

        Raises:
            ValueError: words are left over, or a state is not what an encoder starts from.
        """
        if self._read != len(self._words):
            message = f"{len(self._words) - self._read} words are left over"
            raise ValueError(message)
        if (self._states != _LOWEST).any():
            raise ValueError("the last states are not 2^16, from which every encoder starts")

    def _without_certain(self, models: np.ndarray) -> tuple[np.ndarray, int]:
        """Return the next symbols, uint8 [count], and how many of them are in the stream."""
        found, told = certain(models, self._frequencies)
        places = np.flatnonzero(~told)
        try:
            found[places] = self._decoded(models[places])
        except native.NoWordError as error:
            raise native.NoWordError(int(places[error.symbol])) from None
        return found, len(places)

    def _decoded(self, models: np.ndarray) -> np.ndarray:
        of_slot, share, rest = self._slots  # type: ignore[misc]  # there where the library is not
        found, lanes, low = np.empty(len(models), np.uint8), len(self._states), 0
        while low < len(models):
            row = models[low : low + lanes - self._lane]
            here = slice(self._lane, self._lane + len(row))
            state = self._states[here]
            cells = (row.astype(np.int64) << PRECISION) + (state & np.uint32(TOTAL - 1))
            found[low : low + len(row)] = of_slot[cells]
            state = share[cells] * (state >> _BASE) + rest[cells]
            empty = np.flatnonzero(state < _LOWEST)
            words = self._words[self._read : self._read + len(empty)]
            if len(words) < len(empty):
                raise native.NoWordError(low + int(empty[len(words)]))
            state[empty] = (state[empty] << np.uint32(16)) | words
            self._read += len(empty)
            self._states[here] = state
            low, self._lane = low + len(row), here.stop % lanes
        return found


def _encoded(states: np.ndarray, symbols: np.ndarray, models: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Return the words of symbols with a model each, uint16 [words]; ``states`` are moved on."""
    lanes = len(states)
    wide = frequencies.astype(np.uint32)
    below = (np.cumsum(wide, axis=1, dtype=np.uint32) - wide).reshape(-1)
    wide = wide.reshape(-1)
    words: list[np.ndarray] = []
    chunk = max(_CHUNK // lanes, 1) * lanes
    for first in reversed(range(0, len(symbols), chunk)):
        cells = models[first : first + chunk].astype(np.int64) * 256 + symbols[first : first + chunk]
        share, start = wide[cells], below[cells]
        for low in reversed(range(0, len(cells), lanes)):
            frequency = share[low : low + lanes]
            state = states[: len(frequency)]
            full = (state >> _FULL) >= frequency
            words.append(state[full].astype(np.uint16))
            state = np.where(full, state >> np.uint32(16), state)
            quotient = state // frequency
            states[: len(frequency)] = (quotient << _BASE) + (state - quotient * frequency) + start[low : low + lanes]
    return np.concatenate([np.zeros(0, np.uint16), *reversed(words)])


def _check(frequencies: np.ndarray, lanes: int) -> None:
    if not 1 <= lanes <= MOST_LANES:
        message = f"there are 1 to {MOST_LANES} lanes, not {lanes}"
        raise ValueError(message)
    wrong = frequencies.ndim != 2 or frequencies.shape[1] != 256 or len(frequencies) > MOST_TABLES
    if wrong or (frequencies.size and frequencies.min() < 0) or (frequencies.sum(axis=1) != TOTAL).any():
        message = f"each of up to {MOST_TABLES} tables has 256 frequencies that add up to {TOTAL}"
        raise ValueError(message)


def _runs(models: np.ndarray, lengths: np.ndarray | None, tables: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return models and lengths of runs as the loops want them: uint8 and uint64 [runs]."""
    if models.size and not 0 <= int(models.min()) <= int(models.max()) < tables:
        message = f"a symbol has table {int(models.max())}, and there are {tables}"
        raise ValueError(message)
    if lengths is not None and (len(lengths) != len(models) or (lengths.size and lengths.min() < 0)):
        message = f"{len(models)} runs have {len(lengths)} lengths, or one below 0"
        raise ValueError(message)
    wide = None if lengths is None else np.ascontiguousarray(lengths, np.uint64)
    return np.ascontiguousarray(models, np.uint8), wide


def _slots(frequencies: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each slot of each table its symbol (uint8), the symbol's frequency (uint16), slot minus its first."""
    symbols = np.tile(np.arange(256, dtype=np.uint8), len(frequencies))
    counts = frequencies.reshape(-1)
    first = (np.cumsum(counts) - counts) % TOTAL
    slots = np.tile(np.arange(TOTAL, dtype=np.uint16), len(frequencies))
    of_slot = np.repeat(symbols, counts)
    share = np.repeat(counts.astype(np.uint16), counts)
    return of_slot, share, slots - np.repeat(first.astype(np.uint16), counts)
