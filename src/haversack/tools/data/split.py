"""The evaluation set in two halves: one chooses, the untouched other is reported."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

from haversack.base.model import Sample
from haversack.tools.data import batches

Half = Literal["choose", "report"]


def halves(
    evaluation: Iterable[tuple[Sample, np.ndarray]], which: Half, *, group: int = 1, size: int | None = None
) -> Iterator[tuple[Sample, np.ndarray]]:
    """Yield one half of (inputs, expected) pairs: entries 0, 2, 4 … choose, entries 1, 3, 5 … are reported.

    Entries are counted through all batches, so the halves do not depend on how the set is batched.

    Args:
        evaluation: batches, batch first.
        which: ``choose`` or ``report``.
        group: rows of the inputs that go with one expected entry; they stay together.
        size: entries a batch of the half; the first batch's own number when None.
    """
    batch, rest = _first(evaluation)
    if batch is not None:
        picked = _picked(itertools.chain([batch], rest), 0 if which == "choose" else 1, group)
        yield from batches.rebatch_pairs(picked, size or len(batch[1]), group)


def _first(
    evaluation: Iterable[tuple[Sample, np.ndarray]],
) -> tuple[tuple[Sample, np.ndarray] | None, Iterator[tuple[Sample, np.ndarray]]]:
    rest = iter(evaluation)
    return next(rest, None), rest


def _picked(
    evaluation: Iterable[tuple[Sample, np.ndarray]], parity: int, group: int
) -> Iterator[tuple[Sample, np.ndarray]]:
    seen = 0
    for inputs, expected in evaluation:
        entries = np.arange((parity - seen) % 2, len(expected), 2)
        rows = (entries[:, None] * group + np.arange(group)).reshape(-1)
        seen += len(expected)
        if entries.size:
            yield tuple(array[rows] for array in inputs), expected[entries]
