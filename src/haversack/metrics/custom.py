"""A user's callable as a metric: one score a sample, or one float for the whole set; told apart by what it returns."""

from __future__ import annotations

import ast
import functools
import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from haversack.base import blame, digest
from haversack.base.counted import counted
from haversack.base.errors import Fault, JobError
from haversack.base.quality import Direction, Drop
from haversack.metrics.contract import Compared, Kind, MeanMetric, Outputs, State
from haversack.tools.numerics import bootstrap

_NEXT = (
    "outputs is a tuple of NumPy arrays, one for each output of the model (take outputs[0]); "
    "return one score a sample, shape [n], or one float for the whole set"
)
_WHOLE_RESAMPLES = 200
WHOLE_BYTES = 256 << 20
"""The most that a metric of the whole set may keep: rows of so many bytes are held and stored for every candidate."""
_DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
)  # fmt: skip
"""What float64 holds exactly; a row tells a dtype by its place here."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def from_callable(
    function: Callable[[Any, Any], Any], *, direction: Direction = "higher", unit: str = "fraction", group: int = 1
) -> Custom:
    """Return a user's ``(outputs, expected) -> scores [n]`` or ``-> float`` as a metric.

    A callable that returns one score a sample is called batch by batch, and the value is the mean. One that returns
    a single float is a metric of the whole set: outputs are kept, and it is called on all of them at once, on each
    half of the evaluation set, and on a few hundred resamples of it for errors and intervals.

    Args:
        function: gets a tuple of read-only arrays, one for each output of the model, and the expected array.
        direction: whether ``higher`` or ``lower`` is better.
        unit: ``fraction`` or any other word.
        group: how many rows of the batch make one expected entry.
    """
    return Custom(function=function, direction=direction, unit=unit, group=group)


@dataclass(frozen=True, kw_only=True)
class Custom(MeanMetric):
    """A metric that the job file defines (made by ``from_callable``)."""

    kind: ClassVar[Kind] = "any"

    function: Callable[[Any, Any], Any]
    # A shelf's metric fixes these three in its class; a user's callable has them said by its caller.
    direction: Direction = "higher"  # type: ignore[misc]
    unit: str = "fraction"  # type: ignore[misc]
    group: int = 1

    @property
    def name(self) -> str:
        """The callable's own name."""
        function = _unbound(self.function)
        return str(getattr(function, "__name__", type(function).__name__))

    @property
    def digest(self) -> str:
        """Content digest of the settings and of the code in the callable's file, comments and layout left out.

        What the file imports does not count. Without a source file it is the callable's name.
        """
        function = _unbound(self.function)
        owner = function if inspect.isroutine(function) else type(function).__call__
        try:
            code = ast.dump(ast.parse(Path(inspect.getsourcefile(owner) or "").read_text(encoding="utf-8")))
        except (TypeError, OSError, SyntaxError, UnicodeDecodeError):
            code = ""
        bound = repr(self.function) if function is not self.function else ""
        return digest.of_data([self.name, code, _ADDRESS.sub("", bound), self.direction, self.unit, self.group])

    def start(self, names: Sequence[str] = ()) -> State:
        """Return an empty state."""
        return _CustomState(self, tuple(names))

    def call(self, outputs: Outputs, expected: np.ndarray) -> Any:  # noqa: ANN401 - what a user returns
        """Return what the user's callable returns; it gets read-only arrays.

        Raises:
            JobError: it raised; with the line of the user's code, the cause, and the shapes it was called with.
        """
        frozen = tuple(_read_only(output) for output in outputs)
        try:
            return self.function(frozen, _read_only(expected))
        except Exception as error:
            shapes = ", ".join(str(output.shape) for output in outputs)
            raise JobError(
                f"{self.called} raised {blame.sentence(error)}",
                where=blame.place(error) or self.name,
                tried=f"it was called with outputs of shape {shapes} and expected of shape {expected.shape}",
                next_step=_NEXT,
            ) from error

    def rows(self, outputs: Outputs, expected: np.ndarray, names: Sequence[str] = ()) -> np.ndarray:
        """Return a batch as rows: scores [samples, 1], or, of a callable that returned one float, what it was given.

        Raises:
            JobError: the batch has faults, or the callable raised or returned neither.
        """
        self.check(outputs, expected, names)
        result = self.call(outputs, expected)
        return self.kept(outputs, expected) if _is_number(result) else self.as_rows(result, len(expected))

    def check(self, outputs: Outputs, expected: np.ndarray, names: Sequence[str] = ()) -> None:
        """Look at a batch before the callable gets it.

        Raises:
            JobError: with every fault of the batch at once.
        """
        if faults := self._interface_faults(outputs, expected, names):
            raise JobError(
                f"{self.called} cannot score this batch",
                where="evaluation()",
                faults=tuple(faults),
                next_step="evaluation() yields ((array, …), expected), both batch first and finite",
            )

    def kept(self, outputs: Outputs, expected: np.ndarray) -> np.ndarray:
        """Return a batch for a metric of the whole set: rows [samples, columns] that hold outputs and expected values.

        Every row begins with the dtype and shape of each array's part, so rows can be chosen, resampled and stored.

        Raises:
            JobError: an array holds what float64 does not hold exactly (strings, complex or very large integers).
        """
        samples = len(expected)
        parts = [output.reshape(samples, self.group, *output.shape[1:]) for output in outputs] + [expected]
        faults = [
            Fault(f"output {index}" if index < len(outputs) else "expected", f"dtype {part.dtype}: {cause}")
            for index, part in enumerate(parts)
            if (cause := _unkept(part))
        ]
        if faults:
            raise JobError(
                f"{self.called} returns one float for the whole set, which cannot be computed from these arrays",
                where="evaluation()",
                faults=tuple(faults),
                next_step="give numbers, or let the metric return one score a sample, shape [n]",
            )
        head = [len(parts)]
        for part in parts:
            head += [_DTYPES.index(part.dtype.name), part.ndim - 1, *part.shape[1:]]
        flat = [part.reshape(samples, math.prod(part.shape[1:])).astype(np.float64) for part in parts]
        return np.concatenate([np.tile(np.array(head, np.float64), (samples, 1)), *flat], axis=1)

    def standard_error(self, rows: np.ndarray) -> float:
        """Return s / sqrt(n) of scores [samples, 1], or the bootstrap's standard error of a value of the whole set."""
        if not _is_kept(rows):
            return super().standard_error(rows)
        whole = _Whole.of(self, rows)
        return bootstrap.standard_error(whole.resampled, len(rows), count=_WHOLE_RESAMPLES)

    def drop(self, baseline: np.ndarray, artifact: np.ndarray) -> Drop:
        """Return how much worse ``artifact`` rows [samples, columns] are than ``baseline`` rows, with the interval."""
        if not _is_kept(baseline) and not _is_kept(artifact):
            return super().drop(baseline, artifact)
        if not (_is_kept(baseline) and _is_kept(artifact)):
            raise self.refusal("returned one float for one model and scores for the other")
        one, other = _Whole.of(self, baseline), _Whole.of(self, artifact)
        return bootstrap.paired_drop_of(
            one.resampled, other.resampled, len(baseline), self.direction, count=_WHOLE_RESAMPLES
        )

    def excess(self, clean: Compared, there: Compared) -> Drop:
        """Return how much more is lost on other inputs than on clean ones, with the interval, as ``drop`` tells it."""
        whole = [_is_kept(rows) for rows in (*clean, *there)]
        if not any(whole):
            return super().excess(clean, there)
        if not all(whole):
            raise self.refusal("returned one float for one model and scores for the other")
        return self._excess(lambda rows: _Whole.of(self, rows).resampled, clean, there, _WHOLE_RESAMPLES)

    def _values(self, rows: np.ndarray) -> np.ndarray:
        if not _is_kept(rows):
            return super()._values(rows)
        return np.array([_Whole.of(self, one).value(np.arange(len(one))) for one in rows])

    def as_rows(self, result: object, samples: int) -> np.ndarray:
        """Return what the callable returned as rows [samples, 1].

        Raises:
            JobError: it is not one finite number a sample.
        """
        scores = _numbers(result)
        if scores is None or scores.shape != (samples,):
            what = type(result).__name__ if scores is None else f"shape {scores.shape}"
            raise self.refusal(f"returned {what} for {counted(samples, 'sample')}")
        if not np.isfinite(scores).all():
            raise self.refusal(
                f"returned NaN or an infinity for sample {int(np.argmin(np.isfinite(scores)))} of a batch"
            )
        return scores[:, None]

    def refusal(self, cause: str) -> JobError:
        """Return the error that says what the callable did wrong, with its file and line."""
        code = getattr(self.function, "__code__", None)
        where = f"{code.co_filename}:{code.co_firstlineno}" if code else self.name
        return JobError(f"{self.called} {cause}", where=where, next_step=_NEXT)

    def _scored(self, outputs: Outputs) -> Sequence[int]:
        return range(len(outputs))

    def _scores(self, output: np.ndarray, expected: np.ndarray) -> np.ndarray:
        return self.rows((output,), expected)[:, 0]


