"""What a job's iterables must give, checked: tuples of NumPy arrays, batch first, in the order of the model's inputs.

``calibration()`` gives samples ``(array, …)``; ``evaluation()`` gives pairs ``((array, …), expected)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from haversack.base import blame
from haversack.base.counted import counted
from haversack.base.errors import Fault, HaversackError, JobError
from haversack.base.model import Port, Sample
from haversack.tools.data import batches

_UNFINITE = "values are NaN or infinite, the first in row "


def checked(
    items: Iterable[object], ports: Sequence[Port] | None, *, what: str, limit: int | None = None
) -> Iterator[Sample]:
    """Yield a job's samples, each checked against the model's inputs.

    Args:
        items: what the job gives.
        ports: the model's inputs, or None for raw data, whose shapes and dtypes preprocessing will check.
        what: who gives them, for errors (``calibration()``).
        limit: stop after so many rows; the last batch is cut.

    Raises:
        JobError: the iterable raised (with the user's line), gives nothing, or a batch has faults (all are told).
    """
    yield from batches.take(_samples(items, ports, what), limit)


def checked_pairs(
    items: Iterable[object],
    ports: Sequence[Port] | None,
    *,
    what: str,
    group: int = 1,
    limit: int | None = None,
    example: str = "",
) -> Iterator[tuple[Sample, np.ndarray]]:
    """Yield a job's (inputs, expected) pairs, each checked; ``group`` rows of the inputs go with one expected entry.

    Args:
        items, ports, what, limit: as for ``checked``.
        group: rows of the inputs for one expected entry.
        example: whose first batch the ports were taken from (``calibration()``): where the first pair does not fit
            them, either may be wrong, and the error says that both disagree.

    Raises:
        JobError: as ``checked``; also when expected values are no array, hold NaN, or do not fit the rows.
    """
    yield from batches.take_pairs(_pairs(items, ports, what, group, example), limit, group)


def _samples(items: Iterable[object], ports: Sequence[Port] | None, what: str) -> Iterator[Sample]:
    for index, item in enumerate(_from_user(items, what)):
        faults = list(_sample_faults(item, ports))
        if faults or not isinstance(item, tuple):
            raise _refusal(index, faults, ports, what, "(array, …)")
        yield item


def _pairs(
    items: Iterable[object], ports: Sequence[Port] | None, what: str, group: int, example: str
) -> Iterator[tuple[Sample, np.ndarray]]:
    for index, item in enumerate(_from_user(items, what)):
        if ports is not None and index == 0 and example:
            _agree(item, ports, what, example)
        if not (isinstance(item, tuple) and len(item) == 2):
            fault = Fault("", f"it is {_word(item)}, not a pair: yield ((array, …), expected)")
            raise _refusal(index, [fault], ports, what, "((array, …), expected)")
        inputs, expected = item
        faults = [*_sample_faults(inputs, ports), *_expected_faults(inputs, expected, group)]
        if faults:
            raise _refusal(index, faults, ports, what, "((array, …), expected)")
        yield inputs, expected


def _agree(item: object, ports: Sequence[Port], what: str, example: str) -> None:
    """Refuse a first pair whose arrays are of other dtypes or shapes than the example's: which is wrong nobody knows.

    Raises:
        JobError: they disagree; with both of each.
    """
    inputs = item[0] if isinstance(item, tuple) and len(item) == 2 else None
    if not isinstance(inputs, tuple) or len(inputs) != len(ports):
        return
    faults = []
    for port, array in zip(ports, inputs, strict=True):
        if not isinstance(array, np.ndarray) or array.dtype.hasobject or not array.ndim:
            return
        if next(_interface_faults(array, port, {}), ""):
            mine, theirs = (f"{port.spec.dtype} {_shape(port.spec.shape)}", f"{array.dtype} {_shape(array.shape)}")
            faults.append(Fault(port.name, f"{mine} in {example}, {theirs} in {what}"))
    if faults:
        raise JobError(
            f"{example} and {what} disagree",
            where="the job file",
            faults=tuple(faults),
            tried="comparing the first batch of each",
            next_step="let both give what the model takes: the same dtypes, and the same shapes but for free axes",
        )


def _from_user(items: Iterable[object], what: str) -> Iterator[object]:
    try:
        iterator = iter(items)
    except TypeError as error:
        raise JobError(f"{what} returned {_word(items)}, not an iterable of batches", where=what) from error
    count = 0
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            break
        except HaversackError:
            raise
        except Exception as error:
            where, tried = blame.place(error) or what, f"batch {count} was asked for"
            step = f"python -c 'import job; list(job.{what})'    (job: your job file) shows where"
            raise JobError(
                f"{what} raised {blame.sentence(error)}", where=where, tried=tried, next_step=step
            ) from error
        yield item
        count += 1
    if count == 0:
        step = "yield at least one batch, and the same ones each time it is called"
        raise JobError("it gives no batch", where=what, tried="asking for the first one", next_step=step)


def _sample_faults(item: object, ports: Sequence[Port] | None) -> Iterator[Fault]:
    if not isinstance(item, tuple):
        what = "an array" if isinstance(item, np.ndarray) else _word(item)
        yield Fault("inputs", f"{what}, not a tuple of arrays: {_remedy(item)}")
        return
    if not item or (ports is not None and len(item) != len(ports)):
        names = "at least one" if ports is None else f"{len(ports)} ({', '.join(port.name for port in ports)})"
        yield Fault("inputs", f"{len(item)} arrays, but the model has {names}")
        return
    lengths: dict[str, int] = {}
    for index, array in enumerate(item):
        port = ports[index] if ports is not None else None
        label = port.name if port else f"input {index}"
        if not isinstance(array, np.ndarray):
            yield Fault(label, f"{_word(array)}, not a NumPy array: {_remedy(array, inside=True)}")
            continue
        causes = [*_value_faults(array), *_interface_faults(array, port, lengths)]
        yield from (Fault(label, cause) for cause in causes)


def _interface_faults(array: np.ndarray, port: Port | None, lengths: dict[str, int]) -> Iterator[str]:
    """Yield what does not fit the port; ``lengths`` keeps the free dimensions that earlier inputs have set."""
    if port is None:
        if array.ndim and lengths.setdefault("batch", array.shape[0]) != array.shape[0]:
            yield f"{array.shape[0]} rows, but the inputs before it have {lengths['batch']}"
        return
    if array.dtype != np.dtype(port.spec.dtype):
        yield f"dtype {array.dtype}, expected {port.spec.dtype}: write .astype(np.{port.spec.dtype})"
    fits = array.ndim == len(port.spec.shape) and all(
        isinstance(wanted, str) or got == wanted for got, wanted in zip(array.shape, port.spec.shape, strict=True)
    )
    if not fits:
        yield f"shape {_shape(array.shape)}, expected {_shape(port.spec.shape)}"
        return
    for got, wanted in zip(array.shape, port.spec.shape, strict=True):
        if isinstance(wanted, str) and lengths.setdefault(wanted, got) != got:
            yield f"{wanted} is {got}, but an input before it has {lengths[wanted]}"


def _value_faults(array: np.ndarray) -> Iterator[str]:
    if array.ndim == 0:
        yield "a single number, but the batch comes first: shape [1, …]"
    elif array.size == 0:
        yield f"shape {_shape(array.shape)} holds no values"
    if array.dtype.hasobject:
        yield "it holds Python objects: rows of different lengths need padding, or batches of their own"
    elif array.dtype.kind in "fc" and not np.isfinite(array).all():
        bad = ~np.isfinite(array)
        place = ", ".join(str(int(axis)) for axis in np.unravel_index(int(bad.argmax()), bad.shape))
        row = place.partition(",")[0] or "0"
        yield f"{int(bad.sum())} of {array.size} {_UNFINITE}{row}, at [{place}]"


def _expected_faults(inputs: object, expected: object, group: int) -> Iterator[Fault]:
    if not isinstance(expected, np.ndarray):
        yield Fault("expected", f"{_word(expected)}, not a NumPy array: {_remedy(expected, inside=True)}")
        return
    yield from (Fault("expected", cause) for cause in _value_faults(expected))
    first = inputs[0] if isinstance(inputs, tuple) and inputs else None
    if isinstance(first, np.ndarray) and first.ndim and expected.ndim and len(first) != group * len(expected):
        each = f", {group} rows each" if group > 1 else ""
        yield Fault(
            "expected", f"{counted(len(expected), 'entry', 'entries')} for {counted(len(first), 'row')} of inputs{each}"
        )


def _refusal(index: int, faults: Sequence[Fault], ports: Sequence[Port] | None, what: str, form: str) -> JobError:
    wanted = "; ".join(f"{port.name}: {port.spec.dtype} {_shape(port.spec.shape)}" for port in ports or ())
    step = f"yield {form}" + (f" with {wanted}" if wanted else "")
    if all(_UNFINITE in fault.cause for fault in faults):
        row, where = faults[0].cause.partition(_UNFINITE)[2].partition(",")[0], faults[0].where
        step = f"look at sample {row} of batch {index}, {where}: mend it where it is made, or leave it out"
    tried = f"looking at every value of batches 0 to {index}" if index else "looking at every value of it"
    return JobError(f"batch {index} cannot be used", where=what, faults=tuple(faults), tried=tried, next_step=step)


def _remedy(value: object, *, inside: bool = False) -> str:
    module = type(value).__module__.partition(".")[0]
    if module == "torch":
        return "write tensor.numpy()" if inside else "write (tensor.numpy(),)"
    if isinstance(value, np.ndarray):
        return "write (x,), with the comma"
    if isinstance(value, dict):
        return "write a tuple of its arrays in the order of the model's inputs"
    if isinstance(value, list) and not inside:
        return "write tuple(…) of NumPy arrays"
    return "write np.asarray(…)" if inside else "yield (array,)"


def _word(value: object) -> str:
    kind = type(value)
    return f"a {kind.__qualname__}" if kind.__module__ == "builtins" else f"a {kind.__module__}.{kind.__qualname__}"


def _shape(shape: Sequence[int | str]) -> str:
    return f"[{', '.join(str(size) for size in shape)}]"
