"""The job's data as the model takes them: preprocessed, checked, kept in memory while they are small."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from haversack.base import digest
from haversack.base.errors import Fault, JobError
from haversack.base.graph import TensorSpec
from haversack.base.job import Job
from haversack.base.model import Port, Sample
from haversack.metrics.contract import Metric
from haversack.tools.data import batches, samples
from haversack.tools.data.preprocess.pipeline import Pipeline
from haversack.tools.data.stock import DIVIDED, HELD, Stock

KEPT_BYTES = 400 << 20
"""Data up to so many bytes are read and preprocessed once; larger sets are streamed anew for every pass."""
LEAST_SCORED = 2
"""One sample chooses, the other is reported."""

PAIR = 2

Pair = tuple[Sample, np.ndarray]
Item = TypeVar("Item")


class Data:
    """Calibration and evaluation sets.

    Args:
        job: gives the raw data and the preprocessing.
        ports: the model's inputs, that every batch is checked against; None before the model is known.
        metric: says how many rows make a sample.
    """

    def __init__(self, job: Job, ports: tuple[Port, ...] | None, metric: Metric) -> None:
        self.job = job
        self.pipeline = Pipeline.parse(job.preprocess)
        self._ports = ports
        self._group = metric.group
        self._calibration: list[Sample] | None = None
        self._evaluation: list[Pair] | None = None
        self._stock: Stock | None = None

    def beside(self, job: Job) -> Data:
        """Return the same data for a job with another model; what is kept is kept once."""
        other = copy.copy(self)
        vars(other).update(job=job, _stock=None)
        return other

    def expect(self, ports: tuple[Port, ...]) -> None:
        """Check every batch against the model's inputs from now on; what was kept is not read again.

        Raises:
            JobError: a batch that was kept does not fit the model.
        """
        self._ports, self._stock = ports, None
        if self._calibration is not None:
            self._calibration = list(samples.checked(self._calibration, ports, what="calibration()"))
        if self._evaluation is not None:
            self._evaluation = list(self._checked(self._evaluation))

    def prepared_job(self) -> Job:
        """Return the job with data as the model takes them."""
        return replace(self.job, calibration=self._samples, preprocess=())

    def look(self) -> Sample:
        """Look at both sets before the model is known, as far as memory keeps them, and return the first batch.

        Later batches must be as the first one is, but for what the job calls free: dtypes, axes and fixed lengths.

        Raises:
            JobError: a batch that cannot be used, or too few of them.
        """
        if self._calibration is not None and self._evaluation is not None:
            return self.first()
        try:
            first = next(samples.checked(self._samples(), None, what="calibration()"))
            self._ports = self._as_first(first)
            self._read_calibration()
            self._read_evaluation()
            if self._calibration is not None and self._evaluation is not None:
                self.counts()
        except JobError as error:  # the model's own names are not known yet
            names = {f"input {index}": name for index, name in enumerate(self.job.input_names)}
            faults = tuple(Fault(names.get(fault.where, fault.where), fault.cause) for fault in error.faults)
            raise JobError(
                error.cause, where=error.where, tried=error.tried, next_step=error.next_step, faults=faults
            ) from error
        return first

    def _as_first(self, first: Sample) -> tuple[Port, ...] | None:
        """Return ports that fit a batch with free axes as the job says; None where names it has are not known yet."""
        names = self.job.input_names or tuple(f"input {index}" for index in range(len(first)))
        if len(names) != len(first) or (self.job.dims and not self.job.input_names):
            return None
        found = []
        for name, array in zip(names, first, strict=True):
            free = self.job.dims.get(name, {0: "batch"})
            shape = tuple(free.get(axis, size) for axis, size in enumerate(array.shape))
            found.append(Port(name, TensorSpec(shape, str(array.dtype))))
        return tuple(found)

    def calibration(self) -> Iterator[Sample]:
        """Yield what calibrates: the calibration batches without the rows that are held back.

        Raises:
            JobError: a batch that does not fit the model, or none at all.
        """
        return self.whole() if self.shared else self._counted().others(1, HELD)

    def held(self) -> Iterator[Sample]:
        """Yield what layers and variants are judged on: 16 rows, evenly spread over the set, that do not calibrate.

        Where that is no more than a fifth of the rows; of fewer than 80 rows none are held back, and all serve both.
        Rows that cannot be taken out of their batches are held back with these.

        Raises:
            JobError: as ``calibration``.
        """
        return self.whole() if self.shared else self._counted().take(1, HELD)

    @property
    def shared(self) -> bool:
        """Whether no rows are held back: there are too few."""
        stock = self._counted()
        return stock.rows(1, HELD) * DIVIDED > stock.total * HELD

    def _counted(self) -> Stock:
        """Return the set counted, once for a model."""
        if self._stock is None:
            self._stock = Stock.of(self._ports or (), self.whole)
        return self._stock

    def whole(self) -> Iterator[Sample]:
        """Yield all calibration batches.

        Raises:
            JobError: a batch that does not fit the model, or none at all.
        """
        return iter(self._calibration) if self._calibration is not None else self._read_calibration()

    def kept_calibration(self) -> tuple[Sample, ...] | None:
        """Return what calibrates where memory keeps it all; None where it is streamed."""
        if self._calibration is None:
            self._read_calibration()
        return None if self._calibration is None else tuple(self.calibration())

    def _read_calibration(self) -> Iterator[Sample]:
        checked = samples.checked(self._samples(), self._ports, what="calibration()")
        kept, rest = up_to(checked, lambda sample: sum(array.nbytes for array in sample))
        if rest is None:
            self._calibration = kept
        return itertools.chain(kept, rest or ())

    def evaluation(self) -> Iterator[Pair]:
        """Yield (inputs, expected) of the evaluation set.

        Raises:
            JobError: a batch that does not fit the model, or none at all.
        """
        return iter(self._evaluation) if self._evaluation is not None else self._read_evaluation()

    def _read_evaluation(self) -> Iterator[Pair]:
        kept, rest = up_to(self._checked(self._pairs()), lambda pair: sum(array.nbytes for array in pair[0]))
        if rest is None:
            self._evaluation = kept
        return itertools.chain(kept, rest or ())

    def training(self) -> Iterator[Pair]:
        """Yield (inputs, expected) to fine-tune on, as the model takes them; nothing is kept.

        Raises:
            JobError: a batch that does not fit the model, or the job gives none.
        """
        if self.job.training is None:
            raise JobError(
                "it is missing", where="training", next_step="def training(): yield (inputs,), expected    (NumPy)"
            )
        given = self._paired(self.job.training())
        yield from samples.checked_pairs(given, self._ports, what="training()", group=self._group)

    def _checked(self, pairs: Iterable[object]) -> Iterator[Pair]:
        """Yield pairs, each checked against ports that the first calibration batch gave."""
        return samples.checked_pairs(
            pairs, self._ports, what="evaluation()", group=self._group, example="calibration()"
        )

    def _samples(self) -> Iterator[Sample]:
        return (self._prepared(sample) for sample in self.job.calibration())

    def degraded(self, worse: Callable[[Sample], Sample], words: str) -> Iterator[Pair]:
        """Yield (inputs, expected) of the evaluation set, raw inputs made worse before they are preprocessed.

        Args:
            worse: makes a raw sample worse, batch first.
            words: what it is, for errors.

        Raises:
            JobError: it cannot take the raw inputs, or what it leaves does not fit the model.
        """
        what = f"evaluation() after {words}"
        return samples.checked_pairs(self._pairs(worse), self._ports, what=what, group=self._group)

    def raw_digest(self) -> str:
        """Return the content digest of the evaluation set's raw inputs; empty where the model takes them as they are.

        Raises:
            JobError: the user's iterator raised.
        """
        if not self.pipeline.steps:
            return ""
        return batches.digest(tuple(item[0]) for item in self.job.evaluation())

    def _pairs(self, worse: Callable[[Sample], Sample] = tuple) -> Iterator[object]:
        return self._paired(self.job.evaluation(), worse)

    def _paired(self, items: Iterable[object], worse: Callable[[Sample], Sample] = tuple) -> Iterator[object]:
        for item in items:
            if isinstance(item, tuple | list) and len(item) == PAIR:
                inputs = item[0]
                yield self._prepared(worse(tuple(inputs)) if isinstance(inputs, tuple | list) else inputs), item[1]
            else:
                yield item  # whoever checks it says what is wrong

    def _prepared(self, sample: Any) -> Sample:  # noqa: ANN401 - what the user's iterator gave
        """Return a sample as the model takes it; what is no tuple as it is, for whoever checks it."""
        prepared: Sample = self.pipeline(tuple(sample)) if isinstance(sample, tuple | list) else sample
        return prepared

    def first(self) -> Sample:
        """Return the first calibration batch.

        Raises:
            JobError: there is none.
        """
        for sample in self.whole():
            return sample
        raise JobError("it gives no samples", where="calibration()", next_step="let it yield at least one batch")

    def digest(self) -> str:
        """Return the content digest of both sets, as the model takes them."""
        calibration = batches.digest(self.whole())
        inputs = batches.digest(inputs for inputs, _ in self.evaluation())
        expected = batches.digest((expected,) for _, expected in self.evaluation())
        return digest.of_data([calibration, inputs, expected])

    def kept_bytes(self) -> int:
        """Return the bytes of the samples that are kept in memory, as far as they were read."""
        calibration = sum(array.nbytes for sample in self._calibration or () for array in sample)
        return calibration + sum(array.nbytes for inputs, _ in self._evaluation or () for array in inputs)

    def counts(self) -> tuple[int, int]:
        """Return how many samples calibrate, without those held back, and how many are scored.

        Raises:
            JobError: a batch that does not fit the model, or too few samples to choose by some and report on others.
        """
        stock = self._counted()
        calibrating = stock.total - (0 if self.shared else stock.rows(1, HELD))
        scored = sum(len(expected) for _, expected in self.evaluation())
        if scored < LEAST_SCORED:
            raise JobError(
                f"it gives {scored} sample, and at least {LEAST_SCORED} are needed",
                where="evaluation()",
                tried="counting what it gives",
                next_step="give a few hundred: every other one chooses between candidates, the rest is reported",
            )
        return calibrating, scored


def up_to(items: Iterable[Item], size: Callable[[Item], int]) -> tuple[list[Item], Iterator[Item] | None]:
    """Return items while they take at most ``KEPT_BYTES``, and the iterator of the rest, or None when there is none.

    Args:
        items: read as far as memory takes them.
        size: bytes of an item.
    """
    kept: list[Item] = []
    total = 0
    iterator = iter(items)
    for item in iterator:
        kept.append(item)
        total += size(item)
        if total > KEPT_BYTES:
            return kept, iterator
    return kept, None
