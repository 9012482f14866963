"""``haversack pack`` for a job of several architectures: each is searched by itself, and the best of all ships.

One budget, one output folder, one ledger. What compares architectures is what a user gets: a drop is taken against the
best float model among them, the one that would have shipped without compression, so that it orders them by the metric's
own value; speed is compared in milliseconds. ``flow/pack.py`` comes first: here stands only what several need more.
"""

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
from haversack.choose import architectures as choosing
from haversack.choose.architectures import Winner, outdone
from haversack.choose.runtimes import Choice, between
from haversack.flow import early, request, robustness
from haversack.flow.crossing import crossed, parting, told
from haversack.flow.data import Data
from haversack.flow.early import limits, narrowest
from haversack.flow.failing import failure
from haversack.flow.foreign import foreign
from haversack.flow.making import CHOOSE, quality_of
from haversack.flow.outputs import Wishes, float_drop, shipped
from haversack.flow.reporting import confirmed
from haversack.flow.request import Request, Runtimes
from haversack.flow.search import PLANS, exit_code, searched, steps_of
from haversack.flow.several_outputs import Part, Whole, leave
from haversack.flow.steps import Steps
from haversack.flow.workshop import Workshop
from haversack.load.forecast import Preflight, Preflights
from haversack.measure.device import Device
from haversack.report.record import Record
from haversack.tools.worker.faults import WorkerFault

