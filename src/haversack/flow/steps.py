"""The steps of a run, each remembered by the content that made it: an interrupted run does nothing twice."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from haversack import load
from haversack.base.candidate import Candidate, Parity
from haversack.base.constraints import Constraints
from haversack.base.counted import counted
from haversack.base.errors import Fault, HaversackError
from haversack.base.finding import Finding
from haversack.base.job import Job
from haversack.base.model import Model
from haversack.base.plan import Plan
from haversack.base.profile import Profile, TensorStatistics
from haversack.base.progress import Event
from haversack.base.quality import Quality
from haversack.base.recipe import structure, unstructure
from haversack.base.spread import Spread, here
from haversack.compress.prepare.contract import SHELF as PREPARE
from haversack.compress.prepare.contract import PrepareContext
from haversack.flow import early, floats, lengths, room
from haversack.flow.data import Data
from haversack.flow.effort import DEFAULT, EFFORTS, Effort
from haversack.flow.judging import judged, retold
from haversack.flow.kept import intact, save_made, save_ranges
from haversack.flow.making import CHOOSE, REPORT, Baseline, FloatFile, Made, Maker, quality_of
from haversack.flow.order import frugal
from haversack.flow.own_code import own_code
from haversack.flow.profiling import Looking
from haversack.flow.replay import Replay
from haversack.flow.room import Room
from haversack.flow.running import Running
from haversack.flow.squeeze import Squeezer, groupable, narrowable, together
from haversack.flow.workshop import Workshop
from haversack.load.forecast import Preflight, preflight
from haversack.measure import quality
from haversack.measure.device import Device
from haversack.metrics.contract import Metric
from haversack.profile.layers import layers
from haversack.profile.ranges import ranges
from haversack.report import facts
from haversack.report.record import Environment
from haversack.targets.contract import Target
from haversack.tools.graph.execute import Executor
from haversack.tools.worker.again import twice
from haversack.tools.worker.faults import WorkerFault

SEARCH_EXACT_SAMPLES, SHIPPED_EXACT_SAMPLES = 8, 64
"""Samples compared bit for bit with the reference: for each candidate of the search, and for what ships."""
PYTORCH_SAMPLES = 8
"""So many samples compare the float artefact with PyTorch."""
PROFILE_RUNS = 20


@dataclass(frozen=True)
class Steps:
    """One run's steps.

    Attributes:
        shop: the run's folder, ledger and clock.
        job, data, metric: what is packed, on what, scored how.
        targets: name -> target.
        device: where artefacts run.
        allow: kinds of findings that do not fail a candidate.
        spend: what rounding weights may cost.
        settings: target -> its own, for targets that were given some.
        light: whether it is worth knowing what coarser steps lose and weigh as a download.
        limited: whether the bytes are limited: palettes are worth knowing then, where all targets have them.
        spread: where pure work is done; no result depends on it, and what is measured never goes there.
        architecture: which of several architectures is packed; empty where the job gives one model.
        against: the float model that drops are taken against where that is another architecture's; else None.
        made: plan digest -> what was made of it in this run.
        failed: target -> why its float file is not there, or was not run.
    """

    shop: Workshop
    job: Job
    data: Data
    metric: Metric
    targets: Mapping[str, Target]
    device: Device
    allow: tuple[str, ...] = ()
    spend: Effort = EFFORTS[DEFAULT]
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    light: bool = True
    limited: bool = False
    spread: Spread = here
    architecture: str = ""
    against: Baseline | None = None
    made: dict[str, Made] = field(default_factory=dict)
    failed: dict[str, HaversackError] = field(default_factory=dict)

    @cached_property
    def model(self) -> Model:
        """The float model, in the order in which least is alive at the peak."""
        with self.shop.clocked("load"):
            found = frugal(self.exported, self.data.first(), self.shop.tell)
            self.spread.ahead(found.program)
            return found

    @cached_property
    def exported(self) -> Model:
        """The float model: exported once, normalisation folded, in the order that it was exported in."""
        with self.shop.clocked("load"):
            self.shop.tell(Event("load", "start", "calibration and evaluation data"))
            first = self.data.look()
            self.shop.tell(Event("load", "start", "export"))
            model = load.export(self.data.prepared_job(), batch=first)
            self.data.expect(model.inputs)
            folded: Model = PREPARE.build("fold_norm").apply(model, PrepareContext(self.data.calibration))
            self.shop.tell(Event("load", "done", f"export: {counted(len(folded.graph.nodes), 'operation')}"))
        return folded

    @cached_property
    def refusals(self) -> dict[str, tuple[Fault, ...]]:
        """Target -> what it cannot take of the model, by module path, and why; nothing where it takes all."""
        model, found = self.model, {}
        for name, target in self.targets.items():
            self.shop.tell(Event("load", "start", f"what {name} takes of the model"))
            found[name] = target.refusals(model)
        return found

    def only(self, names: Sequence[str]) -> Steps:
        """Return the steps for these targets alone; what is known of the model stays known."""
        left, known = replace(self, targets={name: self.targets[name] for name in names}), vars(self)
        vars(left).update({name: known[name] for name in ("exported", "model", "refusals") if name in known})
        return left

    def held_against(self, best: Baseline) -> Steps:
        """Return the steps with every drop taken against another architecture's float model, on the same samples.

        What is known stays known, and the ledger too: what was measured is held against it afterwards.
        """
        left = replace(self, against=best)
        own = {one.name for one in fields(self)}
        vars(left).update({name: value for name, value in vars(self).items() if name not in own})
        return left

    @property
    def running(self) -> tuple[str, ...]:
        """The targets whose files run here, but for those that do not run their float file."""
        return tuple(name for name, one in self.targets.items() if one.runs_here and name not in self.failed)

    @cached_property
    def machine(self) -> Environment:
        """This machine, with the versions of all that computes the result."""
        own = [name for target in self.targets.values() for name in target.packages]
        return facts.of_machine(packages=dict.fromkeys((*facts.PACKAGES, *own)))

    @cached_property
    def content(self) -> list[str]:
        """What decides every result: model, data, metric, versions of what computes it, the device that runs it."""
        with self.shop.clocked("load"):
            machine = self.machine
            versions = sorted(f"{name} {number}" for name, number in machine.versions.items())
            processor = [platform.machine(), machine.cpu, *machine.cpu_flags]
            sources = [self.model.digest, self.data.digest(), self.metric.digest, own_code()]
            own = [f"{name} {dict(sorted(one.items()))}" for name, one in sorted(self.settings.items())]
            return [*sources, *own, *map(str, self.job.lengths), *processor, *versions, *self.device.identity]

    @cached_property
    def constraints(self) -> dict[str, Constraints]:
        """Target -> what it demands, with all others that run its float file and share its encodings."""
        return together({name: self.targets[name].demands(self.model) for name in self.floats})

    @cached_property
    def float_predict(self) -> Replay:
        """The float artefact of the first target that runs here as a predictor; it is compared with PyTorch first.

        Where none runs here it is PyTorch itself.

        Raises:
            VerificationError: it computes something else than the model does in PyTorch.
        """
        first = next((one for name, one in self.floats.items() if self.targets[name].runs_here), None)
        if first is None:
            return Replay(Executor(self.model).run)
        run = Running(self.device, self.device.load(first.opening), first.artifact, self.model.outputs)
        sample = tuple(array[:PYTORCH_SAMPLES] for array in self.data.first())
        early.check_float(self.model, run, sample, first.artifact.target)
        return Replay(run)

    @cached_property
    def floats(self) -> dict[str, FloatFile]:
        """The float artefact of every target that runs it; why others do not is in ``failed``.

        Raises:
            ConversionError, VerificationError: no target does.
        """
        maker = floats.FloatMaker(self.shop, self.model, self.device, self.data.first, self.content)
        found, failed = maker.of(self.targets)
        self.failed.update(failed)
        return found

    def preflight(self, plans: int, left: Room | None = None) -> Preflight:
        """Return what is known before anything slow: what targets cannot take, and a forecast.

        Nothing is run where more memory is forecast than is left.

        Raises:
            JobError: data, labels or the metric are at fault; one evaluation batch is scored in PyTorch.
        """
        lengths.refuse(self.job, self.model, self.data, self.targets)
        counts, batch = self.data.counts(), self.data.first()

        def timed() -> float:
            self.float_predict(tuple(array[:1] for array in batch))
            start = time.monotonic()
            self.float_predict(batch)
            return (time.monotonic() - start) / len(batch[0])

        degraded = len(self.job.degraded) * (1 + len(self.running))
        memory = room.ahead(self.model, self.data, counts, self.spend.rounding)
        work = early.work(self.model, counts, plans, len(batch[0]), self.spend, degraded, memory)
        found = room.beside(preflight(self.model, self.refusals, work), left)
        if not found.short:
            taken = not any(self.refusals[name] for name in self.targets)
            score = early.score_one(self.model, self.data, self.metric)
            timing = preflight(self.model, self.refusals, work, seconds_per_sample=timed if taken else None)
            found = replace(room.beside(timing, left), score=score)
        return replace(found, lengths=lengths.words(self.targets, self.model))

    @cached_property
    def baseline(self) -> Baseline:
        """The float artefact scored, on both halves."""

        def make() -> np.ndarray:
            names, predict = [port.name for port in self.model.outputs], self.float_predict
            state = quality.score(predict, self.data.evaluation(), self.metric, float_predict=predict, names=names)
            return state.rows()

        rows = self.shop.remember(
            "measure",
            "baseline of the float model",
            [next(iter(self.floats.values())).artifact.files[0].sha256, *self.content],
            make,
            save=lambda made: ({}, {"rows": made}),
            load=lambda _, arrays: arrays["rows"],
        )
        return Baseline(rows, self.float_predict)

    def checked_baseline(self) -> Quality:
        """Return the float model's quality; stop when it is not what the user stated.

        Raises:
            JobError: it falls short of the stated baseline by more than two standard errors, or a half of the
                evaluation set has no value.
        """
        early.refuse_undefined(self.metric, self.baseline.rows)
        whole = quality_of(self.metric, self.baseline.rows)
        early.refuse_short(self.job.baseline, whole)
        return whole

    @cached_property
    def profile(self) -> Profile:
        """Seconds of each layer in every float file, the sensitivity and the rates of each layer."""
        narrow = narrowable(self.constraints.values())
        precisions = [frozenset(one.precisions) for one in self.targets.values()]
        groups = groupable(self.constraints.values())
        looking = Looking(
            self.model, narrow, precisions, self.light, self.limited, self.spread, groups, rows=self.spend.rows
        )
        return self.shop.remember(
            "profile",
            "time and sensitivity of layers",
            [*self.content, *self.targets, *looking.key],
            lambda: looking.taken(self._seconds(), self.ranges(self.model), self.data, self.shop.tell),
            save=lambda made: ({"profile": unstructure(made)}, {}),
            load=lambda data, _: structure(data["profile"], Profile, where="ledger"),
        )

    def _seconds(self) -> Mapping[str, Mapping[str, float]]:
        """Return target -> node key -> seconds of a layer in the target's float file, for those that tell."""

        def times(name: str) -> Mapping[str, float]:
            one, row = self.floats[name], tuple(array[:1] for array in self.data.first())
            self.shop.tell(Event("profile", "start", f"time of each layer in the float file for {name}"))
            try:
                found = twice(lambda: self.device.layer_seconds(one.opening, one.artifact, row, PROFILE_RUNS))
            except WorkerFault as error:
                self.shop.tell(Event("profile", "note", f"{name} tells no times of layers: {error.cause}"))
                return {}
            return {key: seconds for key, seconds in found.items() if key}

        found = layers(self.model.graph, {name: partial(times, name) for name in self.running})
        for name in {*self.running} - {*found}:
            self.shop.tell(Event("profile", "note", f"{name} reports no time for any layer: none is forecast"))
        return found

    def ranges(self, model: Model) -> Mapping[str, TensorStatistics]:
        """Return a model's activation ranges over the calibration set."""

        def load_back(data: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, TensorStatistics]:
            return {key: TensorStatistics(counts=arrays[key], **told) for key, told in data["tensors"].items()}

        return self.shop.remember(
            "profile",
            "activation ranges",
            [model.digest, *self.content],
            lambda: dict(ranges(model, self.data.calibration(), self.shop.tell)),
            save=save_ranges,
            load=load_back,
        )

    @cached_property
    def squeeze(self) -> Squeezer:
        """What applies plans, once for all targets."""
        return Squeezer(self.model, self.ranges, self.constraints, self.data.calibration)

    @cached_property
    def makers(self) -> dict[str, Maker]:
        """Target -> what makes its plans real."""
        return {
            name: Maker(
                model=self.model,
                squeeze=self.squeeze,
                data=self.data,
                metric=self.metric,
                target=target,
                floats=self.floats[name],
                baseline=self.baseline,
                device=self.device,
                folder=self.shop.inside / "candidates",
                exact_samples=SEARCH_EXACT_SAMPLES,
                sink=self.shop.tell,
            )
            for name, target in self.targets.items()
            if name in self.floats
        }

    def evaluate(self, plan: Plan) -> Candidate:
        """Return a plan made real and measured, from the ledger when it was before."""
        maker = self.makers[plan.target]

        def load_back(data: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Made | None:
            candidate = structure(data["candidate"], Candidate, where="ledger")
            there = candidate.artifact is None or intact(maker.folder_of(plan), candidate.artifact)
            return Made(candidate, arrays.get("rows")) if there else None

        made = self.shop.remember(
            "choose",
            f"candidate: {plan.origin or plan.id}",
            [plan.digest, *self.content],
            lambda: maker.make(plan),
            save=save_made,
            load=load_back,
        )
        candidate = lengths.told(made.candidate, maker.target, self.model)
        if self.against is not None and made.rows is not None:
            score, drop = maker.scored(made.rows, CHOOSE, self.against)
            candidate = replace(candidate, quality=score, drop=drop)
        made = replace(made, candidate=replace(judged(candidate, self.allow), architecture=self.architecture))
        self.made[plan.digest] = made
        return made.candidate

    def reported(self, candidate: Candidate) -> Candidate:
        """Return a candidate with quality and drop of the untouched half of the evaluation set."""
        rows = self.made[candidate.plan.digest].rows if candidate.plan.digest in self.made else None
        if rows is None:
            return candidate
        score, drop = self.makers[candidate.plan.target].scored(rows, REPORT, self.against)
        return replace(candidate, quality=score, drop=drop)

    def confirmed(self, candidate: Candidate) -> Candidate:
        """Return a candidate compared with the reference on all the samples that a shipped artefact is compared on."""
        artifact = candidate.artifact
        if artifact is None or candidate.parity is None:
            return candidate
        maker = self.makers[candidate.plan.target]

        def load_back(data: Mapping[str, Any], _: Mapping[str, np.ndarray]) -> tuple[Parity, tuple[Finding, ...]]:
            told = tuple(structure(one, Finding, where="ledger") for one in data["findings"])
            return structure(data["parity"], Parity, where="ledger"), told

        parity, told = self.shop.remember(
            "verify",
            "the chosen artefact against the reference",
            [candidate.plan.digest, artifact.files[0].sha256, SHIPPED_EXACT_SAMPLES, *self.content],
            lambda: twice(lambda: maker.confirmed(candidate, SHIPPED_EXACT_SAMPLES)),
            save=lambda made: ({"parity": unstructure(made[0]), "findings": unstructure(list(made[1]))}, {}),
            load=load_back,
        )
        return judged(retold(replace(candidate, parity=parity), told), self.allow)

    def baseline_reported(self) -> Quality:
        """Return the float model's quality on the untouched half."""
        return quality_of(self.metric, self.baseline.rows[REPORT])

    def weight_elements(self) -> dict[str, int]:
        """Return node key -> number of weight elements, for nodes with a weight."""
        return {node.key: int(self.model.weights[node.weight].size) for node in self.model.graph.nodes if node.weight}
