"""Which table codes which word: tables are a ladder from quiet to loud, rows and columns say on which rung a word is.

A step of training moves a weight by what its output's error and its input have in common. So the changes of a whole
row, and of a whole column, are loud or quiet together, and those of a row have one sign where its inputs have. The
table of a word is the class of its row plus that of its column (the lowest rung is silence, and has no columns). There
are ladders for words of any sign and for rows that lean to one side; a row that leans to the other one is coded
negated. Words of a row with a tilt (``delta_tilt``) go to the ladder of their degree. Classes and tables are found in
turns, each the best for the other (S. Lloyd, "Least squares quantization in PCM", 1982).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from haversack.tools.codec import entropy, tables
from haversack.tools.codec.rans import TOTAL

ROUNDS = 4
COLUMN_CLASSES = 6
_DEARER = 8
"""Quarters of what a class takes at least that it is taken to cost: Zstandard packs all of them alike."""
_ABSENT = 24 * entropy.UNIT
_NEVER = 1 << 40
_SMALLEST = 8
"""So many rows at least have columns with classes."""
_CHANGES = 256
"""So many symbols other than 0 are worth a table."""
_EXACT = 6
"""Up to here symbols are counted one by one when classes are chosen; louder ones by the octave."""


@dataclass(frozen=True)
class Alphabet:
    """What is known of the symbols of a ladder.

    Attributes:
        values: what each symbol stands for, int64 [256]: 0 where nothing changed, louder where it did more; negative
            on the other side, where there are sides.
        rungs: how many tables a ladder may have.
        leans: how many ladders there are: for no side, and for leaning ever more to one.
    """

    values: np.ndarray
    rungs: int
    leans: int = 1
    groups: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        loud = np.abs(self.values)
        octaves = entropy.logarithms(np.maximum(loud, 1)) // entropy.UNIT
        near = np.where(loud <= _EXACT, loud, _EXACT + octaves) * np.sign(self.values)
        object.__setattr__(self, "groups", np.unique(near, return_inverse=True)[1])

    @property
    def kinds(self) -> int:
        """How many groups of like symbols there are."""
        return int(self.groups.max()) + 1

    def negated(self) -> np.ndarray:
        """Return the group of each group's opposites, int64 [kinds + 1]; the last one stands for nothing."""
        found = np.arange(self.kinds + 1)
        opposite = (-np.arange(256)) & 255
        found[self.groups] = self.groups[opposite]
        return found