LOST = (ConversionError, VerificationError, WorkerFault)
"""What costs an architecture, and not the run."""
HALF = "by the half of the evaluation set that chooses, "
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
    """

    request: Request
    job: Job
    budget: Budget
    fixed: Mapping[str, Plan]
    allow: tuple[str, ...]
    tried: Runtimes
    device: Device
    shop: Workshop


@dataclass
class Field:
    """The architectures of a run that are still in it, and what became of the others.

    Attributes:
        errand: what the run is given.
        steps: architecture -> its run, with the targets that take it.
        lost: architecture -> why nothing is made of it.
        failed: candidates that stand for a target that does not take an architecture.
    """

    errand: Errand
    steps: dict[str, Steps] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    failed: list[Candidate] = field(default_factory=list)

    def each(self, do: Callable[[Steps], Thing]) -> dict[str, Thing]:
        """Return architecture -> what was done with it; one with which it fails is lost, and named.

        Raises:
            ConversionError: none is left.
            JobError: the job is at fault.
        """
        found: dict[str, Thing] = {}
        for name, steps in list(self.steps.items()):
            try:
                found[name] = do(steps)
            except LOST as error:
                self.lose(name, tuple(steps.targets), str(error), failure_of(error))
            except JobError as error:
                raise JobError(
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


def pack(errand: Errand) -> tuple[Record, int]:
    """Fit every architecture into the budget, and leave for each target the best of all; with the exit code.

    Raises:
        HaversackError: as ``flow.pack``; ConversionError also where no architecture is left, or a target takes none.
    """
    shop, budget, tried = errand.shop, errand.budget, errand.tried
    ones = begun(errand)
    worse = robustness.checked(next(iter(ones.steps.values())).data, errand.job)
    forecasts = looked(ones)
    seconds = sum(one.forecast_seconds for one in forecasts.values())
    text = f"{len(forecasts)} architectures: {', '.join(forecasts)}"
    shop.tell(Event("load", "note", text, data={"forecast_seconds": seconds}))
    reference = best_float(ones)
    against = ones.steps[reference].baseline
    held = {name: steps.held_against(against) for name, steps in ones.steps.items()}
    planned = _planned(errand, tuple(held) + tuple(ones.lost))
    found: dict[str, list[Candidate]] = {}
    for name, steps in held.items():
        wanted = [target for target in steps.targets if planned.get(target, name) == name]
        candidates = searched(steps, wanted, budget, errand.fixed) if wanted else []
        found[name] = confirmed(steps, candidates, budget)
    choice, winners = _chosen(errand, held, found)
    ships = {target: one.architecture for target, one in winners.items()}
    parts = {}
    for name, steps in held.items():
        part = _part(errand, steps, found[name], [target for target, owner in ships.items() if owner == name])
        degraded = robustness.measured(steps, part.best, worse)
        final = robustness.told(part.candidates, degraded, steps.metric.unit)
        best = {target: shipped(final)[target] for target in part.best}
        final = outdone(final, ships, choice.target if choice else "")
        parts[name] = replace(part, candidates=tuple(final), best=best, degraded=degraded)
    order = _order(tried, parts, ships, ones.failed)
    between_them = {target: f"{HALF}{one.paragraph}" for target, one in winners.items()}
    whole = Whole(errand.job.name, reference, errand.job.baseline, order, between_them, ones.lost)
    record = leave(shop, parts, whole, Wishes(budget, errand.allow, errand.request.command, choice))
    counted = [one for one in order if choice is None or one.plan.target == choice.target]
    return record, exit_code(counted, errand.allow, budget)


def begun(errand: Errand) -> Field:
    """Return the architectures, each exported once, with the targets that take it.

    Raises:
        UsageError: a limit or the metric cannot compare architectures.
        JobError: ``models()`` cannot be used, or two have another interface.
        ConversionError: none can be exported, or a target that was named takes none.
    """
    metric = metrics.resolve(errand.job.metric)
    refuse_incomparable(errand.budget, metric.against, metric.called)
    errand.shop.tell(Event("load", "start", "models()"))
    jobs = load.architectures(errand.job)
    data = Data(errand.job, None, metric)
    data.look()
    ones = Field(errand)
    for name, job in jobs.items():
        ones.steps[name] = steps_of(
            errand.shop.room(name),
            replace(job, baseline=None),
            errand.tried,
            errand.device,
            errand.request.effort,
            errand.allow,
            errand.budget,
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


def preflight(errand: Errand) -> Preflights:
    """Return what is known of every architecture before anything slow, and what is known of the budget.

    Raises:
        HaversackError: as ``pack``.
    """
    ones = begun(errand)
    robustness.checked(next(iter(ones.steps.values())).data, errand.job)
    found = looked(ones)
    for name, one in found.items():
        steps = ones.steps[name]
        least = narrowest(steps.model, steps.targets)
        known = limits(steps.model, errand.budget, least, steps.metric.unit, runs=bool(steps.running))
        found[name] = replace(one, limits=known, left_out=errand.tried.left_out)
    return Preflights(found, ones.lost)


def looked(ones: Field) -> dict[str, Preflight]:
    """Return architecture -> what is known of it before anything slow; the float files are made.

    Raises:
        HaversackError: as ``Field.each``.
    """
    return ones.each(lambda steps: steps.preflight(PLANS * len(steps.targets)))


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


def _chosen(
    errand: Errand, held: Mapping[str, Steps], found: Mapping[str, list[Candidate]]
) -> tuple[Choice | None, dict[str, Winner]]:
    """Return target -> the architecture whose file ships; one target alone where the choice was ours, with its choice.

    Both choose by the half of the evaluation set that chooses.
    """
    budget, tried = errand.budget, errand.tried
    floats = {name: float_drop(steps) for name, steps in held.items()}
    firsts = {name: shipped(candidates) for name, candidates in found.items()}
    if tried.one:
        runtimes = {
            name: between(best, budget, shipping=tried.shipping, left_out=tried.left_out)
            for name, best in firsts.items()
            if best
        }
        able = {name: _on_choosing_half(held[name], firsts[name][one.target]) for name, one in runtimes.items()}
        if not able:
            return None, {}
        winner = choosing.between(able, budget, floats)
        choice = runtimes[winner.architecture]
        return choice, {choice.target: winner}
    targets = [target for target in tried.targets if any(target in best for best in firsts.values())]
    return None, {
        target: choosing.between(
            {name: _on_choosing_half(held[name], best[target]) for name, best in firsts.items() if target in best},
            budget,
            floats,
        )
        for target in targets
    }


def _on_choosing_half(steps: Steps, candidate: Candidate) -> Candidate:
    made = steps.made[candidate.plan.digest].candidate
    return replace(candidate, quality=made.quality, drop=made.drop)


def _part(errand: Errand, steps: Steps, candidates: list[Candidate], targets: list[str]) -> Part:
    """Return what is left of one architecture, whose file ships for some targets."""
    best = {target: shipped(candidates)[target] for target in targets}
    pairs = crossed(steps, best)
    final = told(candidates, parting(best, pairs, steps.constraints))
    strange = {target: foreign(errand.request, steps.model.digest, target) for target in targets}
    final = told(final, {target: one for target, one in strange.items() if one is not None})
    return Part(steps, tuple(final), {target: shipped(final)[target] for target in targets}, pairs)


def _order(
    tried: Runtimes, parts: Mapping[str, Part], ships: Mapping[str, str], failed: list[Candidate]
) -> list[Candidate]:
    """Return all candidates: by target, those of the architecture whose file ships first."""
    order = []
    for target in tried.targets:
        for name in sorted(parts, key=lambda name: name != ships.get(target)):
            order += [one for one in parts[name].candidates if one.plan.target == target]
        order += [one for one in failed if one.plan.target == target]
    return order
