"""A user's callable as a metric: one score a sample, or one float for the whole set; told apart by what it returns."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from haversack.base import blame, digest
from haversack.base.errors import JobError
from haversack.base.quality import Direction, Drop
from haversack.metrics.contract import Kind, MeanMetric, Outputs, State
from haversack.tools.numerics import bootstrap

_NEXT = (
    "outputs is a tuple of NumPy arrays, one for each output of the model (take outputs[0]); "
    "return one score a sample, shape [n], or one float for the whole set"
)
_WHOLE_RESAMPLES = 200
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def from_callable(
    function: Callable[[Any, Any], Any], *, direction: Direction = "higher", unit: str = "fraction", group: int = 1
) -> Custom:
    """Return a user's ``(outputs, expected) -> scores [n]`` or ``-> float`` as a metric.

    A callable that returns one score a sample is called batch by batch, and the value is the mean. One that returns
    a single float is a metric of the whole set: outputs are kept, and it is called on all of them at once.

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
                f"metric {self.name} raised {blame.sentence(error)}",
                where=blame.place(error) or self.name,
                tried=f"it was called with outputs of shape {shapes} and expected of shape {expected.shape}",
                next_step=_NEXT,
            ) from error

    def rows(self, outputs: Outputs, expected: np.ndarray, names: Sequence[str] = ()) -> np.ndarray:
        """Return the scores of a batch as rows [samples, 1].

        Raises:
            JobError: the batch has faults, or the callable raised or returned no score a sample.
        """
        if faults := self._interface_faults(outputs, expected, names):
            raise JobError(f"metric {self.name} cannot score this batch", where="evaluation()", faults=tuple(faults))
        return self.as_rows(self.call(outputs, expected), len(expected))

    def as_rows(self, result: object, samples: int) -> np.ndarray:
        """Return what the callable returned as rows [samples, 1].

        Raises:
            JobError: it is not one finite number a sample.
        """
        scores = _numbers(result)
        if scores is None or scores.shape != (samples,):
            what = type(result).__name__ if scores is None else f"shape {scores.shape}"
            raise self.refusal(f"returned {what} for {samples} samples")
        if not np.isfinite(scores).all():
            raise self.refusal(
                f"returned NaN or an infinity for sample {int(np.argmin(np.isfinite(scores)))} of a batch"
            )
        return scores[:, None]

    def refusal(self, cause: str) -> JobError:
        """Return the error that says what the callable did wrong, with its file and line."""
        code = getattr(self.function, "__code__", None)
        where = f"{code.co_filename}:{code.co_firstlineno}" if code else self.name
        return JobError(f"metric {self.name} {cause}", where=where, next_step=_NEXT)

    def _scored(self, outputs: Outputs) -> Sequence[int]:
        return range(len(outputs))

    def _scores(self, output: np.ndarray, expected: np.ndarray) -> np.ndarray:
        return self.rows((output,), expected)[:, 0]


class _CustomState(State):
    """Keeps scores, or, once the callable has returned a single float, the outputs themselves."""

    metric: Custom

    def __init__(self, metric: Custom, names: tuple[str, ...]) -> None:
        super().__init__(metric, names)
        self._kept: list[tuple[Outputs, np.ndarray]] = []

    def update(self, outputs: Outputs, expected: np.ndarray) -> None:
        metric = self.metric
        if faults := metric._interface_faults(outputs, expected, self.names):  # noqa: SLF001 - this module's own class
            raise JobError(f"metric {metric.name} cannot score this batch", where="evaluation()", faults=tuple(faults))
        result = None if self._kept else metric.call(outputs, expected)
        if self._kept or (not self._rows and _is_number(result)):
            self._kept.append((tuple(output.copy() for output in outputs), expected.copy()))
        else:
            self._rows.append(metric.as_rows(result, len(expected)))

    @property
    def samples(self) -> int:
        return super().samples + sum(len(expected) for _, expected in self._kept)

    def scores(self) -> np.ndarray | None:
        return None if self._kept else super().scores()

    def standard_error(self) -> float:
        if not self._kept:
            return super().standard_error()
        return bootstrap.standard_error(self.resampled, self.samples, count=_WHOLE_RESAMPLES)

    def _value(self) -> float:
        if not self._kept:
            return super()._value()
        return self._whole(np.arange(self.samples))

    def _drop(self, artifact: State) -> Drop:
        if not (isinstance(artifact, _CustomState) and self._kept):
            return super()._drop(artifact)
        direction = self.metric.direction
        return bootstrap.paired_drop_of(
            self.resampled, artifact.resampled, self.samples, direction, count=_WHOLE_RESAMPLES
        )

    def _whole(self, chosen: np.ndarray) -> float:
        outputs, expected = self._together()
        rows = (chosen[:, None] * self.metric.group + np.arange(self.metric.group)).reshape(-1)
        result = self.metric.call(tuple(output[rows] for output in outputs), expected[chosen])
        if not _is_number(result):
            raise self.metric.refusal(f"returned {type(result).__name__} for the whole set, and a number for a batch")
        return float(result)

    def _together(self) -> tuple[Outputs, np.ndarray]:
        if len(self._kept) > 1:
            outputs = zip(*(outputs for outputs, _ in self._kept), strict=True)
            joined = tuple(np.concatenate(parts) for parts in outputs)
            self._kept = [(joined, np.concatenate([expected for _, expected in self._kept]))]
        return self._kept[0]

    def resampled(self, block: np.ndarray) -> np.ndarray:
        """Return the whole set's value on each row of indices [resamples, samples]; NaN where it is not defined."""
        return np.array([self._whole_or_nan(chosen) for chosen in block])

    def _whole_or_nan(self, chosen: np.ndarray) -> float:
        try:
            return self._whole(chosen)
        except (
            JobError
        ):  # a resample may lack what the metric needs, a second class for instance: then it does not count
            return float("nan")


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
