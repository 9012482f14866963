"""Palettes: a few values that stand for all of a weight, each weight an index into them (Han et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from haversack.base.encodings import Codebook

ROUNDS = 100
"""Of Lloyd's algorithm, at most: begun as it is here, it settles before, or nothing moves that matters."""
BINS = 512
"""Different weights at most that are divided among entries exactly; more of them are divided bin by bin."""
RATIOS = 64
"""How many scales of a logarithmic palette are tried: an octave below the largest weight, and half of one above."""
LEAST = 0.01
"""Fraction of the mean importance that every weight has at least: where nothing was seen, values still count."""
_LARGEST = float(np.finfo(np.float16).max)

Entries = Callable[["Values", int], np.ndarray]
"""Makes the entries of one palette from the values that it serves: at most 2^bits float64 numbers, in any order."""


class Values:
    """The weights of one palette, sorted, with sums by which any range of them is judged in a moment.

    Args:
        weight: float, any shape, finite, not empty.
        importance: of each weight, not negative, the same shape.

    Attributes:
        sorted: the weights, ascending, float64 [n].
        mass, first, second: sums of importance times 1, the weight and its square over the weights before, [n + 1].
    """

    def __init__(self, weight: np.ndarray, importance: np.ndarray) -> None:
        flat, mass = np.asarray(weight, np.float64).ravel(), np.asarray(importance, np.float64).ravel()
        order = np.argsort(flat, kind="stable")
        self.sorted = flat[order]
        mean = float(mass.mean())
        mass = mass[order] / mean + LEAST if mean > 0 else np.ones_like(flat)
        self.mass, self.first, self.second = (
            np.concatenate([[0.0], np.cumsum(mass * self.sorted**power)]) for power in (0, 1, 2)
        )

    def cells(self, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where the weights nearest to each entry begin and end; entries ascend."""
        ends = np.searchsorted(self.sorted, _borders(entries), side="right")
        return np.concatenate([[0], ends]), np.concatenate([ends, [len(self.sorted)]])

    def loss(self, entries: np.ndarray) -> float:
        """Return the sum of importance times squared error when each weight takes its nearest entry."""
        starts, stops = self.cells(entries)
        mass, first, second = (sums[stops] - sums[starts] for sums in (self.mass, self.first, self.second))
        return float((second - 2.0 * entries * first + np.square(entries) * mass).sum())


def kmeans(
    weight: np.ndarray, bits: int, importance: np.ndarray | None = None, group: int = 0
) -> tuple[Codebook, np.ndarray]:
    """Return palettes of 2^bits values for a weight, and its indices.

    In one dimension k-means can be solved exactly, by dynamic programming (Wu 1991; Wang and Song 2011). So it is for
    up to 512 different weights; more are divided bin by bin, and Lloyd's algorithm settles the rest. It is the same
    every time. Each weight counts by its importance, as in SqueezeLLM (Kim et al. 2023, arXiv:2306.07629). Entries are
    float16 numbers in float32, ascending; what too few different weights leave over repeats the last one.

    Args:
        weight: float32, any shape, finite, not empty.
        bits: 1 to 8.
        importance: of each weight, not negative, the weight's shape; None where all count alike.
        group: how many rows share a palette; it divides the rows. 0 for one palette in all.

    Returns:
        (palette, int32 indices of the weight's shape).

    Raises:
        ValueError: the group does not divide the rows.
    """
    return _palettes(weight, bits, importance, group, _means)


def logarithmic(
    weight: np.ndarray, bits: int, importance: np.ndarray | None = None, group: int = 0
) -> tuple[Codebook, np.ndarray]:
    """Return palettes of 0 and s, s/2, s/4 … of both signs, and the indices of a weight (Miyashita et al. 2016).

    There are 2^(bits-1) - 1 magnitudes (arXiv:1603.01025, weights in the logarithmic domain). Only the scale s is
    searched, for the least squared error, each weight counting by its importance; it is a float16 number, and halving
    it is exact wherever float16 is not subnormal.

    Args:
        weight: float32, any shape, finite, not empty.
        bits: 2 to 8.
        importance, group: as in ``kmeans``.

    Returns:
        (palette, int32 indices of the weight's shape).

    Raises:
        ValueError: the group does not divide the rows.
    """
    return _palettes(weight, bits, importance, group, _powers)


def values(indices: np.ndarray, palette: Codebook) -> np.ndarray:
    """Return the float32 values that indices of any shape stand for."""
    if not palette.group:
        return np.asarray(palette.entries[indices], np.float32)
    rows = np.arange(len(indices)) // palette.group
    return np.asarray(palette.entries[rows.reshape(-1, *[1] * (indices.ndim - 1)), indices], np.float32)


def _palettes(
    weight: np.ndarray, bits: int, importance: np.ndarray | None, group: int, find: Entries
) -> tuple[Codebook, np.ndarray]:
    mass = np.ones(weight.shape) if importance is None else importance
    if not group:
        entries = _filled(find(Values(weight, mass), bits), bits)
        return Codebook(bits, entries), _nearest(weight, entries)
    if len(weight) % group:
        message = f"groups of {group} do not divide {len(weight)} rows"
        raise ValueError(message)
    starts = range(0, len(weight), group)
    parts = [slice(start, start + group) for start in starts]
    books = [_filled(find(Values(weight[part], mass[part]), bits), bits) for part in parts]
    indices = [_nearest(weight[part], book) for part, book in zip(parts, books, strict=True)]
    return Codebook(bits, np.stack(books), group), np.concatenate(indices)


def _means(held: Values, bits: int) -> np.ndarray:
    known = np.unique(held.sorted)
    if len(known) <= 1 << bits:
        return known
    if len(known) > BINS:
        known = _bins(held, known[0], known[-1])
    cuts = np.unique(np.concatenate([np.searchsorted(held.sorted, known), [len(held.sorted)]]))
    even = np.linspace(held.sorted[0], held.sorted[-1], 1 << bits)  # where entries are nearly as many as bins
    return min((_settled(held, begun) for begun in (_divided(held, cuts, 1 << bits), even)), key=held.loss)


def _bins(held: Values, low: float, high: float) -> np.ndarray:
    """Return where bins begin, as dense as the cube root of the weights' density: few in the middle, some far out."""
    edges = np.linspace(low, high, 8 * BINS + 1)
    mass = np.diff(held.mass[np.searchsorted(held.sorted, edges[1:-1])], prepend=0.0, append=held.mass[-1])
    share = np.concatenate([[0.0], np.cumsum(np.cbrt(np.maximum(mass, 0.0)))])
    begun = np.interp(np.arange(BINS) * (share[-1] / BINS), share, edges)
    begun[0] = low
    return np.asarray(begun)


def _divided(held: Values, cuts: np.ndarray, count: int) -> np.ndarray:
    """Return the means of the cells of least loss among those that end at cuts: dynamic programming (Wu 1991)."""
    mass, first, second = (sums[cuts] for sums in (held.mass, held.first, held.second))
    inside = mass[None, :] - mass[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        loss = second[None, :] - second[:, None] - np.square(first[None, :] - first[:, None]) / inside
    loss = np.where(np.triu(np.ones(loss.shape, bool), 1), loss, np.inf)
    least, begins = loss[0], []
    for _ in range(min(count, len(cuts) - 1) - 1):
        total = least[:, None] + loss
        begins.append(total.argmin(axis=0))
        least = total[begins[-1], np.arange(len(cuts))]
    ends = [len(cuts) - 1]
    for begin in reversed(begins):
        ends.append(int(begin[ends[-1]]))
    ends = [0, *reversed(ends)]
    return np.asarray(np.diff(first[ends]) / np.diff(mass[ends]))


def _settled(held: Values, begun: np.ndarray) -> np.ndarray:
    """Return what Lloyd's algorithm makes of entries, ascending."""
    centres = np.unique(begun)
    for _ in range(ROUNDS):
        starts, stops = held.cells(centres)
        mass, first = held.mass[stops] - held.mass[starts], held.first[stops] - held.first[starts]
        means = np.where(mass > 0, first / np.where(mass > 0, mass, 1.0), centres)
        if np.array_equal(means, centres):
            break
        centres = means
    return centres


def _powers(held: Values, bits: int) -> np.ndarray:
    peak = min(float(np.abs(held.sorted[[0, -1]]).max()), _LARGEST)
    shifts = 2.0 ** -np.arange((1 << (bits - 1)) - 1)
    scales = np.unique((peak * 2.0 ** np.linspace(-1.0, 0.5, RATIOS)).clip(0.0, _LARGEST).astype(np.float16))
    tried = [_signed(float(scale) * shifts) for scale in scales]
    return tried[int(np.argmin([held.loss(each) for each in tried]))]


def _signed(magnitudes: np.ndarray) -> np.ndarray:
    """Return magnitudes of both signs and 0, ascending."""
    return np.unique(np.concatenate([-magnitudes, [0.0], magnitudes]))


def _filled(entries: np.ndarray, bits: int) -> np.ndarray:
    """Return entries as float16 numbers in float32 [2^bits], ascending; the last is repeated for what is left over."""
    known = np.unique(np.clip(entries, -_LARGEST, _LARGEST).astype(np.float16)).astype(np.float32) + np.float32(0.0)
    return np.concatenate([known, np.full((1 << bits) - len(known), known[-1], np.float32)])


def _nearest(weight: np.ndarray, entries: np.ndarray) -> np.ndarray:
    borders = _borders(np.unique(entries).astype(np.float64))
    return np.searchsorted(borders, np.asarray(weight, np.float64), side="left").astype(np.int32)


def _borders(centres: np.ndarray) -> np.ndarray:
    return np.asarray((centres[:-1] + centres[1:]) / 2)
