"""Many samples in few calls: stacked where the model's batch is free, cut into calls of its own size where it is not.

Rows do not change each other in integers with fixed scales, and the results are the same bits as one by one. Float
kernels may sum in another order for another batch, and dynamic int8 takes its ranges over the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from haversack.base.errors import UsageError

Arrays = Mapping[str, np.ndarray]
"""Input or output name -> array, batch first."""
MOST_ROWS = 64
"""Of one call: its memory grows with them."""


def many(
    call: Callable[[Arrays], Arrays], samples: Sequence[Arrays], *, rows: int = 0, most: int = MOST_ROWS
) -> list[dict[str, np.ndarray]]:
    """Return the outputs of each sample, in order; shapes and dtypes as ``call`` gives them.

    Samples whose arrays differ in dtype or in more than their number of rows are not stacked with each other.

    Args:
        call: inputs by name, batch first -> outputs by name.
        samples: inputs by name, each of one row or more.
        rows: how many rows a call takes; 0 for any number.
        most: rows of a call whose number is free.

    Raises:
        UsageError: a sample has no rows, or inputs of several numbers of rows; or an output has not as many rows as
            went in, so that nobody knows which sample it belongs to.
    """
    found: list[dict[str, np.ndarray]] = [{} for _ in samples]
    for group in _alike(samples):
        counts = [_rows(samples[index]) for index in group]
        stacked = _stacked([samples[index] for index in group])
        outputs = _called(call, stacked, sum(counts), rows or most, fixed=bool(rows))
        begin = 0
        for index, count in zip(group, counts, strict=True):
            found[index] = {name: array[begin : begin + count] for name, array in outputs.items()}
            begin += count
    return found


def _alike(samples: Sequence[Arrays]) -> Iterator[list[int]]:
    """Yield places of samples that may be stacked."""
    groups: dict[object, list[int]] = {}
    for index, sample in enumerate(samples):
        form = tuple((name, str(sample[name].dtype), sample[name].shape[1:]) for name in sorted(sample))
        groups.setdefault(form, []).append(index)
    yield from groups.values()


def _rows(sample: Arrays) -> int:
    counts = {array.shape[:1] for array in sample.values()}
    if len(counts) != 1 or not min(counts, default=()) or counts == {(0,)}:
        told = ", ".join(f"{name} {list(array.shape)}" for name, array in sample.items()) or "no inputs"
        raise UsageError(f"a sample has one number of rows, batch first: {told}", next_step="add the batch, x[None]")
    return int(counts.pop()[0])


def _stacked(samples: Sequence[Arrays]) -> dict[str, np.ndarray]:
    if len(samples) == 1:
        return dict(samples[0])
    return {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}


def _called(
    call: Callable[[Arrays], Arrays], inputs: Arrays, rows: int, size: int, *, fixed: bool
) -> dict[str, np.ndarray]:
    """Call with ``size`` rows at a time; the last call is filled up with its last row where the number is fixed."""
    pieces: list[Arrays] = []
    for begin in range(0, rows, size):
        piece = {name: array[begin : begin + size] for name, array in inputs.items()}
        count = min(size, rows - begin)
        if fixed and count < size:
            piece = {
                name: np.concatenate([array, np.repeat(array[-1:], size - count, 0)]) for name, array in piece.items()
            }
        given = size if fixed else count
        outputs = call(piece)
        for name, array in outputs.items():
            if array.ndim == 0 or len(array) != given:
                told = f"{list(array.shape)} for {given} rows"
                raise UsageError(f"an output is {told}: it cannot be cut", where=name, next_step="call one by one")
        pieces.append(outputs)
    if len(pieces) == 1:
        return dict(pieces[0])
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
