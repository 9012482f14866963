"""What a metric is: a streaming state that checks what comes in and goes out, around one inner method of the author.

::

    outputs, expected -> rows [n, k], float64: what each sample contributes -> the value of any set of rows

Because a value is a function of rows, one design gives streaming (rows are collected), standard errors and paired
intervals (rows are resampled). An author derives from ``MeanMetric`` (one score a sample, and the value is their
mean), ``SumMetric`` (the value is a function of column sums) or ``Metric`` (any function of rows).
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

import numpy as np

from haversack.base import digest
from haversack.base.counted import counted
from haversack.base.errors import Fault, JobError
from haversack.base.quality import Direction, Drop, Quality
from haversack.tools.numerics import bootstrap

Outputs = tuple[np.ndarray, ...]
Compared = tuple[np.ndarray, np.ndarray]
"""Rows of a baseline and of an artefact, float64 [samples, columns]."""
_KINDS = {"integer": "iu", "real": "fiu"}
Kind = Literal["integer", "real", "any"]


@dataclass(frozen=True)
class Metric(abc.ABC):
    """A quality number: its configuration and its behaviour.

    Attributes:
        output: which of the model's outputs is scored.

    Class attributes:
        unit: ``fraction`` (a drop of .01 is one point) or any other word.
        direction: whether ``higher`` or ``lower`` is better.
        against: ``expected`` values of the evaluation set, or the outputs of the ``float`` model on the same inputs.
        kind: ``integer``, ``real`` or ``any``: what the expected values must be.
        ranks: how many dimensions the scored output may have; empty for any.
        takes: the expected values in words, for errors.
        span: the largest difference one sample's score can make; 0 where there is no bound.
    """

    output: int = 0

    unit: ClassVar[str] = "fraction"
    direction: ClassVar[Direction] = "higher"
    against: ClassVar[Literal["expected", "float"]] = "expected"
    kind: ClassVar[Kind] = "real"
    ranks: ClassVar[tuple[int, ...]] = ()
    takes: ClassVar[str] = "expected values as its docstring tells"
    span: ClassVar[float] = 0.0

    @property
    def name(self) -> str:
        """The part's name: its file's."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def called(self) -> str:
        """What a sentence calls it: ``metric top1``; a job file's own ``def metric`` is ``metric()``."""
        return "metric()" if self.name == "metric" else f"metric {self.name}"

    @property
    def group(self) -> int:
        """How many rows of the batch make one scored sample."""
        return 1

    @property
    def digest(self) -> str:
        """Content digest of name and settings, for cache keys."""
        return digest.of_data([self.name, asdict(self)])

    def start(self, names: Sequence[str] = ()) -> State:
        """Return an empty state; ``names`` of the model's outputs make its errors readable."""
        return State(self, tuple(names))

    def __call__(self, outputs: Outputs, expected: np.ndarray) -> float:
        """Return the value of one batch (a metric with settings can so stand where a job takes a callable).

        Raises:
            JobError: as ``State.update`` and ``State.value``.
        """
        state = self.start()
        state.update(outputs, expected)
        return state.value()

    def rows(self, outputs: Outputs, expected: np.ndarray, names: Sequence[str] = ()) -> np.ndarray:
        """Return what each sample of a batch contributes, float64 [samples, columns]; checked before and after.

        Args:
            outputs: the model's outputs, batch first.
            expected: one entry for every ``group`` rows of the batch.

        Raises:
            JobError: with every fault of shapes, dtypes, lengths and values at once.
        """
        faults = self._interface_faults(outputs, expected, names)
        faults = faults or list(self._faults(outputs[self.output], expected))
        if faults:
            raise JobError(
                f"{self.called} cannot score this batch",
                where="evaluation()",
                faults=tuple(faults),
                next_step=f"evaluation() yields ((array, …), expected); {self.name} takes {self.takes}",
            )
        rows = np.asarray(self._rows(outputs[self.output], expected), np.float64)
        if rows.ndim != 2 or len(rows) != len(expected):
            raise JobError(
                f"{self.called} gave rows {rows.shape} for {counted(len(expected), 'sample')}", where=self.name
            )
        if not np.isfinite(rows).all():
            first = int(np.argmin(np.isfinite(rows).all(axis=1)))
            cause = f"{self.called} returned NaN or an infinity for sample {first} of a batch"
            raise JobError(cause, where=self.name)
        return rows

    def values(self, rows: np.ndarray) -> np.ndarray:
        """Return the value of every set of rows: float64 [sets, samples, columns] -> [sets]; NaN where undefined."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.asarray(self._values(rows), np.float64)

    def standard_error(self, rows: np.ndarray) -> float:
        """Return the standard error of the value of rows [samples, columns]: by bootstrap unless overridden."""
        return bootstrap.standard_error(lambda block: self.values(rows[block]), len(rows))

    def drop(self, baseline: np.ndarray, artifact: np.ndarray) -> Drop:
        """Return how much worse ``artifact`` rows are than ``baseline`` rows of the same samples, with its interval."""
        return bootstrap.paired_drop_of(
            lambda block: self.values(baseline[block]),
            lambda block: self.values(artifact[block]),
            len(baseline),
            self.direction,
        )

    def excess(self, clean: Compared, there: Compared) -> Drop:
        """Return how much more is lost on other inputs than on clean ones: drop there - drop here, with its interval.

        Args:
            clean, there: rows of (baseline, artifact) [samples, columns], of the same samples in the same order, on
                clean inputs and on others.
        """
        return self._excess(lambda rows: lambda block: self.values(rows[block]), clean, there, bootstrap.RESAMPLES)

    def _excess(
        self, of: Callable[[np.ndarray], bootstrap.Resampled], clean: Compared, there: Compared, count: int
    ) -> Drop:
        """Return the excess of what ``of`` makes of rows: the statistic of each row of indices."""
        here, other = ([of(rows) for rows in one] for one in (clean, there))
        return bootstrap.paired_drop_of(
            lambda block: other[0](block) - other[1](block),
            lambda block: here[0](block) - here[1](block),
            len(clean[0]),
            self.direction,
            count=count,
        )

    @abc.abstractmethod
    def _rows(self, output: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Return what each sample contributes, [samples, columns]; the arguments are checked."""

    @abc.abstractmethod
    def _values(self, rows: np.ndarray) -> np.ndarray:
        """Return the value of each set: [sets, samples, columns] -> [sets]."""

    def _faults(self, output: np.ndarray, expected: np.ndarray) -> Sequence[Fault]:
        """Return what else is wrong with the scored output (named ``output`` in faults) and the expected values."""
        return ()

    def _scored(self, outputs: Outputs) -> Sequence[int]:
        """Return which outputs are read."""
        return (self.output,)

    def _interface_faults(self, outputs: object, expected: object, names: Sequence[str]) -> list[Fault]:
        if not isinstance(outputs, tuple) or not all(isinstance(output, np.ndarray) for output in outputs):
            return [Fault("outputs", "they are not a tuple of NumPy arrays, one for each output of the model")]
        if not isinstance(expected, np.ndarray) or expected.ndim == 0:
            return [Fault("expected", f"it is {_word(expected)}, not a NumPy array, batch first")]
        if not 0 <= self.output < len(outputs):
            return [Fault("outputs", f"output {self.output} is scored, but the model has {len(outputs)}")]
        faults = []
        if self.kind != "any" and expected.dtype.kind not in _KINDS[self.kind]:
            faults.append(Fault("expected", f"dtype {expected.dtype}, but {self.name} takes {self.kind} values"))
        elif not _finite(expected):
            faults.append(Fault("expected", "it holds NaN or infinite values"))
        for index in self._scored(outputs):
            label = names[index] if index < len(names) else f"output {index}"
            faults += [Fault(label, cause) for cause in self._output_faults(outputs[index], len(expected))]
        return faults

    def _output_faults(self, output: np.ndarray, samples: int) -> Iterator[str]:
        if self.ranks and output.ndim not in self.ranks:
            ranks = " or ".join(str(rank) for rank in self.ranks)
            yield f"shape {output.shape}: {self.name} takes {ranks} dimensions"
        if self.kind != "any" and output.dtype.kind != "f":
            yield f"dtype {output.dtype} is no floating point type"
        if not _finite(output):
            bad = int(output.size - np.isfinite(output).sum())
            yield f"{bad} of its {output.size} values (shape {output.shape}) are NaN or infinite"
        rows = len(output) if output.ndim else 0
        if rows != self.group * samples or rows == 0:
            yield f"{counted(rows, 'row')} for {counted(samples, 'expected value')}" + (
                f" ({self.group} rows each)" if self.group > 1 else ""
            )


