"""Making a plan real: compress, lower, verify, measure. A runtime that crashes twice costs its candidate, no more."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from haversack import verify
from haversack.base.candidate import Artifact, Candidate, Latency, Memory, Parity
from haversack.base.counted import counted
from haversack.base.errors import ConversionError, VerificationError
from haversack.base.finding import Finding
from haversack.base.model import Model, Sample
from haversack.base.plan import STATIC, Plan
from haversack.base.progress import Event, Sink, steps
from haversack.base.quality import Drop, Quality
from haversack.compress.apply import Compressed
from haversack.flow.clock import Clock
from haversack.flow.data import Data
from haversack.flow.exports import Export, exported
from haversack.flow.failing import failure
from haversack.flow.meaning import meaning
from haversack.flow.replay import Predict, Replay
from haversack.flow.running import Running, feeds
from haversack.flow.squeeze import Squeezer
from haversack.lower.emit import emit
from haversack.measure import findings, latency, quality, starts
from haversack.measure.device import Device, Handle, Opening
from haversack.metrics.contract import Metric
from haversack.targets.contract import Target, opened_first
from haversack.tools.data import batches
from haversack.tools.formats import encodings_file
from haversack.tools.graph.batches import rebatch
from haversack.tools.store import atomic
from haversack.tools.worker.again import twice
from haversack.tools.worker.faults import WorkerCrashed, WorkerError, WorkerFault

ENCODINGS, WEIGHTS = "encodings.safetensors", "weights.safetensors"
SIGNIFICANT_TIME = 0.02
"""A layer left in float is a finding when such layers take more than this fraction of the measured time."""
FLOAT_TOLERANCE = 1e-2
"""Relative error against the reference that a tensor may have behind a float layer: a last bit of float flips a
rounding now and then, and a flip is a whole step. Behind codes that nobody shows it may be the reference's own error
against float where that is more; what the artefact does never widens it."""
APART = math.sqrt(2)
"""Outputs behind float layers may be so many of the reference's errors against float away from it: as far as two
roundings of equal error are that know nothing of each other."""
CHOOSE, REPORT = slice(0, None, 2), slice(1, None, 2)
"""Rows of the evaluation set by sample: even ones choose, odd ones are reported."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """The float artefact: the metric's rows by sample of the evaluation set, and itself as a predictor."""

    rows: np.ndarray
    predict: Predict


@dataclass(frozen=True)
class FloatFile:
    """The float artefact of one target: its folder, and what it is."""

    folder: Path
    artifact: Artifact

    @property
    def opening(self) -> Opening:
        """How it is opened."""
        path = self.folder / self.artifact.files[0].path
        return Opening(path, self.artifact.target, self.artifact.session_options)


@dataclass(frozen=True, eq=False)
class Made:
    """A candidate, judged by one half of the evaluation set, and the metric's rows of both halves by sample."""

    candidate: Candidate
    rows: np.ndarray | None = None


