"""Robustness: what ships, scored on inputs made worse, and whether compression loses more there than on clean ones.

The untouched half of the evaluation set alone is scored: the same samples as every other figure of a report.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from haversack.base.candidate import Candidate
from haversack.base.errors import Fault, JobError, VerificationError, grouped
from haversack.base.finding import Finding
from haversack.base.job import Job
from haversack.base.model import Port
from haversack.base.progress import Event
from haversack.flow import crossing
from haversack.flow.data import Data, Pair, up_to
from haversack.flow.degradations import FIELD, Degradation, of
from haversack.flow.making import REPORT
from haversack.flow.replay import Predict
from haversack.flow.steps import Steps
from haversack.measure import quality
from haversack.metrics.contract import Compared, Metric
from haversack.report.degraded import DegradedRecord
from haversack.report.wording import points
from haversack.tools.worker.faults import WorkerFault

KIND = "less-robust"
UNSCORED = (JobError, VerificationError, WorkerFault)
"""What costs one row of the table and not the run: a metric without a value, outputs that are not finite, a crash."""


@dataclass(frozen=True, eq=False)
class Scores:
    """The metric's rows of the reported half [samples, columns], or why there are none."""

    rows: np.ndarray | None
    cause: str = ""


def checked(data: Data, job: Job) -> tuple[Degradation, ...]:
    """Return the degradations that a job asks for, each tried on the first batch of the evaluation set.

    Raises:
        JobError: some cannot take it, or leave what does not fit the model; all of them are told.
    """
    found = of(job)
    faults: list[Fault] = []
    for one in found:
        try:
            next(data.degraded(one, one.words))
        except JobError as error:
            where = f"{FIELD}[{one.index}]"
            faults += [
                Fault(f"{where}.{one.entry['op']}", fault.cause) for fault in error.faults or (Fault("", error.cause),)
            ]
    if faults:
        raise JobError(
            "the evaluation set cannot be degraded like this",
            where=FIELD,
            faults=tuple(faults),
            tried="making the first batch worse in each way, before preprocess",
            next_step="choose operations that take what evaluation() yields: haversack parts operation",
        )
    return found


def measured(
    steps: Steps, best: Mapping[str, Candidate], degradations: Sequence[Degradation]
) -> tuple[DegradedRecord, ...]:
    """Return what ships on inputs made worse: one record for each target that runs here and each degradation.

    Scores are remembered by their content. What cannot be scored is told in its record, and ends nothing.

    Args:
        steps: of the run.
        best: target -> what ships for it.
        degradations: checked.

    Raises:
        EnvironmentFault: the device cannot be reached any more, or the disk is full.
    """
    if not degradations:
        return ()
    held = {name: made.rows for name, one in best.items() if (made := steps.made.get(one.plan.digest))}
    clean = {name: rows[REPORT] for name, rows in held.items() if rows is not None and name in steps.running}
    for name in sorted({*best} - {*clean}):
        text = f"{name} is not scored on degraded inputs: its file was not run here"
        steps.shop.tell(Event("measure", "note", text))
    bench = _Bench(steps, len(degradations) * (1 + len(clean)))
    records = []
    for one in degradations if clean else ():
        half = Half(steps.data, steps.model.inputs, steps.metric.group, one)
        floats = bench.scores("float", [one.entry], half, nullcontext(steps.float_predict))
        for name, rows in clean.items():
            candidate = best[name]
            files = candidate.artifact.files if candidate.artifact else ()
            decides = [one.entry, candidate.plan.digest, *(file.sha256 for file in files)]
            mine = bench.scores(name, decides, half, steps.makers[name].running(candidate))
            records.append(compared(steps.metric, name, one, (steps.baseline.rows[REPORT], rows), (floats, mine)))
    return tuple(records)


def told(candidates: Sequence[Candidate], records: Sequence[DegradedRecord], unit: str) -> list[Candidate]:
    """Return the candidates; what ships for a target says where it is less robust than float.

    Args:
        candidates: best first in each target.
        records: of what ships.
        unit: of the metric.
    """
    result = list(candidates)
    for one in records:
        if one.less_robust:
            result = crossing.told(result, {one.target: Finding(KIND, _words(one, unit))})
    return result


def _words(one: DegradedRecord, unit: str) -> str:
    if one.drop is None:
        return f"on {one.degradation} it cannot be scored where float can: {one.cause}"
    lost = f"on {one.degradation} it loses {points(one.drop, unit)}"
    return f"{lost} where it loses {points(one.clean_drop, unit)} on clean inputs"