@dataclass(frozen=True, eq=False)
class _Whole:
    """What a metric of the whole set is computed from: all outputs, and the expected values [samples, …]."""

    metric: Custom
    outputs: Outputs
    expected: np.ndarray

    @staticmethod
    def of(metric: Custom, rows: np.ndarray) -> _Whole:
        """Return what ``Custom.kept`` put into rows [samples, columns], as it was."""
        arrays, at = [], 1 + sum(2 + len(shape) for _, shape in _parts(rows))
        for dtype, shape in _parts(rows):
            size = math.prod(shape)
            arrays.append(rows[:, at : at + size].astype(dtype).reshape(len(rows), *shape))
            at += size
        return _Whole(metric, tuple(arrays[:-1]), arrays[-1])

    def value(self, chosen: np.ndarray) -> float:
        """Return the value on samples [chosen].

        Raises:
            JobError: the callable raised, or returned no number.
        """
        outputs = tuple(output[chosen].reshape(-1, *output.shape[2:]) for output in self.outputs)
        result = self.metric.call(outputs, self.expected[chosen])
        if not _is_number(result):
            raise self.metric.refusal(f"returned {type(result).__name__} for the whole set, and a number for a batch")
        return float(result)

    def resampled(self, block: np.ndarray) -> np.ndarray:
        """Return the value on each row of indices [resamples, samples]; NaN where it is not defined."""
        return np.array([self._value_or_nan(chosen) for chosen in block])

    def _value_or_nan(self, chosen: np.ndarray) -> float:
        try:
            return self.value(chosen)
        except (
            JobError
        ):  # a resample may lack what the metric needs, a second class for instance: then it does not count
            return float("nan")


