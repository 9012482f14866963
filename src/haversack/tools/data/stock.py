"""Samples that were counted: some of their rows, evenly spread over all of them, or all but those.

What looks at some rows only must not look at the first ones: data are often in an order (by class, by day, by hand).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from haversack.base.model import Port, Sample

HELD, DIVIDED = 16, 80
"""So many calibration rows are held back where there are so many, a fifth at the most."""


def given(rows: int) -> int:
    """Return how many calibration rows there must be so that so many are left, beside those that are held back."""
    return rows + HELD if rows + HELD >= DIVIDED else rows


@dataclass(frozen=True)
class Stock:
    """Samples, read afresh for every pass; none is kept.

    Attributes:
        samples: returns them, arrays batch first, the same ones at each call.
        lengths: rows of each.
        free: whether rows can be taken out of their sample: axis 0 is free in all inputs and the same for all.
    """

    samples: Callable[[], Iterable[Sample]]
    lengths: tuple[int, ...]
    free: bool

    @classmethod
    def of(cls, ports: Sequence[Port], samples: Callable[[], Iterable[Sample]]) -> Stock:
        """Count samples in one pass.

        Args:
            ports: the model's inputs.
            samples: see the class.
        """
        lengths, free = list[int](), all(port.spec.shape and isinstance(port.spec.shape[0], str) for port in ports)
        for sample in samples():
            lengths.append(int(sample[0].shape[0]) if sample[0].ndim else 1)
            free = free and bool(sample[0].ndim) and len({array.shape[:1] for array in sample}) == 1
        return cls(samples, tuple(lengths), free)

    @property
    def total(self) -> int:
        """How many rows there are."""
        return sum(self.lengths)

    def rows(self, count: int, size: int) -> int:
        """Return how many rows ``take`` yields."""
        chosen = self._chosen(count, size)
        return sum(self.lengths[index] if rows is None else len(rows) for index, rows in chosen.items())

    def take(self, count: int, size: int) -> Iterator[Sample]:
        """Yield the rows of so many batches of a size, evenly spread over all samples, in order, one by one.

        Where nothing is left out, samples are yielded as they are. Rows that cannot be taken out of their samples come
        with these: as many samples as batches are wanted, more where they are shorter than a batch.

        Args:
            count: of batches.
            size: rows of a batch.
        """
        chosen = self._chosen(count, size)
        last = max(chosen, default=-1)
        for index, sample in enumerate(self.samples()):
            rows = chosen.get(index, ())
            if rows is None:
                yield sample
            else:  # copies: a view would keep its whole sample
                yield from (tuple(array[row : row + 1].copy() for array in sample) for row in rows)
            if index >= last:
                return

    def others(self, count: int, size: int) -> Iterator[Sample]:
        """Yield what ``take`` leaves, in order: samples as they are, or the pieces (views) between the rows taken."""
        chosen = self._chosen(count, size)
        for index, sample in enumerate(self.samples()):
            rows = chosen.get(index, ())
            if rows is None:
                continue
            ends = (-1, *rows, self.lengths[index])
            pieces = [(start + 1, stop) for start, stop in pairwise(ends) if start + 1 < stop]
            yield from (tuple(array[start:stop] for array in sample) for start, stop in pieces) if rows else (sample,)

    def _chosen(self, count: int, size: int) -> Mapping[int, tuple[int, ...] | None]:
        """Return index of a sample -> its rows that are taken, or None for the whole sample."""
        wanted, total = count * size, self.total
        if not self.free:
            samples = max(count, -(-wanted // max(1, min(self.lengths, default=1))))
            return dict.fromkeys(evenly(len(self.lengths), samples))
        if wanted >= total:
            return dict.fromkeys(range(len(self.lengths)))
        places, found, start = evenly(total, wanted), dict[int, tuple[int, ...] | None](), 0
        for index, length in enumerate(self.lengths):
            mine = tuple(place - start for place in places if start <= place < start + length)
            if mine:
                found[index] = mine
            start += length
        return found


def evenly(total: int, count: int) -> list[int]:
    """Return so many places out of a total, evenly spread, in order; all where there are no more."""
    count = min(count, total)
    return [(2 * index + 1) * total // (2 * count) for index in range(count)]
