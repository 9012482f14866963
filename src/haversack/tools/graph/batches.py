"""Batches of a chosen length from samples of any length, where the model leaves its batch dimension free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from haversack.base.model import Model, Sample


def rebatch(model: Model, samples: Iterable[Sample], size: int) -> Iterator[Sample]:
    """Yield the same rows in the same order in batches of at most ``size``, holding one sample and one batch.

    Neighbours are joined only if their shapes agree beyond axis 0. If axis 0 of an input is fixed, or the inputs of
    a sample disagree on its length, samples pass as they are.

    Raises:
        ValueError: ``size`` is below 1.
    """
    if size < 1:
        raise ValueError(f"a batch has at least one row, not {size}")
    free = all(port.spec.shape and isinstance(port.spec.shape[0], str) for port in model.inputs)
    pending: list[Sample] = []
    for sample in samples:
        if not free or len({array.shape[:1] for array in sample}) != 1 or not sample[0].ndim:
            yield from _joined(pending)
            pending = []
            yield sample
            continue
        if pending and _kind(pending[0]) != _kind(sample):
            yield from _joined(pending)
            pending = []
        start = 0
        while start < sample[0].shape[0]:
            room = size - sum(part[0].shape[0] for part in pending)
            pending.append(tuple(array[start : start + room] for array in sample))
            start += room
            if sum(part[0].shape[0] for part in pending) == size:
                yield from _joined(pending)
                pending = []
    yield from _joined(pending)


def _kind(sample: Sample) -> list[tuple[tuple[int, ...], np.dtype[np.generic]]]:
    return [(array.shape[1:], array.dtype) for array in sample]


def _joined(pending: list[Sample]) -> Iterator[Sample]:
    if pending:
        yield tuple(np.concatenate(parts) for parts in zip(*pending, strict=True))
