"""Rows of codes that became longer or shorter as a whole: new codes are old ones times a number near 1, and more.

A normalisation folded into weights, or another scale, multiplies a row. Mostly that moves its codes by less than one
step, so that it shows in which ones move, and to which side: the fraction that is missing to the next step says how
likely a step is. So words of a row with a *tilt* are predicted with its steps, and have a *degree*, which chooses
their table, and a side, towards which they are coded. All in integers; docs/spec/delta.md is the format.
"""

from __future__ import annotations

import numpy as np

SHIFT = 9
"""A tilt of 2^9 doubles a code."""
DEGREES = 5
"""0 of words that lean to no side."""
MOST_TILT = (1 << 15) - 1
_HALF = 1 << (SHIFT - 1)
_SIXTEENTH = 4
_DEGREE_OF = np.array([0, 1, 2, 2, 3, 3, 3, 3, *(9 * [DEGREES - 1])], np.uint8)
_ODDS = 12.0
"""A row's tilt must explain its changes so well that chance does it once in hundreds of rows: its bytes cost bits."""
_LEAST = 8
_FEW = 256
_ROWS = 1 << 14
"""So many tilts, of so many rows, have tables of all codes."""
_PIECE = 1 << 16


def lean(old: np.ndarray, tilts: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what words are predicted to be, uint8 [words], their degree, uint8 [words], and which are negated.

    Args:
        old: uint8 [words]; the last row may be shorter.
        tilts: of rows, integers [rows], at most ``MOST_TILT`` from 0.
        columns: words of a row.
    """
    if len(tilts) > _ROWS:
        return _by_pieces(old, tilts, columns)
    different, which = np.unique(tilts, return_inverse=True)
    if len(different) > _FEW:
        return _by_pieces(old, tilts, columns)
    codes = np.arange(256).astype(np.uint8).view(np.int8).astype(np.int32)
    tables = _leans(codes, different[:, None].astype(np.int32))
    cells = np.repeat(which << 8, columns)[: len(old)]
    cells += old
    # One look-up for all three: they are a word of 16 bits.
    packed = tables[0] | tables[1].astype(np.uint16) << np.uint16(8) | tables[2].astype(np.uint16) << np.uint16(15)
    found = packed.reshape(-1).take(cells)
    above = (found >> np.uint16(8)).astype(np.uint8)
    return found.astype(np.uint8), above & np.uint8(127), above > 127


def _by_pieces(old: np.ndarray, tilts: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Do what ``lean`` does word by word, in little memory."""
    found = np.empty(len(old), np.uint8), np.empty(len(old), np.uint8), np.empty(len(old), bool)
    for low in range(0, len(old), _PIECE):
        codes = old[low : low + _PIECE].view(np.int8).astype(np.int32)
        own = tilts[np.arange(low, low + len(codes)) // columns].astype(np.int32)
        for whole, part in zip(found, _leans(codes, own), strict=True):
            whole[low : low + _PIECE] = part
    return found


def _leans(codes: np.ndarray, tilts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what ``lean`` does of codes and tilts, int32 of shapes that fit."""
    moved = codes * tilts
    steps = (moved + _HALF) >> SHIFT
    rest = moved - (steps << SHIFT)
    degrees = _DEGREE_OF[np.abs(rest) >> _SIXTEENTH]
    predicted = np.clip(codes + steps, -128, 127).astype(np.int8).view(np.uint8)
    return predicted, degrees, (rest < 0) & (degrees > 0)


def fit(old: np.ndarray, new: np.ndarray, columns: int) -> np.ndarray:
    """Return the tilt of each row, int64 [rows]: that of the least squares, or 0 where it may be chance.

    A row whose words rather move to one side, whatever they are, has none: it leans as a row.

    Args:
        old, new: uint8 [words]; the last row may be shorter.
        columns: words of a row.
    """
    rows = -(-len(old) // columns)
    before, after = (np.zeros((rows, columns)) for _ in range(2))
    for matrix, codes in ((before, old), (after, new)):
        matrix.reshape(-1)[: len(codes)] = codes.view(np.int8)
    inside = (np.abs(before) < 127) & (np.abs(after) < 127)  # what was cut off says little
    change = np.where(inside, after - before, 0.0)
    before = np.where(inside, before, 0.0)
    common = (before * change).sum(axis=1)
    whole, moved = (before**2).sum(axis=1), (change**2).sum(axis=1)
    certain = common**2 * columns > np.maximum(_ODDS * moved, change.sum(axis=1) ** 2) * whole
    tilts = np.rint(common * (1 << SHIFT) / np.maximum(whole, 1.0))
    return np.where(certain & (columns >= _LEAST), np.clip(tilts, -MOST_TILT, MOST_TILT), 0.0).astype(np.int64)


def write(tilts: np.ndarray) -> bytes:
    """Return tilts as the low bytes of all rows, then the high ones, zigzag."""
    folded = np.where(tilts >= 0, 2 * tilts, -2 * tilts - 1).astype("<u2")
    return folded.view(np.uint8).reshape(-1, 2).T.tobytes()


def read(data: np.ndarray) -> np.ndarray:
    """Return tilts of what ``write`` returned, as uint8 [2 * rows]: int32 [rows]."""
    low, high = data.reshape(2, -1).astype(np.int32)
    folded = low | high << 8
    return (folded >> 1) ^ -(folded & 1)