@dataclass
class Field:
    """The symbols of a segment as a matrix, and its classes.

    Attributes:
        symbols: uint8 [words].
        columns: words of a row; 0 where it has no rows, and one class.
        rows: class of each row, int64; of all words where there are no rows.
        across: class of each column, int64; all zero at first.
        flipped: whether each row is coded negated.
        tilts: of rows, integers; None where none has one. What follows is there with them: such rows are not turned.
        degrees: of each word, uint8 [words]; their symbols are those of words that all lean to one side.
        reach: tables from one degree to the next; set with the classes.
    """

    symbols: np.ndarray
    columns: int
    rows: np.ndarray
    across: np.ndarray
    flipped: np.ndarray
    tilts: np.ndarray | None = None
    degrees: np.ndarray | None = None
    reach: int = 0

    @classmethod
    def of(cls, symbols: np.ndarray, columns: int) -> Field:
        """Return a field of class 0, without tilts."""
        rows = -(-len(symbols) // (columns or max(len(symbols), 1)))
        return cls(symbols, columns, np.zeros(rows, np.int64), np.zeros(columns or 1, np.int64), np.zeros(rows, bool))

    @property
    def width(self) -> int:
        """Words of a row."""
        return self.columns or max(len(self.symbols), 1)

    def matrix(self, values: np.ndarray, filling: int) -> np.ndarray:
        """Return the value of each symbol as a matrix, the last row filled up."""
        found = np.full(len(self.rows) * self.width, filling, np.int64)
        found[: len(self.symbols)] = values[self.symbols]
        return found.reshape(len(self.rows), self.width)

    def models(self) -> np.ndarray:
        """Return the table of each symbol, int64 [words], counted from the first of the ladders."""
        across = self.across if self.columns else np.zeros(self.width, np.int64)
        found = np.where(self.rows[:, None], self.rows[:, None] + across[None], 0).reshape(-1)[: len(self.symbols)]
        return found if self.degrees is None else found + np.where(found > 0, self.degrees * self.reach, 0)

    def by_degree(self, matrix: np.ndarray, filling: int) -> list[np.ndarray]:
        """Return a matrix of the words for each degree, those of others filled."""
        if self.degrees is None:
            return [matrix]
        flat = np.zeros(matrix.size, np.uint8)
        flat[: len(self.degrees)] = self.degrees
        degrees = flat.reshape(matrix.shape)
        return [np.where(degrees == one, matrix, filling) for one in range(int(degrees.max(initial=0)) + 1)]

    def coded(self) -> np.ndarray:
        """Return the symbols as they are coded, uint8 [words]: negated where their row is."""
        if not self.flipped.any():
            return self.symbols
        found = self.symbols.copy()
        for row in np.flatnonzero(self.flipped).tolist():
            part = found[row * self.width : (row + 1) * self.width]
            part[:] = -part
        return found

    @property
    def classed(self) -> bool:
        """Whether it needs classes: not all words have one table and one sign."""
        alike = not np.ptp(self.rows) and not np.ptp(self.across) and not self.flipped.any()
        return bool(self.columns) and (not alike or self.tilts is not None)


def ladder(fields: Sequence[Field], alphabet: Alphabet) -> np.ndarray:
    """Set the classes of fields, and return the levels of their tables, uint8 [tables, 256].

    Args:
        fields: what is coded with them.
        alphabet: of their symbols.
    """
    if not fields:
        return np.zeros((0, 256), np.uint8)
    changes = sum(int(np.count_nonzero(each.symbols)) for each in fields)
    rungs = max(min(alphabet.rungs, 2 + changes // _CHANGES), 1)
    tilted = any(each.tilts is not None for each in fields)
    leans = alphabet.leans if rungs == alphabet.rungs or tilted else 1
    for each in fields:
        each.reach = rungs if each.tilts is not None else 0
    _begin(fields, alphabet, rungs, leans)
    for turn in range(ROUNDS):
        lengths = _lengths(_counted(fields, rungs * leans))
        grouped = _by_group(lengths, alphabet)
        for each in fields:
            if each.columns:
                _choose(each, alphabet, grouped, rungs, across=turn > 0)
            else:
                each.rows[:] = np.argmin(lengths @ np.bincount(each.symbols, minlength=256))
    counts = _counted(fields, rungs * leans)
    counts = counts[: int(np.flatnonzero(counts.sum(axis=1)).max(initial=0)) + 1]
    counts[counts.sum(axis=1) == 0, 0] = 1
    return tables.to_levels(counts)


def _begin(fields: Sequence[Field], alphabet: Alphabet, rungs: int, leans: int) -> None:
    """Set the classes of rows and columns by the mean loudness of their symbols, evenly in octaves, and rows' sides."""
    levels, columns = [], []
    for each in fields:
        values = each.matrix(alphabet.values, 0)
        loud, side = np.abs(values), values.sum(axis=1)
        levels.append(_level(loud, 1))
        columns.append(_level(loud, 0) if each.columns and len(loud) >= _SMALLEST else np.full(1, -1))
        lean = np.zeros(len(loud), np.int64)
        if leans > 1 and each.columns:
            whole = np.maximum(2 * loud.sum(axis=1), 1)
            lean = np.minimum(np.abs(side) * (2 * leans - 1) // whole, leans - 1)
            lean = lean if each.tilts is None else np.where(each.tilts != 0, 0, lean)
            each.flipped[:] = (side < 0) & (lean > 0)
        each.rows[:] = rungs * lean
    told = np.concatenate(levels)
    told = told[told >= 0]
    low, high = (int(told.min()), int(told.max())) if told.size else (0, 0)
    step = max((high - low + 1) // max(rungs - 1, 1), entropy.UNIT // 4)
    for each, level, column in zip(fields, levels, columns, strict=True):
        room = min(COLUMN_CLASSES, rungs - 1) - 1
        if column.size == each.across.size and room > 0:
            quiet = int(np.sort(column)[len(column) // 8])
            each.across[:] = np.clip((column - quiet + step // 2) // step, 0, room)
        mean, most = int(each.across.sum()) // each.across.size, int(each.across.max())
        rung = np.clip(1 + (level - low) // step - mean, 1, max(rungs - 1 - most, 1))
        each.rows += np.where(level < 0, 0, rung if rungs > 1 else 0)


def _level(loud: np.ndarray, axis: int) -> np.ndarray:
    """Return the logarithm of the mean loudness of rows or columns, in 1/4096 octave above 2^-20; -1 of silence."""
    total = loud.sum(axis=axis)
    return np.where(total > 0, entropy.logarithms(np.maximum((total << 20) // max(loud.shape[axis], 1), 1)), -1)


def _counted(fields: Sequence[Field], count: int) -> np.ndarray:
    """Return how often each table codes each symbol: int64 [count, 256]."""
    counts = np.zeros(count * 256, np.int64)
    for each in fields:
        counts += np.bincount(each.models() * 256 + each.coded(), minlength=count * 256)
    return counts.reshape(count, 256)


def _lengths(counts: np.ndarray) -> np.ndarray:
    """Return the bits of each symbol with each table, in 1/4096 bit: int64 [tables, 256]."""
    used = counts.sum(axis=1) > 0
    frequencies = np.zeros(counts.shape, np.int64)
    frequencies[used] = tables.to_frequencies(tables.to_levels(counts[used]))
    bits = entropy.logarithms(np.full(1, TOTAL)) - entropy.logarithms(frequencies)
    found = np.where(frequencies > 0, bits, _ABSENT)
    found[0, 1:] = _NEVER
    return np.asarray(found)


def _by_group(lengths: np.ndarray, alphabet: Alphabet) -> np.ndarray:
    """Return the bits of each group of symbols with each table: those of its shortest symbol, int64 [tables, kinds]."""
    found = [lengths[:, alphabet.groups == group].min(axis=1) for group in range(alphabet.kinds)]
    return np.stack(found, axis=1)


def _choose(each: Field, alphabet: Alphabet, lengths: np.ndarray, rungs: int, *, across: bool) -> None:
    """Give each row the class that codes it shortest with its columns as they are, then each column likewise."""
    opposite = alphabet.negated()
    matrix = each.matrix(alphabet.groups, alphabet.kinds)
    allowed = np.flatnonzero(np.arange(len(lengths)) % rungs < rungs - int(each.across.max()))
    own = _own_bits(each.rows + len(lengths) * each.flipped, 2 * len(lengths))
    costs = _costs(each.by_degree(matrix, alphabet.kinds), each.across, lengths, allowed, rungs) + own[None, allowed]
    if len(lengths) > rungs:  # there are ladders that lean
        other = _costs([opposite[matrix]], each.across, lengths, allowed, rungs)
        costs = np.concatenate([costs, other + own[None, len(lengths) + allowed]], axis=1)
    if each.tilts is not None:
        costs[np.ix_(each.tilts != 0, np.arange(costs.shape[1]) >= np.count_nonzero(allowed < rungs))] = _NEVER
    best = np.argmin(costs, axis=1)
    each.flipped[:] = best >= len(allowed)
    each.rows[:] = allowed[best % len(allowed)]
    if across and len(matrix) >= _SMALLEST:
        room = np.arange(min(COLUMN_CLASSES, rungs - int((each.rows % rungs).max())))
        turned = np.where(each.flipped[:, None], opposite[matrix], matrix)
        columns = [one.T for one in each.by_degree(turned, alphabet.kinds)]
        found = _costs(columns, each.rows, lengths, room, rungs, rows=False)
        each.across[:] = np.argmin(found + _own_bits(each.across, len(room))[None], axis=1)


def _own_bits(classes: np.ndarray, count: int) -> np.ndarray:
    """Return about how many bits each class takes, in 1/4096 bit, by how often it occurs: int64 [count]."""
    often = np.bincount(classes, minlength=count)[:count] * 4 + 1
    return np.asarray(entropy.logarithms(np.full(1, often.sum())) - entropy.logarithms(often)) * _DEARER // 4


def _costs(
    matrices: list[np.ndarray],
    other: np.ndarray,
    lengths: np.ndarray,
    classes: np.ndarray,
    reach: int,
    *,
    rows: bool = True,
) -> np.ndarray:
    """Return the bits of each row of a matrix of groups with each class, in 1/4096 bit: int64 [rows, classes].

    Args:
        matrices: int64 [rows, columns] of the words of each degree; the number of groups where nothing is.
        other: the class of each column, which is added.
        lengths: int64 [tables, groups].
        classes: those that a row may have.
        reach: tables from one degree to the next.
        rows: whether the matrix has rows as they are; else its rows are columns, and ``other`` the classes of rows.
    """
    kinds, count = lengths.shape[1], len(matrices[0])
    found = np.zeros((count, len(classes)), np.int64)
    for value in np.unique(other).tolist():
        for degree, matrix in enumerate(matrices):
            chosen = matrix[:, other == value]
            cells = np.arange(count)[:, None] * (kinds + 1) + chosen
            counts = np.bincount(cells.reshape(-1), minlength=count * (kinds + 1)).reshape(count, -1)
            silent = classes == 0 if rows else value == 0
            table = np.minimum(classes + value + degree * reach, len(lengths) - 1)
            found += counts[:, :kinds] @ lengths[np.where(silent, 0, table)].T
    return found
