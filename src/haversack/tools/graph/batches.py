"""Batches of a chosen length from samples of any length, where the model leaves its batch dimension free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from haversack.base.model import Model, Sample
from haversack.tools.data import batches


def rebatch(model: Model, samples: Iterable[Sample], size: int) -> Iterator[Sample]:
    """Yield the same rows in the same order in batches of at most ``size``, holding one sample and one batch.

    Neighbours are joined only if their shapes agree beyond axis 0. If axis 0 of an input is fixed, or the inputs of
    a sample disagree on its length, samples pass as they are.

    Raises:
        ValueError: ``size`` is below 1.
    """
    free = all(port.spec.shape and isinstance(port.spec.shape[0], str) for port in model.inputs)

    def agree(sample: Sample) -> bool:
        return free and bool(sample[0].ndim) and len({array.shape[:1] for array in sample}) == 1

    if size < 1:
        raise ValueError(f"a batch has at least one row, not {size}")
    for joins, neighbours in groupby(samples, agree):
        if joins:
            neighbours = batches.rebatch(neighbours, size)  # noqa: PLW2901 - the same rows in other batches
        yield from neighbours