@dataclass(frozen=True)
class SumMetric(Metric):
    """A metric whose value is a function of the column sums of its rows; standard error by the jackknife."""

    def _values(self, rows: np.ndarray) -> np.ndarray:
        return self._of_sums(rows.sum(axis=-2))

    def standard_error(self, rows: np.ndarray) -> float:
        """Return the jackknife standard error."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return bootstrap.jackknife_error(self._of_sums(rows.sum(axis=0) - rows))

    @abc.abstractmethod
    def _of_sums(self, sums: np.ndarray) -> np.ndarray:
        """Return the value for each row of sums: [sets, columns] -> [sets]."""


@dataclass(frozen=True)
class MeanMetric(Metric):
    """A metric whose value is the mean of one score a sample; standard error s / sqrt(n)."""

    def _rows(self, output: np.ndarray, expected: np.ndarray) -> np.ndarray:
        return np.asarray(self._scores(output, expected), np.float64).reshape(len(expected), -1)

    def _values(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows[..., 0].mean(axis=-1))

    def standard_error(self, rows: np.ndarray) -> float:
        """Return s / sqrt(n); NaN for fewer than two samples."""
        return float(rows[:, 0].std(ddof=1) / np.sqrt(len(rows))) if len(rows) > 1 else float("nan")

    def drop(self, baseline: np.ndarray, artifact: np.ndarray) -> Drop:
        """Return the drop of the mean, with its interval (see ``bootstrap.paired_drop`` for the part of ``span``)."""
        return bootstrap.paired_drop(baseline[:, 0], artifact[:, 0], self.direction, span=self.span)

    def excess(self, clean: Compared, there: Compared) -> Drop:
        """Return the excess of the mean, with its interval.

        One sample can make twice the ``span`` of a drop, but for metrics against float, whose baseline never moves.
        """
        here, other = (baseline[:, 0] - artifact[:, 0] for baseline, artifact in (clean, there))
        span = self.span if self.against == "float" else 2 * self.span
        return bootstrap.paired_drop(other, here, self.direction, span=span)

    @abc.abstractmethod
    def _scores(self, output: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Return one score a sample, [samples]."""


