"""Batches cut, joined and digested. Rows keep their order; only one batch is held at a time.

Pairs ``(inputs, expected)`` count in entries of ``expected``; ``group`` rows of the inputs go with each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from haversack.base import digest as digests
from haversack.base.model import Sample

Pair = tuple[Sample, np.ndarray]


def take(samples: Iterable[Sample], rows: int | None) -> Iterator[Sample]:
    """Yield the first ``rows`` rows, the last batch cut; None for all."""
    yield from _take(samples, rows, 1)


def take_pairs(pairs: Iterable[Pair], entries: int | None, group: int = 1) -> Iterator[Pair]:
    """Yield the pairs of the first ``entries`` expected entries, the last batch cut; None for all."""
    yield from _pairs(_take(_blocks(pairs), entries, group))


def rebatch(samples: Iterable[Sample], size: int) -> Iterator[Sample]:
    """Yield the same rows in batches of ``size``; a batch is smaller at the end, or where the next rows' shape differs.

    Raises:
        ValueError: ``size`` is below 1.
    """
    if size < 1:
        raise ValueError(f"a batch has at least one row, not {size}")
    pending: list[Sample] = []
    held = 0
    for sample in samples:
        if pending and _kind(pending[0]) != _kind(sample):
            yield _joined(pending)
            pending, held = [], 0
        start, stop = 0, len(sample[-1])
        while start < stop:
            part = tuple(array[start : start + size - held] for array in sample)
            pending.append(part)
            start, held = start + size - held, held + len(part[-1])
            if held == size:
                yield _joined(pending)
                pending, held = [], 0
    if pending:
        yield _joined(pending)


def digest(samples: Iterable[Sample]) -> str:
    """Return the content digest of rows: dtypes, shapes and bytes; the same however the rows are batched.

    For pairs give ``(*inputs, expected)`` as the sample.

    Raises:
        TypeError: an array holds Python objects.
    """
    states: list[hashlib._Hash] = []
    kinds: list[str] = []
    for sample in samples:
        for index, array in enumerate(sample):
            if array.dtype.hasobject:
                raise TypeError("an array of Python objects has no content digest")
            if index == len(states):
                states.append(hashlib.sha256())
                kinds.append("")
            kind = f"{array.dtype.str}{array.shape[1:]}"
            if kind != kinds[index]:
                states[index].update(f"|{kind}|".encode())
                kinds[index] = kind
            states[index].update(np.ascontiguousarray(array).data)
    return digests.of_data([state.hexdigest() for state in states])


def _blocks(pairs: Iterable[Pair]) -> Iterator[Sample]:
    return ((*inputs, expected) for inputs, expected in pairs)


def _pairs(blocks: Iterable[Sample]) -> Iterator[Pair]:
    return ((block[:-1], block[-1]) for block in blocks)


def _cut(block: Sample, start: int, stop: int, group: int) -> Sample:
    if group == 1:
        return tuple(array[start:stop] for array in block)
    inputs = tuple(array[start * group : stop * group] for array in block[:-1])
    return (*inputs, block[-1][start:stop])


def _take(blocks: Iterable[Sample], entries: int | None, group: int) -> Iterator[Sample]:
    left = entries
    for block in blocks:
        if left is None:
            yield block
            continue
        yield _cut(block, 0, left, group)
        left -= min(left, len(block[-1]))
        if left == 0:
            return


def _kind(block: Sample) -> list[tuple[object, object]]:
    return [(array.dtype, array.shape[1:]) for array in block]


def _joined(parts: list[Sample]) -> Sample:
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True)) if len(parts) > 1 else parts[0]
