"""Which table codes which word: tables form a ladder from quiet to loud, and rows and columns say on which rung they are.

A step of training moves a weight by what its output's error and its input have in common, so that the change of a whole
row, and of a whole column, is loud or quiet together. The table of a word is the class of its row plus that of its
column. Classes and tables are found in turns, each the best for the other (S. Lloyd, "Least squares quantization in
PCM", 1982).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from haversack.tools.codec import entropy, tables
from haversack.tools.codec.rans import TOTAL

ROUNDS = 4
COLUMN_CLASSES = 6
_CLASS_BITS = 2 * entropy.UNIT
"""What a class costs about."""
_ABSENT = 24 * entropy.UNIT
_SMALLEST = 64
_HALVES = 24
"""Half octaves of loudness that classes begin with."""
_CHANGES = 256
"""So many symbols other than 0 are worth a table."""


@dataclass
class Field:
    """The symbols of a segment as a matrix, and its classes.

    Attributes:
        symbols: uint8 [words].
        columns: words of a row; 0 where it has no rows, and one class.
        rows: class of each row, int64; of all words where there are no rows.
        across: class of each column, int64; all zero at first.
    """

    symbols: np.ndarray
    columns: int
    rows: np.ndarray
    across: np.ndarray

    @classmethod
    def of(cls, symbols: np.ndarray, columns: int) -> Field:
        """Return a field of class 0."""
        width = columns or max(len(symbols), 1)
        return cls(symbols, columns, np.zeros(-(-len(symbols) // width), np.int64), np.zeros(columns or 1, np.int64))

    @property
    def width(self) -> int:
        """Words of a row."""
        return self.columns or max(len(self.symbols), 1)

    def padded(self, groups: np.ndarray, filling: int) -> np.ndarray:
        """Return the group of each symbol as a matrix, the last row filled up."""
        found = np.full(len(self.rows) * self.width, filling, np.int64)
        found[: len(self.symbols)] = groups[self.symbols]
        return found.reshape(len(self.rows), self.width)

    def models(self) -> np.ndarray:
        """Return the table of each symbol, int64 [words], counted from the first of the ladder."""
        across = self.across if self.columns else np.zeros(self.width, np.int64)
        return (self.rows[:, None] + across[None]).reshape(-1)[: len(self.symbols)]

    @property
    def classed(self) -> bool:
        """Whether it needs classes: not all words have one table."""
        return bool(self.columns) and (len(np.unique(self.rows)) > 1 or len(np.unique(self.across)) > 1)


def ladder(fields: Sequence[Field], loudness: np.ndarray, rungs: int) -> np.ndarray:
    """Set the classes of fields, and return the levels of the tables, uint8 [tables, 256], at most ``rungs``.

    Args:
        fields: what is coded with them.
        loudness: of each symbol, int64 [256]: 0 for what says that nothing changed, rising.
        rungs: how many tables there may be.
    """
    if not fields:
        return np.zeros((0, 256), np.uint8)
    groups = _groups(loudness)
    kinds = int(groups.max()) + 1
    changes = sum(int(np.count_nonzero(field.symbols)) for field in fields)
    rungs = max(min(rungs, 2 + changes // _CHANGES), 1)
    for field in fields:
        _begin(field, loudness, rungs)
    for turn in range(ROUNDS):
        lengths = _lengths(_counted(fields, rungs))
        merged = _by_group(lengths, groups, kinds)
        for field in fields:
            if field.columns:
                _choose(field, groups, kinds, merged, rungs, across=turn > 0)
            else:
                counts = np.bincount(field.symbols, minlength=256)
                field.rows[:] = np.argmin(lengths @ counts)
    return _trimmed(fields, rungs)


def _groups(loudness: np.ndarray) -> np.ndarray:
    """Return symbols in few groups of like loudness: int64 [256]."""
    return np.unique(np.where(loudness < 8, 8 * loudness, 64 + 2 * _octaves(loudness)), return_inverse=True)[1]  # noqa: PLR2004


def _octaves(loudness: np.ndarray) -> np.ndarray:
    return np.maximum(entropy.logarithms(np.maximum(loudness, 1)) // entropy.UNIT, 0)


def _begin(field: Field, loudness: np.ndarray, rungs: int) -> None:
    """Set the class of each row by the mean loudness of its symbols, in half octaves; 0 for rows of silence."""
    loud = np.append(loudness, 0)[field.padded(np.arange(256), 256)].sum(axis=1)
    mean = (loud << 12) // field.width
    halves = entropy.logarithms(np.maximum(mean, 1) ** 2 & ((1 << 40) - 1)) // entropy.UNIT
    steps = np.clip(halves - 14, 1, _HALVES) - 1
    field.rows[:] = np.where(loud > 0, np.minimum(1 + steps * (rungs - 1) // _HALVES, rungs - 1), 0)


def _counted(fields: Sequence[Field], rungs: int) -> np.ndarray:
    """Return how often each table codes each symbol: int64 [rungs, 256]."""
    counts = np.zeros(rungs * 256, np.int64)
    for field in fields:
        counts += np.bincount(field.models() * 256 + field.symbols, minlength=rungs * 256)
    return counts.reshape(rungs, 256)


def _lengths(counts: np.ndarray) -> np.ndarray:
    """Return the bits of each symbol with each table, in 1/4096 bit: int64 [rungs, 256]."""
    used = counts.sum(axis=1) > 0
    frequencies = np.zeros(counts.shape, np.int64)
    frequencies[used] = tables.to_frequencies(tables.to_levels(counts[used]))
    bits = entropy.logarithms(np.full(1, TOTAL)) - entropy.logarithms(frequencies)
    return np.where(frequencies > 0, bits, _ABSENT)


def _by_group(lengths: np.ndarray, groups: np.ndarray, kinds: int) -> np.ndarray:
    """Return the bits of each group of symbols with each table: those of its shortest symbol, int64 [rungs, kinds]."""
    found = np.full((len(lengths), kinds), _ABSENT, np.int64)
    for group in range(kinds):
        found[:, group] = lengths[:, groups == group].min(axis=1)
    return found


def _choose(
    field: Field, groups: np.ndarray, kinds: int, lengths: np.ndarray, rungs: int, *, across: bool
) -> None:
    """Give each row the class that codes it shortest with its columns as they are, then each column likewise."""
    matrix = field.padded(groups, kinds)
    field.rows[:] = _best(matrix, field.across, kinds, lengths, rungs - int(field.across.max()))
    if across and len(matrix) >= _SMALLEST:
        room = min(COLUMN_CLASSES, rungs - int(field.rows.max()))
        field.across[:] = _best(matrix.T, field.rows, kinds, lengths, room)


def _best(matrix: np.ndarray, other: np.ndarray, kinds: int, lengths: np.ndarray, most: int) -> np.ndarray:
    """Return for each row of a matrix of groups the class below ``most`` that is cheapest, int64 [rows].

    Args:
        matrix: int64 [rows, columns]; ``kinds`` where nothing is.
        other: the class of each column.
        kinds: how many groups there are.
        lengths: int64 [rungs, kinds].
        most: how many classes there are.
    """
    count = int(other.max()) + 1
    cost = np.zeros((len(matrix), max(most, 1)), np.int64)
    for value in range(count):
        chosen = matrix[:, other == value]
        if not chosen.size:
            continue
        cells = np.arange(len(matrix))[:, None] * (kinds + 1) + chosen
        counts = np.bincount(cells.reshape(-1), minlength=len(matrix) * (kinds + 1)).reshape(len(matrix), -1)
        for own in range(cost.shape[1]):
            cost[:, own] += counts[:, :kinds] @ lengths[min(own + value, len(lengths) - 1)]
    return np.asarray(np.argmin(cost, axis=1))


def _trimmed(fields: Sequence[Field], rungs: int) -> np.ndarray:
    """Return the levels of the rungs that are used, and let classes begin at the lowest of them."""
    lowest = min(int(field.rows.min()) for field in fields)
    for field in fields:
        field.rows -= lowest
    counts = _counted(fields, rungs)
    highest = int(np.flatnonzero(counts.sum(axis=1)).max(initial=0))
    counts = counts[: highest + 1]
    counts[counts.sum(axis=1) == 0, 0] = 1
    return tables.to_levels(counts)
