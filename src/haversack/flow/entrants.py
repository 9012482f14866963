"""The architectures of a job that enter its run: exported, looked at, and held to what the user says of layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from haversack import load, metrics
from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.errors import ConversionError, Fault, HaversackError, JobError, UsageError, VerificationError
from haversack.base.finding import Finding
from haversack.base.job import Job
from haversack.base.plan import Plan
from haversack.base.progress import Event
from haversack.base.shelf import nearest
from haversack.base.spread import Spread, here
from haversack.compress.prepare.fold_norm import folded
from haversack.flow import early, request, room, scoping
from haversack.flow.data import Data
from haversack.flow.failing import failure
from haversack.flow.making import CHOOSE, quality_of
from haversack.flow.request import Request, Runtimes
from haversack.flow.room import Room
from haversack.flow.rules import Rules, lacking, refuse
from haversack.flow.search import PLANS, steps_of
from haversack.flow.steps import Steps
from haversack.flow.workshop import Workshop
from haversack.load.forecast import Preflight
from haversack.measure.device import Device
from haversack.tools.worker.faults import WorkerFault

LOST = (ConversionError, VerificationError, WorkerFault)
"""What costs an architecture, and not the run."""
Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Errand:
    """What a run of several architectures is given.

    Attributes:
        request: what the user typed.
        job: the job, with ``models``.
        budget: the limits.
        fixed: target -> the plan of a recipe or a plan file.
        allow: kinds of findings that fail nothing.
        tried: the runtimes.
        device: where artefacts run.
        shop: the run's folder.
        memory: what was left of it at the beginning; None where nobody knows.
        spread: where pure work is done.
    """

    request: Request
    job: Job
    budget: Budget
    fixed: Mapping[str, Plan]
    allow: tuple[str, ...]
    tried: Runtimes
    device: Device
    shop: Workshop
    memory: Room | None = None
    spread: Spread = here


@dataclass
class Field:
    """The architectures of a run that are still in it, and what became of the others.

    Attributes:
        errand: what the run is given.
        steps: architecture -> its run, with the targets that take it.
        lost: architecture -> why nothing is made of it.
        failed: candidates that stand for a target that does not take an architecture.
        rules: architecture -> the user's say for it.
        planned: target -> the architecture that a fixed plan is for.
    """

    errand: Errand
    steps: dict[str, Steps] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    failed: list[Candidate] = field(default_factory=list)
    rules: dict[str, Rules] = field(default_factory=dict)
    planned: dict[str, str] = field(default_factory=dict)

    def each(self, do: Callable[[Steps], Thing]) -> dict[str, Thing]:
        """Return architecture -> what was done with it; one with which it fails is lost, and named.

        Raises:
            ConversionError: none is left.
            UsageError: the job is at fault (a JobError), or what the user said.
        """
        found: dict[str, Thing] = {}
        for name, steps in list(self.steps.items()):
            try:
                found[name] = do(steps)
            except LOST as error:
                self.lose(name, tuple(steps.targets), str(error), failure_of(error))
            except UsageError as error:
                raise type(error)(
                    f"{name}: {error.cause}",
                    where=error.where,
                    tried=error.tried,
                    next_step=error.next_step,
                    faults=error.faults,
                ) from error
        if not self.steps:
            raise ConversionError(
                "no architecture can be packed",
                where=self.errand.job.source,
                faults=tuple(Fault(name, why.splitlines()[0]) for name, why in self.lost.items()),
                tried=f"each of {', '.join(self.lost)}",
                next_step="replace the layers named above, or choose another --target",
            )
        return found

    def lose(self, name: str, targets: tuple[str, ...], why: str, finding: Finding) -> None:
        """Take an architecture out of the run for some targets, or for all that it has."""
        for target in targets:
            plan = Plan(target, {}, origin="float")
            one = Candidate(plan, None, None, None, None, None, None, (finding,), verdict="failed", reason=why)
            self.failed.append(replace(one, architecture=name))
        left = tuple(target for target in self.steps[name].targets if target not in targets)
        if left:
            self.steps[name] = self.steps[name].only(left)
        else:
            del self.steps[name]
            self.lost[name] = why
        self.errand.shop.tell(Event("load", "note", f"{name} is left out for {', '.join(targets)}: {finding.text}"))


def failure_of(error: HaversackError) -> Finding:
    """Return the finding that an error before any plan stands for."""
    kind = "worker-crashed" if isinstance(error, WorkerFault) else "unreadable"
    return Finding(kind, ": ".join(filter(None, (error.where, error.cause))))


def begun(errand: Errand) -> Field:
    """Return the architectures, each exported once, with the targets that take it.

    Raises:
        UsageError: a limit or the metric cannot compare architectures; a rule names no layer of any, or layers can
            nowhere be as asked; a plan is for no architecture, or breaks the rules.
        JobError: ``models()`` cannot be used, or two have another interface.
        ConversionError: none can be exported, or a target that was named takes none.
    """
    metric = metrics.resolve(errand.job.metric)
    refuse_incomparable(errand.budget, metric.against, metric.called)
    errand.shop.tell(Event("load", "start", "models()"))
    jobs = load.architectures(errand.job)
    data = Data(errand.job, None, metric)
    data.look()
    ones = Field(errand, planned=_planned(errand, tuple(jobs)))
    for name, job in jobs.items():
        ones.steps[name] = steps_of(
            errand.shop.room(name),
            replace(job, baseline=None),
            errand.tried,
            errand.device,
            errand.request.effort,
            errand.allow,
            errand.budget,
            errand.spread,
            data=data.beside(job),
            architecture=name,
        )
    ones.each(lambda steps: steps.model)
    _refuse_unlike(ones)
    for name, refusals in ones.each(lambda steps: steps.refusals).items():
        for target, faults in refusals.items():
            if faults:
                error = ConversionError(f"{target} cannot take it", where=faults[0].where, faults=faults)
                ones.lose(name, (target,), str(error), failure(error, ones.steps[name].model.graph))
    ones.each(lambda steps: steps.model)  # raises where none is left
    _obey(ones)
    bare = [target for target in errand.tried.targets if not any(target in one.targets for one in ones.steps.values())]
    if bare and not errand.tried.one:
        raise ConversionError(
            f"{', '.join(bare)} cannot take any architecture of this job",
            where=errand.job.source,
            faults=tuple(Fault(one.architecture, one.findings[0].text) for one in ones.failed),
            tried="exporting each and looking at every layer",
            next_step="replace the layers named above, or choose another --target",
        )
    return ones


def looked(ones: Field) -> dict[str, Preflight]:
    """Return architecture -> what is known of it before anything slow; the float files are made.

    Raises:
        HaversackError: as ``Field.each``.
    """
    memory = ones.errand.memory
    return room.among(ones.each(lambda steps: steps.preflight(PLANS * len(steps.targets), memory)))


def refuse_incomparable(budget: Budget, against: str, metric: str) -> None:
    """Refuse what says nothing of one architecture beside another.

    Raises:
        UsageError: a ratio of latency, or a metric against a model's own float outputs.
    """
    if budget.latency_ratio is not None:
        raise UsageError(
            "a ratio is to an architecture's own float file, and says nothing of several",
            where="--budget",
            next_step="limit the latency in milliseconds: latency=8ms",
        )
    if against == "float":
        raise UsageError(
            f"metric {metric} is against a model's own float outputs, and says nothing of several architectures",
            where="metric",
            next_step="a metric that scores against the expected values of evaluation(), as top1",
        )


def best_float(ones: Field) -> str:
    """Return the architecture whose float model is best on the half of the evaluation set that chooses.

    Raises:
        JobError: it falls short of the stated baseline, or a half of the evaluation set has no value.
        ConversionError: no float model runs.
    """
    whole = ones.each(lambda steps: steps.checked_baseline())
    sign = -1.0 if next(iter(whole.values())).direction == "higher" else 1.0

    def loss(name: str) -> float:
        steps = ones.steps[name]
        return sign * quality_of(steps.metric, steps.baseline.rows[CHOOSE]).value

    best = min(whole, key=loss)
    early.refuse_short(ones.errand.job.baseline, whole[best])
    return best


def _refuse_unlike(ones: Field) -> None:
    """Refuse architectures that cannot stand for each other on a device: other inputs or outputs than the first's."""
    (first, model), *others = ((name, steps.model) for name, steps in ones.steps.items())
    faults = []
    for name, other in others:
        for what, mine, theirs in (("inputs", other.inputs, model.inputs), ("outputs", other.outputs, model.outputs)):
            if mine != theirs:
                words = (
                    ", ".join(f"{port.name} {port.spec.dtype}{list(port.spec.shape)}" for port in ports)
                    for ports in (mine, theirs)
                )
                faults.append(Fault(name, f"its {what} are {f'; those of {first} are '.join(words)}"))
    if faults:
        raise JobError(
            "the architectures have different interfaces",
            where=ones.errand.job.source,
            faults=tuple(faults),
            tried="exporting each",
            next_step="give them the same inputs and outputs; name them with input_names and output_names",
        )