class _CustomState(State):
    """Keeps scores, or, once the callable has returned a single float, what it is given."""

    metric: Custom

    def update(self, outputs: Outputs, expected: np.ndarray) -> None:
        metric = self.metric
        if not self._rows:
            self._rows.append(metric.rows(outputs, expected, self.names))
        elif not _is_kept(self._rows[0]):
            metric.check(outputs, expected, self.names)
            self._rows.append(metric.as_rows(metric.call(outputs, expected), len(expected)))
        else:
            metric.check(outputs, expected, self.names)
            self._rows.append(self._alike(metric.kept(outputs, expected)))
        held = sum(rows.nbytes for rows in self._rows)
        if _is_kept(self._rows[0]) and held > WHOLE_BYTES:
            raise JobError(
                f"{metric.called} returns one float for the whole set, whose outputs take more than "
                f"{WHOLE_BYTES >> 20} MiB",
                where="evaluation()",
                tried=f"{self.samples} samples were kept, each of {self._rows[0].shape[1]} values",
                next_step="let the metric return one score a sample, shape [n], or evaluate fewer samples",
            )

    def scores(self) -> np.ndarray | None:
        rows = self.rows()
        return None if _is_kept(rows) else rows[:, 0]

    def _alike(self, rows: np.ndarray) -> np.ndarray:
        first = self._rows[0]
        if _parts(rows) == _parts(first):
            return rows
        raise JobError(
            f"{self.metric.called} returns one float for the whole set, but batches differ in shape or dtype",
            where="evaluation()",
            next_step="pad all samples to one length, or let the metric return one score a sample, shape [n]",
        )


def _is_kept(rows: np.ndarray) -> bool:
    """Say whether rows hold outputs and expected values: scores are one column."""
    return int(rows.shape[-1]) > 1


def _parts(rows: np.ndarray) -> list[tuple[str, tuple[int, ...]]]:
    """Return (dtype, shape of one sample) of every array that rows hold."""
    parts: list[tuple[str, tuple[int, ...]]] = []
    at = 1
    for _ in range(int(rows[0, 0])):
        code, rank = (int(number) for number in rows[0, at : at + 2])
        parts.append((_DTYPES[code], tuple(int(size) for size in rows[0, at + 2 : at + 2 + rank])))
        at += 2 + rank
    return parts


def _unkept(array: np.ndarray) -> str:
    """Say why float64 does not hold an array's values exactly; an empty string when it does."""
    if array.dtype.name not in _DTYPES:
        return "only booleans, integers and floating point numbers can be kept"
    if array.dtype.itemsize == 8 and array.dtype.kind in "iu" and array.size:
        largest = max(abs(int(array.min())), abs(int(array.max())))
        return "values over 2^53 cannot be kept" if largest > 1 << 53 else ""
    return ""


def _unbound(function: Callable[..., Any]) -> Callable[..., Any]:
    return function.func if isinstance(function, functools.partial) else function


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _numbers(result: object) -> np.ndarray | None:
    try:
        array = np.asarray(result)
    except ValueError:  # rows of different lengths
        return None
    return array.astype(np.float64) if array.dtype.kind in "biuf" else None


def _is_number(result: object) -> bool:
    numbers = _numbers(result)
    return numbers is not None and numbers.ndim == 0
