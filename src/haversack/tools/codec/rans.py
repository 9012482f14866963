"""Range asymmetric numeral systems over bytes, with frozen tables and interleaved lanes; integers only.

J. Duda, "Asymmetric numeral systems", arXiv:1311.2540; the interleaving of F. Giesen, arXiv:1402.3392. Symbol j belongs
to lane j mod N. A lane is one 32-bit state in [2^16, 2^32); what it cannot hold goes out as 16-bit words, at most one a
symbol, which a decoder reads in the order in which it decodes. docs/spec/download.md is the format.
"""

from __future__ import annotations

import numpy as np

PRECISION = 14
"""Frequencies of a table add up to 2^PRECISION."""

TOTAL = 1 << PRECISION
MOST_LANES = 4096
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
    symbols: np.ndarray, models: np.ndarray, frequencies: np.ndarray, lanes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the states that a decoder starts from, uint32 [lanes], and the words that it reads, uint16 [words].

    Args:
        symbols: uint8 [count].
        models: integers [count]: the row of ``frequencies`` that codes each symbol.
        frequencies: integers [tables, 256]; each row adds up to 2^14, and is at least 1 where a symbol occurs.
        lanes: how many states, 1 to 4096.

    Raises:
        ValueError: a symbol has no frequency in its table, or a row has another sum.
    """
    _check(frequencies, lanes)
    wide = frequencies.astype(np.uint32)
    below = (np.cumsum(wide, axis=1, dtype=np.uint32) - wide).reshape(-1)
    wide = wide.reshape(-1)
    states = np.full(lanes, _LOWEST, np.uint32)
    words: list[np.ndarray] = []
    chunk = max(_CHUNK // lanes, 1) * lanes
    for first in reversed(range(0, len(symbols), chunk)):
        cells = models[first : first + chunk].astype(np.int64) * 256 + symbols[first : first + chunk]
        share, start = wide[cells], below[cells]
        if not share.all():
            message = f"symbol {first + int(np.argmin(share))} has no frequency in its table"
            raise ValueError(message)
        for low in reversed(range(0, len(cells), lanes)):
            frequency = share[low : low + lanes]
            state = states[: len(frequency)]
            full = (state >> _FULL) >= frequency
            words.append(state[full].astype(np.uint16))
            state = np.where(full, state >> np.uint32(16), state)
            quotient = state // frequency
            states[: len(frequency)] = (quotient << _BASE) + (state - quotient * frequency) + start[low : low + lanes]
    return states, np.concatenate([np.zeros(0, np.uint16), *reversed(words)])


def decode(states: np.ndarray, words: np.ndarray, models: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Return the symbols, uint8 [count]: what ``encode`` was given.

    Args:
        states: uint32 [lanes], as ``encode`` returned them.
        words: uint16 [words], likewise.
        models: integers [count]: the row of ``frequencies`` that codes each symbol.
        frequencies: integers [tables, 256]; each row adds up to 2^14.

    Raises:
        ValueError: the words end too early or are too many, or a state is not what an encoder starts from.
    """
    lanes = len(states)
    _check(frequencies, lanes)
    of_slot, share, rest = _slots(frequencies)
    held, found, read = states.astype(np.uint32), np.empty(len(models), np.uint8), 0
    if lanes and held.min() < _LOWEST:
        raise ValueError("a state is below 2^16")
    for low in range(0, len(models), lanes):
        row = models[low : low + lanes]
        state = held[: len(row)]
        cells = (row.astype(np.int64) << PRECISION) + (state & np.uint32(TOTAL - 1))
        found[low : low + lanes] = of_slot[cells]
        state = share[cells] * (state >> _BASE) + rest[cells]
        empty = np.flatnonzero(state < _LOWEST)
        if read + len(empty) > len(words):
            message = f"the words end at symbol {low} of {len(models)}"
            raise ValueError(message)
        state[empty] = (state[empty] << np.uint32(16)) | words[read : read + len(empty)]
        read += len(empty)
        held[: len(row)] = state
    if read != len(words):
        message = f"{len(words) - read} words are left over"
        raise ValueError(message)
    if (held != _LOWEST).any():
        raise ValueError("the last states are not 2^16, from which every encoder starts")
    return found


def _check(frequencies: np.ndarray, lanes: int) -> None:
    if not 1 <= lanes <= MOST_LANES:
        message = f"there are 1 to {MOST_LANES} lanes, not {lanes}"
        raise ValueError(message)
    if frequencies.ndim != 2 or frequencies.shape[1] != 256 or (frequencies.sum(axis=1) != TOTAL).any():
        message = f"each table has 256 frequencies that add up to {TOTAL}"
        raise ValueError(message)


def _slots(frequencies: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each slot of each table its symbol (uint8), the symbol's frequency (uint32), slot minus its first."""
    symbols = np.tile(np.arange(256, dtype=np.uint8), len(frequencies))
    counts = frequencies.reshape(-1)
    first = (np.cumsum(counts) - counts) % TOTAL
    slots = np.tile(np.arange(TOTAL, dtype=np.uint16), len(frequencies))
    of_slot = np.repeat(symbols, counts)
    share = np.repeat(counts.astype(np.uint16), counts)
    return of_slot, share, slots - np.repeat(first.astype(np.uint16), counts)
