"""Which table codes each weight of a matrix: one of a ladder, by how wide its row and its column are spread.

Weights of 8 bits look like bell curves. How wide one is differs by the output channel and by the input channel, and
the two go together like factors: on a ladder of tables, each a quarter of an octave wider than the one before, they
are two classes that add up. Classes begin with the mean squares of rows and columns, and are then chosen again by the
bits that they cost, with tables counted by the classes before (clustering as in S. P. Lloyd, "Least squares
quantization in PCM", 1982, with lengths of codes for distances).
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isqrt

import numpy as np

from haversack.base.stored import Stored
from haversack.tools.codec import entropy, segments, zstd
from haversack.tools.codec.plan import Grid

STEPS = 40
"""Tables of a ladder; step 8 is a mean square of 1, and two steps double it."""

_ONE = 8
_WIDEST = 12
_FAR = STEPS + _WIDEST
_ROUNDS, _ROUNDS_OF_LARGE = 6, 2
_PATIENCE = 1 << 25
"""A round takes a quarter of a second for every five megabytes; the third to the sixth save 1 byte in 8,000."""
_LEAST = 256
_FEW = 2048
_CHUNK = 1 << 18
_SIGNED = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int64)
_NIBBLES = np.stack([(_SIGNED << 60) >> 60, _SIGNED >> 4])
_SQUARES = {"int8": _SIGNED**2, "int4": (_NIBBLES**2).sum(axis=0) // 2}
_SHIFT = 22
_INVERSE = np.array([isqrt(1 << (2 * _SHIFT + _ONE - step)) for step in range(STEPS)], np.int64)
_NEAR = 2
_MOVES = np.arange(-_NEAR, _NEAR + 1)


@dataclass(frozen=True)
class _Matrix:
    """Weights uint8 [rows, columns] of a file from ``start`` on, and the classes of rows and columns, int64 each.

    The class of a row is a step of the ladder, that of a column how many steps it is away.
    """

    start: int
    weights: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    @property
    def middle(self) -> int:
        """Return the class of the row in the middle."""
        return int(np.sort(self.rows)[len(self.rows) // 2])


def fit(content: bytes, tensors: Sequence[Stored], most: int) -> tuple[list[Grid], np.ndarray]:
    """Return grids of a file's tensors where they save bits, and the counts of the tables that they name.

    Args:
        content: the file.
        tensors: of it, in order, apart from each other.
        most: so many tables at most.

    Returns:
        The grids in the order of the file, and int64 [tables, 256].
    """
    grids: list[Grid] = []
    tables = np.zeros((0, 256), np.int64)
    for dtype, squares in _SQUARES.items():
        matrices = [_begun(content, each, squares) for each in tensors if each.dtype == dtype and _fits(each)]
        if not matrices or len(tables) + STEPS > most:
            continue
        large = sum(each.weights.size for each in matrices) > _PATIENCE
        for _ in range(_ROUNDS_OF_LARGE if large else _ROUNDS):
            lengths, prices = _lengths(_joint([_counts(each) for each in matrices])), _prices(matrices)
            matrices = [_again(each, lengths, prices) for each in matrices]
        counted = [(each, _counts(each)) for each in matrices]
        lengths, prices = _lengths(_joint([counts for _, counts in counted])), _prices(matrices)
        counted = [(each, counts) for each, counts in counted if _saves(each, counts, lengths, prices)]
        if not counted:
            continue
        joint = _joint([counts for _, counts in counted])
        low, high = _ends(joint.sum(axis=1))
        ladder = _folded(joint, low, high)
        used = np.unique(ladder, axis=0)  # what stands there twice takes next to nothing
        bits = entropy.of_counts(used).sum() + segments.model_bits(used).sum()
        bits += sum(_said(each, prices) for each, _ in counted)
        if bits < sum(_plain(counts) for _, counts in counted):
            grids += [_grid(each, len(tables) - low, low, high) for each, _ in counted]
            tables = np.concatenate([tables, ladder])
    return sorted(grids, key=lambda grid: grid.start), tables


def _fits(tensor: Stored) -> bool:
    rows = _rows(tensor)
    return tensor.length >= _LEAST and 2 <= rows <= tensor.length // 2 and tensor.length % rows == 0


def _rows(tensor: Stored) -> int:
    """Return the rows of a tensor cut between two of its axes, where rows and columns are the fewest together."""
    before = list(itertools.accumulate(tensor.shape, operator.mul))
    return min((rows for rows in before if rows > 0), key=lambda rows: rows + tensor.length // rows, default=1)


def _begun(content: bytes, tensor: Stored, squares: np.ndarray) -> _Matrix:
    """Return a tensor with classes by its mean squares."""
    flat = np.frombuffer(content, np.uint8, tensor.length, tensor.start)
    weights = flat.reshape(_rows(tensor), -1)
    step = max(_CHUNK // weights.shape[1], 1)
    parts = [slice(low, low + step) for low in range(0, len(weights), step)]
    rows = np.concatenate([_ONE + _halves(squares[weights[part]].sum(axis=1), weights.shape[1]) for part in parts])
    rows = np.clip(rows, 0, STEPS - 1)
    wide = np.zeros(weights.shape[1], np.int64)
    for part in parts:
        wide += _INVERSE[rows[part]] @ squares[weights[part]]
    columns = _halves(wide, len(weights) << _SHIFT)
    return _Matrix(tensor.start, weights, rows, np.clip(columns, -_WIDEST, _WIDEST))


def _halves(sums: np.ndarray, count: int) -> np.ndarray:
    """Return 2 * log2(sums / count) to the nearest, int64 of their shape; far below all others for 0."""
    logarithms = entropy.logarithms(sums) - entropy.logarithms(np.array(count))
    rounded = (2 * logarithms + entropy.UNIT // 2) // entropy.UNIT
    return np.where(sums > 0, rounded, -STEPS)


def _counts(matrix: _Matrix) -> np.ndarray:
    """Return how often each byte stands at each step of the ladder: int64 [steps, 256]."""
    found = np.zeros(STEPS * 256, np.int64)
    step = max(_CHUNK // matrix.weights.shape[1], 1)
    for low in range(0, len(matrix.weights), step):
        part = slice(low, low + step)
        steps = np.clip(matrix.rows[part, None] + matrix.columns, 0, STEPS - 1)
        found += np.bincount((steps * 256 + matrix.weights[part]).reshape(-1), minlength=STEPS * 256)
    return found.reshape(STEPS, 256)


def _joint(counts: list[np.ndarray]) -> np.ndarray:
    return np.asarray(np.sum(counts, axis=0))


def _lengths(counts: np.ndarray) -> np.ndarray:
    """Return the bits of each byte at each step, int64 [steps, 256] in 1/256 bit; many for what was not counted."""
    smooth = counts * 64 + 1
    return np.asarray((entropy.logarithms(smooth.sum(axis=1, keepdims=True)) - entropy.logarithms(smooth)) >> 4)


def _again(matrix: _Matrix, lengths: np.ndarray, prices: np.ndarray) -> _Matrix:
    """Return a matrix with classes near those that it has which cost the fewest bits, of rows, then of columns."""
    rows = _cheapest(_costs(matrix, lengths, 1), matrix.rows, prices[_FAR - matrix.middle :], (0, STEPS - 1))
    matrix = replace(matrix, rows=rows)
    columns = _cheapest(
        _costs(matrix, lengths, 0), matrix.columns + _WIDEST, prices[_FAR - _WIDEST :], (0, 2 * _WIDEST)
    )
    return replace(matrix, columns=columns - _WIDEST)


def _costs(matrix: _Matrix, lengths: np.ndarray, axis: int) -> np.ndarray:
    """Return the bits of rows (axis 1) or columns (0) with each class near their own: int64 [moves, n], 1/256 bit."""
    beyond = _WIDEST + _NEAR
    padded = lengths[np.clip(np.arange(-beyond, STEPS + beyond), 0, STEPS - 1)].astype(np.uint32).reshape(-1)
    costs = np.zeros((len(_MOVES), matrix.weights.shape[1 - axis]), np.int64)
    step = max(_CHUNK // matrix.weights.shape[1], 1)
    for low in range(0, len(matrix.weights), step):
        part = slice(low, low + step)
        cells = ((matrix.rows[part, None] + matrix.columns + beyond) << 8) + matrix.weights[part]
        for index, move in enumerate(_MOVES.tolist()):
            bits = padded.take(cells + (move << 8)).sum(axis=axis, dtype=np.int64)
            if axis:
                costs[index, part] = bits
            else:
                costs[index] += bits
    return costs


def _cheapest(costs: np.ndarray, classes: np.ndarray, prices: np.ndarray, ends: tuple[int, int]) -> np.ndarray:
    """Return the class of each row or column that costs the fewest bits with what it takes to say it: int64 [n].

    Args:
        costs: int64 [moves, n], of classes near their own.
        classes: int64 [n], from ``ends[0]`` to ``ends[1]``.
        prices: int64: of each class from 0 on.
        ends: the lowest class and the highest.
    """
    near = np.clip(classes + _MOVES[:, None], *ends)
    return np.asarray(near[np.argmin(costs + prices[near], axis=0), np.arange(len(classes))])


def _prices(matrices: Sequence[_Matrix]) -> np.ndarray:
    """Return what it takes to say a class, from ``_FAR`` below the middle to above it: int64 [n] in 1/256 bit.

    The classes of all matrices are packed together, rows as how far they are from their middle: what is said often
    anywhere is said cheaply everywhere.
    """
    said = [classes for each in matrices for classes in (each.rows - each.middle, each.columns)]
    often = np.bincount(np.concatenate(said) + _FAR, minlength=2 * _FAR + 1) * 64 + 1
    return np.asarray((entropy.logarithms(often.sum(keepdims=True)) - entropy.logarithms(often)) >> 4)


def _saves(matrix: _Matrix, counts: np.ndarray, lengths: np.ndarray, prices: np.ndarray) -> bool:
    """Say whether a grid is shorter than a table of its own for all of a matrix, and than Zstandard makes it."""
    bits = int((counts * lengths).sum()) * (entropy.UNIT // 256) + _said(matrix, prices)
    if bits >= _plain(counts):
        return False
    packed = zstd.compress(matrix.weights.tobytes(), zstd.QUICK)
    return bits < len(packed) * 8 * entropy.UNIT


def _said(matrix: _Matrix, prices: np.ndarray) -> int:
    """Return the bits of a matrix's classes, in 1/4096 bit."""
    said = (matrix.rows - matrix.middle, matrix.columns)
    return sum(int(prices[each + _FAR].sum()) for each in said) * (entropy.UNIT // 256)


def _plain(counts: np.ndarray) -> int:
    """Return the bits of a matrix with one table, or stored, in 1/4096 bit."""
    whole = counts.sum(axis=0)
    return min(int(entropy.of_counts(whole) + segments.model_bits(whole)), int(whole.sum()) * 8 * entropy.UNIT)


def _ends(used: np.ndarray) -> tuple[int, int]:
    """Return the first and the last step that is worth a table; those beyond share theirs."""
    together, back = np.cumsum(used), np.cumsum(used[::-1])
    few = min(_FEW, int(together[-1]) // 2)
    low, high = int(np.argmax(together > few)), STEPS - 1 - int(np.argmax(back > few))
    return min(low, high), max(low, high)


def _folded(counts: np.ndarray, low: int, high: int) -> np.ndarray:
    """Return counts of the steps from ``low`` to ``high``, int64 [steps, 256]: with those beyond, and none empty."""
    kept = counts[low : high + 1].copy()
    kept[0] += counts[:low].sum(axis=0)
    kept[-1] += counts[high + 1 :].sum(axis=0)
    for step in range(1, len(kept)):  # a table that no byte has is like the one before: there must be one
        if not kept[step].any():
            kept[step] = kept[step - 1]
    return kept


def _grid(matrix: _Matrix, first: int, low: int, high: int) -> Grid:
    """Return a matrix as a grid, where step 0 would be table ``first``."""
    base = min(max(matrix.middle, low), high)
    rows, columns = (classes.astype(np.int8).tobytes() for classes in (matrix.rows - base, matrix.columns))
    return Grid(matrix.start, first + low, first + high, first + base, rows, columns)