@dataclass(frozen=True)
class Maker:
    """Makes plans of one target real.

    Attributes:
        model: the folded float model.
        squeeze: applies a plan to it.
        data: calibration and evaluation.
        metric: the job's.
        target: the runtime.
        floats: its float artefact.
        baseline: the float model's scores and outputs.
        device: where artefacts run.
        folder: candidates are written below it, by plan identity.
        exact_samples: how many samples are compared with the reference bit for bit.
        sink: told about steps.
    """

    model: Model
    squeeze: Squeezer
    data: Data
    metric: Metric
    target: Target
    floats: FloatFile
    baseline: Baseline
    device: Device
    folder: Path
    exact_samples: int
    sink: Sink

    def make(self, plan: Plan) -> Made:
        """Return the candidate of a plan, measured; one that cannot be measured has the verdict ``failed``.

        What its findings mean is judged elsewhere (``flow.judging``): measuring does not depend on what is allowed.

        Raises:
            JobError, UsageError: the job is at fault, not the plan.
        """
        clock = Clock()
        artifact: Artifact | None = None
        found: list[Finding] = []
        try:
            with clock.of("compress"):
                compressed = self.squeeze(plan, self.sink)
            found += compressed.findings
            with clock.of("lower"):
                self.sink(Event("lower", "start", f"the {plan.target} file"))
                with opened_first(partial(self._opens, plan.target)):
                    artifact = emit(compressed.model, compressed.encodings, self.target, self.folder_of(plan))
                self._keep(plan, compressed)
            found += self.target.findings(self.folder_of(plan) / artifact.files[0].path, artifact)
            if not self.target.runs_here:
                made = Export(plan, artifact, compressed, found, clock.seconds)
                return Made(exported(made, self.target, self.data, self.metric, self.baseline))
            file = artifact
            return twice(lambda: self._measured(plan, file, compressed, list(found), clock), self._once_more)
        except (ConversionError, VerificationError, WorkerFault) as error:
            found.append(failure(error, self.model.graph))
            candidate = Candidate(plan, artifact, None, None, None, None, None, tuple(found), dict(clock.seconds))
            return Made(replace(candidate, verdict="failed", reason=str(error)))

    @contextmanager
    def running(self, candidate: Candidate) -> Iterator[Predict]:
        """Open a measured candidate as a predictor, inputs and outputs as the model has them.

        Raises:
            ValueError: it has no artefact.
            WorkerFault: the runtime failed.
        """
        if candidate.artifact is None:
            raise ValueError(f"{candidate.id} was not made")
        handle = self.device.load(self._opening(candidate.plan, candidate.artifact))
        try:
            yield self._predict(handle, candidate.artifact)
        finally:
            self.device.unload(handle)

    def folder_of(self, plan: Plan) -> Path:
        """Return where a plan's files are made."""
        return self.folder / plan.id

    def confirmed(self, candidate: Candidate, samples: int) -> tuple[Parity, tuple[Finding, ...]]:
        """Return the parity of a measured candidate, compared with the reference on so many samples, and what it tells.

        Raises:
            ValueError: the candidate was not measured.
            WorkerFault: the runtime failed.
        """
        artifact, parity, plan = candidate.artifact, candidate.parity, candidate.plan
        if artifact is None or parity is None:
            raise ValueError(f"{candidate.id} was not measured")
        if not is_static(plan):
            return parity, ()
        self.sink(Event("verify", "start", f"{counted(samples, 'sample')} bit for bit against the reference"))
        kept = self.kept(plan)
        opening = self._opening(plan, artifact)
        handle = self.device.load(opening)
        furthest: list[Sample] = []
        try:
            found = verify.compare(
                kept.model,
                kept.encodings,
                self._predict(handle, artifact),
                batches.take((inputs for inputs, _ in self.data.evaluation()), samples),
                float_predict=self.baseline.predict,
                reference_samples=samples,
                reference=meaning(self.target),
                layer_samples=0,
                furthest=furthest.append,
            )
        finally:
            self.device.unload(handle)
        names = ("reference_differing", "reference_compared", "reference_error", "reference_distance")
        exact = replace(parity, **{name: getattr(found, name) for name in names})
        return exact, tuple(self._exactness(exact, furthest, kept, opening, artifact))

    def _opens(self, target: str, path: Path, options: Mapping[str, str], threads: int) -> None:
        """Open a file that was just written in the device's child, where it may crash."""
        # What the runtime refuses, the target tells better when it opens the file itself.
        with suppress(WorkerError):
            twice(lambda: self.device.opens(Opening(path, target, options, threads)), self._once_more)

    def _once_more(self, death: WorkerCrashed) -> None:
        self.sink(Event("measure", "note", f"{death.cause}; once more in a fresh process"))

    def _opening(self, plan: Plan, artifact: Artifact) -> Opening:
        return Opening(self.folder_of(plan) / artifact.files[0].path, plan.target, artifact.session_options)

    def _predict(self, handle: Handle, artifact: Artifact) -> Replay:
        """Return the artefact as a predictor, inputs and outputs as the model has them."""
        return Replay(Running(self.device, handle, artifact, self.model.outputs))

    def _keep(self, plan: Plan, compressed: Compressed) -> None:
        """Write down what the artefact was made from: encodings, and the weights that preparation changed."""
        from safetensors.numpy import save

        changed = {
            name: np.asarray(value, order="C")
            for name, value in compressed.model.weights.items()
            if name not in self.model.weights or value.tobytes() != self.model.weights[name].tobytes()
        }
        atomic.write_bytes(self.folder_of(plan) / WEIGHTS, save(changed))
        atomic.write_bytes(self.folder_of(plan) / ENCODINGS, encodings_file.to_bytes(compressed.encodings))

    def kept(self, plan: Plan) -> Compressed:
        """Return what a plan's artefact was made from, as it was written down."""
        from safetensors.numpy import load

        changed = load((self.folder_of(plan) / WEIGHTS).read_bytes())
        encodings = encodings_file.read(self.folder_of(plan) / ENCODINGS)
        return Compressed(self.model.with_weights(changed), encodings)

    def _measured(
        self, plan: Plan, artifact: Artifact, compressed: Compressed, found: list[Finding], clock: Clock
    ) -> Made:
        opening = self._opening(plan, artifact)
        handle = self.device.load(opening)
        try:
            predict = self._predict(handle, artifact)
            with clock.of("measure"):
                self.sink(Event("measure", "start", "quality on the artefact"))
                rows = self._rows(predict)
            with clock.of("verify"):
                self.sink(Event("verify", "start", "parity with float and with the reference"))
                parity, furthest = self._parity(compressed, predict, exact=is_static(plan))
                found += self._exactness(parity, furthest, compressed, opening, artifact)
            with clock.of("measure"):
                self.sink(Event("measure", "start", "latency and memory"))
                cost, memory, told = self._costs(opening, handle, artifact)
                found += [*told, *self._left_in_float(plan, opening, artifact)]
        finally:
            self.device.unload(handle)
        score, drop = self.scored(rows, CHOOSE)
        candidate = Candidate(
            plan, artifact, score, drop, parity, cost, memory, tuple(dict.fromkeys(found)), dict(clock.seconds)
        )
        return Made(candidate, rows)

    def scored(self, rows: np.ndarray, half: slice, against: Baseline | None = None) -> tuple[Quality, Drop]:
        """Return the quality of one half of the evaluation set, and its drop against float on the same samples.

        Args:
            rows: the metric's, [samples, columns].
            half: of them.
            against: the float model of another architecture; None for its own.
        """
        mine, exact = rows[half], (against or self.baseline).rows[half]
        return quality_of(self.metric, mine), self.metric.drop(exact, mine)

    def _rows(self, predict: Predict) -> np.ndarray:
        state = quality.score(
            predict,
            self.data.evaluation(),
            self.metric,
            float_predict=self.baseline.predict,
            names=[port.name for port in self.model.outputs],
        )
        return state.rows()

    def _parity(self, compressed: Compressed, predict: Predict, *, exact: bool) -> tuple[Parity, list[Sample]]:
        """Return the parity, and the rows that leave the reference furthest."""
        furthest: list[Sample] = []
        found = verify.compare(
            compressed.model,
            compressed.encodings,
            predict,
            self._told([inputs for inputs, _ in self.data.evaluation()]),
            float_predict=self.baseline.predict,
            reference_samples=self.exact_samples if exact else 0,
            reference=meaning(self.target),
            float_model=compressed.exact or self.model,
            furthest=furthest.append,
            choosing=CHOOSE,
        )
        # The arg-max of an embedding means nothing: agreement is told where labels are classes, or may be.
        return replace(found, agreement=math.nan) if self.metric.kind == "real" else found, furthest

    def _told(self, given: Sequence[Sample]) -> Iterator[Sample]:
        """Yield batches that are compared, and tell how many were: the reference computes slowly."""
        return steps(given, self.sink, "verify", "batches compared with float and with the reference", len(given))

    def _exactness(
        self, parity: Parity, furthest: Sequence[Sample], compressed: Compressed, opening: Opening, artifact: Artifact
    ) -> Iterator[Finding]:
        """Say where an artefact leaves the reference, if it does: on the rows that do so furthest.

        Bits are demanded of outputs that integers alone compute; a float layer may round its last bit differently.
        """
        if parity.reference_compared == 0 and compressed.encodings.tensors:
            text = "its parity is measured against float alone: bits are compared where scales are fixed beforehand"
            yield Finding("not-compared", text)
        if parity.reference_differing <= 0:
            return
        text = f"{parity.reference_differing} of {parity.reference_compared} output values differ from the reference's"
        text += f" (relative error {parity.reference_distance:.1g})"
        self.sink(Event("verify", "start", "looking for the first tensor that differs"))
        held = self.target.read(opening.path, artifact)
        places = (
            verify.locate(
                compressed.model,
                compressed.encodings,
                held,
                rows,
                tensors=partial(self.device.tensors, opening, artifact),
                float_tolerance=FLOAT_TOLERANCE,
                reference_error=parity.reference_error,
                reference=meaning(self.target),
            )
            for rows in rebatch(self.model, furthest, len(furthest) or 1)
        )
        place = next((found for found in places if found is not None), None)
        near = parity.reference_distance <= max(FLOAT_TOLERANCE, APART * parity.reference_error)
        if place is None and near and not verify.is_exact(compressed.model, compressed.encodings):
            yield Finding("float-rounding", text, verify.first_float(compressed.model, compressed.encodings))
            return
        yield Finding("not-exact", text)
        if place is not None:
            yield place

    def _costs(
        self, opening: Opening, handle: Handle, artifact: Artifact
    ) -> tuple[Latency, Memory, tuple[Finding, ...]]:
        first = tuple(array[:1] for array in self.data.first())
        inputs, other = feeds(artifact, first), feeds(self.floats.artifact, first) if artifact.grids else None
        told = findings.of_outputs(self.device.run(handle, inputs), self.device.run(handle, inputs))
        begun = starts.take(self.device, opening, inputs, sink=self.sink)
        memory = starts.memory(self.device, opening, inputs, begun, sink=self.sink)
        baseline = self.device.load(self.floats.opening)
        try:
            cold = starts.cold_ms(begun)
            timed = latency.compare(self.device, handle, baseline, inputs, cold_ms=cold, other=other, sink=self.sink)
            if self._is_float_file(artifact):
                return latency.alike(timed.latency), memory, told
            if timed.difference.different and timed.difference.ratio > 1:
                files = opening, self.floats.opening
                timed = latency.confirmed(self.device, timed, *files, inputs, other=other, sink=self.sink)
        finally:
            self.device.unload(baseline)
        return timed.latency, memory, (*told, *findings.of_speed(timed.difference))

    def _is_float_file(self, artifact: Artifact) -> bool:
        """Say whether a file is the float file, byte for byte and opened the same way."""
        mine, theirs = (
            ([file.sha256 for file in one.files], dict(one.session_options)) for one in (artifact, self.floats.artifact)
        )
        return mine == theirs

    def _left_in_float(self, plan: Plan, opening: Opening, artifact: Artifact) -> Iterator[Finding]:
        """Tell layers that were meant for integers and run in float, when together they take a significant time."""
        unfused = self.device.unfused(opening, artifact) if is_static(plan) else ()
        if not unfused:
            return
        self.sink(Event("measure", "start", f"time of {len(unfused)} layers that run in float"))
        inputs = tuple(array[:1] for array in self.data.first())
        seconds = self.device.layer_seconds(opening, artifact, inputs)
        total = sum(seconds.values())
        share = sum(seconds.get(key, 0.0) for key in unfused) / total if total else 0.0
        if share > SIGNIFICANT_TIME:
            for key in unfused:
                yield Finding("float-op", f"meant for integers, runs in float ({share:.0%} of the time together)", key)


def quality_of(metric: Metric, rows: np.ndarray) -> Quality:
    """Return the quality that a metric's rows, [samples, columns], stand for."""
    value = float(metric.values(rows[None])[0])
    return Quality(metric.name, value, metric.unit, metric.direction, len(rows), metric.standard_error(rows))


def is_static(plan: Plan) -> bool:
    """Say whether some layer computes in integers whose scales are fixed beforehand."""
    return any(layer.precision in STATIC for layer in plan.layers.values())