class Half:
    """The reported half of the evaluation set, made worse in one way; read when it is asked for, kept while small.

    Args:
        data: the job's.
        ports: the model's inputs.
        group: how many rows make one sample.
        worse: the degradation.
    """

    def __init__(self, data: Data, ports: Sequence[Port], group: int, worse: Degradation) -> None:
        self._data = data
        self._group = group
        self.worse = worse
        self._kept: list[Pair] | None = None
        self.cut = all(port.spec.shape and isinstance(port.spec.shape[0], str) for port in ports)

    def __iter__(self) -> Iterator[Pair]:
        """Yield (inputs, expected) as the model takes them; whole batches where the length of a batch is fixed."""
        if self._kept is not None:
            return iter(self._kept)
        kept, rest = up_to(self._read(), lambda pair: sum(array.nbytes for array in pair[0]))
        if rest is None:
            self._kept = kept
        return itertools.chain(kept, rest or ())

    def _read(self) -> Iterator[Pair]:
        start = 0
        for inputs, expected in self._data.degraded(self.worse, self.worse.words):
            odd = np.arange(start, start + len(expected)) % 2 == REPORT.start
            start += len(expected)
            if not self.cut:
                yield inputs, expected
            elif odd.any():
                rows = np.repeat(odd, self._group)
                yield tuple(array[rows] for array in inputs), expected[odd]


@dataclass
class _Bench:
    """Scores what is not known yet, and tells how many samples of all are scored."""

    steps: Steps
    scorings: int
    done: int = 0

    @cached_property
    def samples(self) -> int:
        """How many samples one scoring takes."""
        return len(self.steps.baseline.rows[REPORT])

    @cached_property
    def given(self) -> list[object]:
        """What decides every score beside the content: raw inputs, what is done to them after, the float file."""
        floats = next(iter(self.steps.floats.values())).artifact.files[0].sha256
        return [self.steps.data.raw_digest(), self.steps.data.pipeline.data(), floats]

    def scores(
        self, name: str, decides: Sequence[object], half: Half, opened: AbstractContextManager[Predict]
    ) -> Scores:
        """Return what a predictor scores on a half, from the ledger where it was scored before."""
        before = self.done
        found = self.steps.shop.remember(
            "measure",
            f"{name} on {half.worse.words}",
            [*decides, *self.given, *self.steps.content],
            lambda: self._made(half, opened),
            save=lambda made: ({"cause": made.cause}, {} if made.rows is None else {"rows": made.rows}),
            load=lambda saved, arrays: Scores(arrays.get("rows"), saved["cause"]),
        )
        self.done = before + self.samples
        return found

    def _made(self, half: Half, opened: AbstractContextManager[Predict]) -> Scores:
        steps = self.steps
        try:
            with opened as predict:
                state = quality.score(
                    predict,
                    self._told(half),
                    steps.metric,
                    float_predict=steps.float_predict,
                    names=[port.name for port in steps.model.outputs],
                )
                rows = state.rows()
        except UNSCORED as error:
            places = grouped(error.faults, 1) if isinstance(error, JobError) else []
            return Scores(None, ": ".join(filter(None, (error.where, error.cause, *places))))
        return Scores(rows if half.cut else rows[REPORT])

    def _told(self, half: Half) -> Iterator[Pair]:
        for inputs, expected in half:
            yield inputs, expected
            self.done += len(expected) if half.cut else len(expected) // 2
            total = self.scorings * self.samples
            self.steps.shop.tell(Event("measure", "progress", "samples on degraded inputs", self.done, total))


def compared(
    metric: Metric, target: str, worse: Degradation, clean: Compared, there: tuple[Scores, Scores]
) -> DegradedRecord:
    """Return what was scored, and what that says of robustness.

    Args:
        metric: the job's.
        target: the runtime.
        worse: the degradation.
        clean: rows of float and of the artefact on the same samples as they are.
        there: what both score on samples made worse.
    """
    floats, mine = there
    found = DegradedRecord(target, worse.words, worse.entry, len(clean[0]), against_float=metric.against == "float")
    exact, own = (_value(metric, rows) for rows in clean)
    if exact is not None and own is not None:
        found = replace(found, clean_drop=exact - own if metric.direction == "higher" else own - exact)
    found = replace(found, clean_value=own, float_clean_value=None if found.against_float else exact)
    try:
        if floats.rows is None:
            return replace(found, cause=f"float: {floats.cause}")
        if not found.against_float:
            found = replace(found, float_value=_value(metric, floats.rows))
        if mine.rows is None:
            return replace(found, cause=mine.cause, less_robust=True)
        found = replace(found, value=_value(metric, mine.rows))
        drop, excess = metric.drop(floats.rows, mine.rows), metric.excess(clean, (floats.rows, mine.rows))
    except JobError as error:  # a metric of the whole set, called on outputs that it was not made for
        return replace(found, cause=error.cause)
    return replace(
        found,
        drop=_finite(drop.value),
        drop_low=_finite(drop.low),
        drop_high=_finite(drop.high),
        excess=_finite(excess.value),
        excess_low=_finite(excess.low),
        excess_high=_finite(excess.high),
        less_robust=excess.low > 0,
    )


def _value(metric: Metric, rows: np.ndarray) -> float | None:
    return _finite(float(metric.values(rows[None])[0]))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