class State:
    """Samples scored so far: update it batch by batch; only rows are kept, never outputs.

    Args:
        metric: what is computed.
        names: of the model's outputs, for errors.
    """

    def __init__(self, metric: Metric, names: tuple[str, ...] = ()) -> None:
        self.metric = metric
        self.names = names
        self._rows: list[np.ndarray] = []

    def update(self, outputs: Outputs, expected: np.ndarray) -> None:
        """Take one batch: the model's outputs and what was expected, batch first.

        Raises:
            JobError: with every fault of the batch at once; the state is then unchanged.
        """
        self._rows.append(self.metric.rows(outputs, expected, self.names))

    @property
    def samples(self) -> int:
        """How many samples were scored."""
        return sum(len(rows) for rows in self._rows)

    def rows(self) -> np.ndarray:
        """Return what every sample contributed, float64 [samples, columns].

        Raises:
            JobError: nothing was scored.
        """
        self._refuse_empty()
        self._rows = [np.concatenate(self._rows)] if len(self._rows) > 1 else self._rows
        return self._rows[0]

    def value(self) -> float:
        """Return the metric's value over all samples.

        Raises:
            JobError: nothing was scored, or the value is NaN or infinite.
        """
        self._refuse_empty()
        value = self._value()
        if not np.isfinite(value):
            raise JobError(
                f"{self.metric.called} returned {value}",
                where="evaluation()",
                tried=f"it was computed over {counted(self.samples, 'sample')}",
                next_step="look for constant outputs, all-zero expected values, or too few samples",
            )
        return value

    def scores(self) -> np.ndarray | None:
        """Return one score a sample, float64 [samples], where the value is their mean; None for other metrics."""
        return self.rows()[:, 0] if isinstance(self.metric, MeanMetric) else None

    def standard_error(self) -> float:
        """Return the standard error of the value; NaN where none can be stated (fewer than two samples)."""
        return self.metric.standard_error(self.rows())

    def quality(self) -> Quality:
        """Return the value with its unit, samples and standard error.

        Raises:
            JobError: as ``value``.
        """
        metric = self.metric
        return Quality(metric.name, self.value(), metric.unit, metric.direction, self.samples, self.standard_error())

    def drop(self, artifact: State) -> Drop:
        """Return how much worse ``artifact`` scored on the same samples in the same order, with a paired interval.

        Raises:
            JobError: nothing was scored.
            ValueError: the states are of other metrics or other numbers of samples.
        """
        if artifact.metric != self.metric or artifact.samples != self.samples:
            mine, other = (f"{s.metric.name} over {counted(s.samples, 'sample')}" for s in (self, artifact))
            raise ValueError(f"{mine} and {other} are not of the same samples")
        return self._drop(artifact)

    def _refuse_empty(self) -> None:
        if not self.samples:
            raise JobError(
                f"{self.metric.called} was given no samples",
                where="evaluation()",
                next_step="evaluation() must yield at least one (inputs, expected) pair",
            )

    def _value(self) -> float:
        return float(self.metric.values(self.rows()[None])[0])

    def _drop(self, artifact: State) -> Drop:
        return self.metric.drop(self.rows(), artifact.rows())


def _finite(array: np.ndarray) -> bool:
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())


def _word(value: object) -> str:
    return f"a {type(value).__module__}.{type(value).__qualname__}".replace("builtins.", "")