def _obey(ones: Field) -> None:
    """Read the user's rules for each architecture; one is lost for a target in which its layers cannot be as asked.

    A rule must name a layer of at least one architecture; in the others it then says nothing.

    Raises:
        UsageError: a rule names no layer of any, two contradict each other, a target has no architecture that can be
            as asked, or a fixed plan breaks the rules.
    """
    job, tried = ones.errand.job, ones.errand.tried
    models = {name: steps.model for name, steps in ones.steps.items()}
    gone = {name: folded(model) for name, model in models.items()}
    parts = scoping.parted({name: model.graph for name, model in models.items()}, job.layer_precisions, gone)
    ones.rules.update(ones.each(lambda steps: _rules(steps, parts[steps.architecture])))
    for target, name in ones.planned.items():
        refuse({}, ones.rules.get(name, Rules()), {target: ones.errand.fixed[target]})
    lacks = {name: lacking(rules) for name, rules in ones.rules.items()}
    before = [(name, target) for name, steps in ones.steps.items() for target in steps.targets]
    able = [(name, target) for name, target in before if not lacks[name].get(target)]
    bare = {target for _, target in before} - {target for _, target in able}
    if not able or (bare and not tried.one):
        told = {name: [fault for target in bare for fault in found.get(target, ())] for name, found in lacks.items()}
        faults = {
            name: [Fault(f"{name}: {one.where}", one.cause) for one in dict.fromkeys(found)]
            for name, found in told.items()
        }
        refuse(faults, Rules(), {})
    for name, target in before:
        if (name, target) not in able:
            faulty = lacks[name][target]
            error = ConversionError("its layers cannot be as asked", where=faulty[0].where, faults=faulty)
            ones.lose(name, (target,), str(error), failure(error, ones.steps[name].model.graph))
    if len(able) < len(before):  # a target that is lost shares no encodings any more
        ones.rules.update(ones.each(lambda steps: _rules(steps, parts[steps.architecture])))


def _rules(steps: Steps, own: tuple[str, ...]) -> Rules:
    """Return the user's say for one architecture; what is said of the others is kept with it, to be typed again."""
    found = scoping.ruled(steps.model.graph, own, steps.job.without, steps.targets)
    return replace(found, scope=replace(found.scope, rules=steps.job.layer_precisions))


def _planned(errand: Errand, known: tuple[str, ...]) -> dict[str, str]:
    """Return target -> the architecture that a fixed plan is for."""
    named = request.architectures(errand.request)
    for target in errand.fixed:
        name = named.get(target, "")
        if name not in known:
            told = f"there is no architecture {name!r}{nearest(name, known)}" if name else "it names no architecture"
            where = str(errand.request.plan or errand.request.source)
            raise UsageError(f"{told} for its plan on {target}", where=where, next_step=f"one of {', '.join(known)}")
    return {target: named[target] for target in errand.fixed}
