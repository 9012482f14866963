"""Files for runtimes that this machine does not have: written, read back, compared with what was injected; never run.

What can be said of such a file is its size, its structure and its numbers. How good these numbers are is told by the
reference, which computes with the same integers on this host, under the reference's name: it is not the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

import numpy as np

from haversack.base.budget import Budget
from haversack.base.candidate import Artifact, Candidate
from haversack.base.counted import counted
from haversack.base.finding import Finding
from haversack.base.model import Sample
from haversack.base.plan import Plan
from haversack.compress.apply import Compressed
from haversack.flow.data import Data
from haversack.flow.replay import Predict
from haversack.measure import quality
from haversack.metrics.contract import Metric
from haversack.report import wording
from haversack.targets.contract import Target
from haversack.targets.reference import Reference
from haversack.tools.numerics.relative import Errors

REFERENCE_SAMPLES = 64
"""Samples of the evaluation set that the reference is scored on, at least; whole batches are taken."""
Batch = tuple[Sample, np.ndarray]


class Scored(Protocol):
    """The float model on the evaluation set: the metric's rows by sample, and its outputs."""

    @property
    def rows(self) -> np.ndarray:
        """Return the metric's rows, [samples, columns]."""

    @property
    def predict(self) -> Predict:
        """Return the model as a predictor."""


@dataclass(frozen=True)
class Export:
    """What was made of a plan up to its file: what was compressed, the findings so far, seconds by stage."""

    plan: Plan
    artifact: Artifact
    compressed: Compressed
    found: list[Finding]
    seconds: Mapping[str, float]


def judgeable(budget: Budget) -> Budget:
    """Return the limits that a file can be held against which does not run here: its sizes."""
    return Budget(size=budget.size, download=budget.download)


def where_to_run(target: Target, file: str) -> str:
    """Return that a target's file is not run here, and where it can be, with the command."""
    main = PurePosixPath(file).parts[0]
    return f"not run here; {target.runs_where.format(file=main)}" if target.runs_where else "not run here"


def exported(made: Export, target: Target, data: Data, metric: Metric, floats: Scored) -> Candidate:
    """Return the candidate of a file that was written and read back, and will not be run.

    Its quality, parity, latency and memory are None. The finding ``export-only`` says what to do with the file, and
    how the reference does with the same numbers where anything is encoded.

    Args:
        made: the file and what it was made from.
        target: its runtime.
        data: the evaluation set.
        metric: the job's.
        floats: the float model, scored on all samples.

    Raises:
        JobError: the evaluation set does not fit the metric.
    """
    text = where_to_run(target, made.artifact.files[0].path)
    extra: dict[str, float] = {"reference_error": 0.0}
    if made.compressed.encodings.tensors:
        error, words = _reference(made.compressed, data, metric, floats)
        extra["reference_error"] = error
        text = f"{text}. {words}"
    findings = tuple(dict.fromkeys((*made.found, Finding("export-only", text))))
    return Candidate(made.plan, made.artifact, None, None, None, None, None, findings, dict(made.seconds), extra=extra)


def _reference(compressed: Compressed, data: Data, metric: Metric, floats: Scored) -> tuple[float, str]:
    """Return the relative error of the reference's outputs against float, and how it scores, in words."""
    predict = Reference().opened(compressed.model, compressed.encodings).run
    ports = [port.name for port in compressed.model.outputs]
    batches = list(_first(data.evaluation(), REFERENCE_SAMPLES))
    kept: list[tuple[np.ndarray, ...]] = []

    def kept_predict(sample: Sample) -> tuple[np.ndarray, ...]:
        kept.append(predict(sample))
        return kept[-1]

    rows = quality.score(kept_predict, batches, metric, float_predict=floats.predict, names=ports).rows()
    error = _relative(kept, [floats.predict(inputs) for inputs, _ in batches])
    value = float(metric.values(rows[None])[0])
    drop = metric.drop(floats.rows[: len(rows)], rows).value
    score = f"{metric.name} {wording.quality(value, metric.unit)}, a drop of {wording.points(drop, metric.unit)}"
    return error, (
        f"The reference, not this file, has on this host with the same numbers: {score}, relative error of the outputs "
        f"{wording.error(error)}, on {counted(len(rows), 'sample')}"
    )


def _first(batches: Iterable[Batch], samples: int) -> Iterator[Batch]:
    """Yield batches until they hold so many samples."""
    seen = 0
    for inputs, expected in batches:
        yield inputs, expected
        seen += len(expected)
        if seen >= samples:
            return


def _relative(found: Iterable[tuple[np.ndarray, ...]], wanted: Iterable[tuple[np.ndarray, ...]]) -> float:
    """Return the relative error over all batches (``Errors.moved``)."""
    errors = Errors()
    for mine, theirs in zip(found, wanted, strict=True):
        errors.add(mine, theirs)
    return errors.moved
