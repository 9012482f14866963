"""START HERE: ``haversack pack`` as a page of plain calls, from a job to a verified artefact under its budgets."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from haversack import metrics
from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.errors import EXIT_BUDGET_MISSED, EXIT_MET, EXIT_VERIFICATION, ConversionError, UsageError
from haversack.base.finding import Finding
from haversack.base.job import Job
from haversack.base.plan import Plan
from haversack.base.profile import Profile
from haversack.base.progress import Event, Sink, silent
from haversack.base.spread import Spread, here
from haversack.choose.best import Ask, best
from haversack.choose.forecast import hopeless, overshoot
from haversack.choose.mixing import Mixer
from haversack.choose.runtimes import Choice, between, outdone
from haversack.choose.verdict import checks
from haversack.flow import floats, robustness, room
from haversack.flow.ahead import apply_ahead
from haversack.flow.barred import instead
from haversack.flow.cluster import spreading
from haversack.flow.crossing import crossed, parting, told
from haversack.flow.data import Data
from haversack.flow.early import BEYOND, limits, narrowest
from haversack.flow.effort import FAST, allowed, effort
from haversack.flow.exports import judgeable
from haversack.flow.foreign import foreign
from haversack.flow.outputs import Wishes, leave, shipped
from haversack.flow.proposals import careful, proposals, smaller
from haversack.flow.race import race
from haversack.flow.reporting import confirmed
from haversack.flow.request import Request, Runtimes, opened, runtimes
from haversack.flow.request import degraded as degraded_by
from haversack.flow.rules import Rules, lacking, refuse
from haversack.flow.scoping import ruled
from haversack.flow.settings import built
from haversack.flow.steps import Steps
from haversack.flow.where import measured_on
from haversack.flow.workshop import Workshop, refuse_anothers, refuse_unmakeable
from haversack.load.forecast import Preflight
from haversack.measure.device import Device
from haversack.report.record import Record

PLANS = 3
"""How many plans for each target a forecast of time counts with."""


@dataclass(frozen=True)
class Outcome:
    """What a run ends with: its record and page, the seconds it took, and the exit code of the command."""

    record: Record
    page: Path
    seconds: float
    exit_code: int


def pack(request: Request | str, sink: Sink = silent, **wishes: Any) -> Outcome:  # noqa: ANN401 - Request's fields
    """Fit a model into its budgets, verified and measured on the artefact itself.

    Args:
        request: what to pack; or its source, with the other fields of ``Request`` by name.
        sink: told about every step.

    Raises:
        HaversackError: ``base/errors`` draws the tree; a missed budget is no error but exit code 3.
    """
    wish = request if isinstance(request, Request) else Request.of(request, wishes)
    started, memory = time.monotonic(), room.left()
    asked = runtimes(wish)
    sink(Event("load", "start", f"reading {wish.source}"))
    job, budget, fixed = opened(wish)
    with (
        spreading(wish.ray, sink) as spread,
        measured_on(wish.device, asked) as (device, offered),
        Workshop(wish.out, _owner(job), sink, wish.command) as shop,
    ):
        allow = _allowed(wish.allow, budget)
        steps, tried = _taking(_steps(shop, job, offered, device, wish.effort, allow, budget, spread), offered)
        steps, tried, rules = _ruled(steps, tried, fixed)
        worse = robustness.checked(steps.data, job)
        preflight = steps.preflight(PLANS * len(tried.targets), memory)
        shop.tell(Event("load", "note", preflight.lines()[0], data={"forecast_seconds": preflight.forecast_seconds}))
        _refuse(preflight, tried)
        room.refuse(preflight)
        for line in _limits(steps, budget, rules):
            if BEYOND in line:
                shop.tell(Event("load", "note", f"{line}; the best effort is made"))
        strange = _strange(wish, steps)
        steps.checked_baseline()
        candidates, instead = _searched(steps, tried.targets, budget, fixed, rules)
        final = confirmed(steps, candidates, budget)
        pairs = crossed(steps, shipped(final))
        final = told(final, parting(shipped(final), pairs, steps.constraints))
        final = told(final, dict.fromkeys(shipped(final), strange) if strange else {})
        only = _one_of(final, budget, tried) if tried.one else None
        degraded = robustness.measured(steps, _shipping(final, only), worse)
        final = robustness.told(final, degraded, steps.metric.unit)
        ships = outdone(final, only) if only else final
        left = Wishes(budget, allow, wish.command, only, rules.scope, degraded_by(wish), instead)
        record = leave(steps, ships, pairs, left, shop.seconds, degraded)
    code = exit_code([one for one in ships if not only or one.plan.target == only.target], allow, budget)
    return Outcome(record, wish.out / "report.html", time.monotonic() - started, code)


def preflight(request: Request, sink: Sink = silent) -> Preflight:
    """Export, look and forecast; nothing is made, nothing is left in the output folder.

    Raises:
        HaversackError: as ``pack``.
    """
    import tempfile

    memory = room.left()
    sink(Event("load", "start", f"reading {request.source}"))
    job, budget, fixed = opened(request)
    notes = _of_folder(request.out, _owner(job))
    with (
        tempfile.TemporaryDirectory(prefix="haversack-") as folder,
        Workshop(Path(folder), _owner(job), sink) as shop,
        measured_on(request.device, runtimes(request)) as (device, offered),
    ):
        steps, tried = _taking(_steps(shop, job, offered, device, request.effort), offered)
        steps, tried, rules = _ruled(steps, tried, fixed)
        robustness.checked(steps.data, job)
        found = steps.preflight(PLANS * len(tried.targets), memory)
        _strange(request, steps)
        told = _limits(steps, budget, rules)
        return replace(found, limits=told, left_out=tried.left_out, notes=notes)


def _of_folder(out: Path, owner: str) -> tuple[str, ...]:
    """Return what the run that was looked at would need of its output folder; nothing where that is as it should be.

    Raises:
        UsageError, EnvironmentFault: no run could make the folder. One that holds something else is only told of.
    """
    try:
        refuse_anothers(out, owner)
    except UsageError as refusal:
        if not out.is_dir():
            raise
        return (f"{refusal.where}: {refusal.cause}; the run itself needs another --out",)
    refuse_unmakeable(out)
    return ()


def exit_code(candidates: Sequence[Candidate], allow: Sequence[str], budget: Budget) -> int:
    """Return 0 when every target's best meets its budget, else the worst of what is wrong: a finding, then a miss.

    A target that left no file counts with what its candidates found.
    A file that misses its budget anyway is not failed for being slower than float as well: that is the miss.
    """
    best = shipped(candidates)
    if not best:
        return max((f.exit_code for one in candidates for f in one.findings), default=EXIT_VERIFICATION)
    codes = [EXIT_MET, *(f.exit_code for one in candidates if one.plan.target not in best for f in one.findings)]
    for one in best.values():
        missed = any(not check.met for check in checks(one, budget))
        excused = {*allow, "slower-than-float"} if missed else set(allow)
        codes += [f.exit_code for f in one.findings if f.severity == "error" and f.kind not in excused]
        if missed or one.verdict != "chosen":
            codes.append(EXIT_BUDGET_MISSED if missed or one.verdict == "missed" else EXIT_MET)
    return max(codes)


def _allowed(allow: Sequence[str], budget: Budget) -> tuple[str, ...]:
    """Return the kinds of findings that fail nothing.

    Where the budget limits the latency, that limit judges speed: a file that is slower than float is told by its
    finding, and meets the limit or misses it; it has not failed, and gentler plans are no cure.
    """
    return tuple(dict.fromkeys((*allow, "slower-than-float"))) if budget.judges_speed else tuple(allow)


def _strange(request: Request, steps: Steps) -> Finding | None:
    """Return what is to be said of a recipe of another model, and tell it at once."""
    found = foreign(request, steps.model.digest)
    if found is not None:
        steps.shop.tell(Event("load", "note", found.text))
    return found


def _owner(job: Job) -> str:
    """Return what the output folder belongs to: a job file by its whole path, however it was typed."""
    return str(Path(job.source).resolve()) if Path(job.source).is_file() else job.source


def _one_of(candidates: Sequence[Candidate], budget: Budget, tried: Runtimes) -> Choice | None:
    """Return the runtime that ships, or None when none left a file."""
    best = shipped(candidates)
    return between(best, budget, shipping=tried.shipping, left_out=tried.left_out) if best else None


def _shipping(candidates: Sequence[Candidate], only: Choice | None) -> dict[str, Candidate]:
    """Return target -> what ships for it; of one target alone where only one of them ships."""
    return {name: one for name, one in shipped(candidates).items() if only is None or name == only.target}


def _steps(
    shop: Workshop,
    job: Job,
    tried: Runtimes,
    device: Device,
    spend: str,
    allow: Sequence[str] = (),
    budget: Budget | None = None,
    spread: Spread = here,
) -> Steps:
    """Return the run's steps; the fast ones learn what small downloads lose only where one is asked for."""
    metric = metrics.resolve(job.metric)
    targets = {name: built(name, tried.settings.get(name)).sized(job.lengths) for name in tried.targets}
    data = Data(job, None, metric)
    light = spend != FAST or (budget is not None and budget.download is not None)
    limited = budget is not None and (budget.size is not None or budget.download is not None)
    kept = effort(spend)
    return Steps(shop, job, data, metric, targets, device, tuple(allow), kept, tried.settings, light, limited, spread)


def _limits(steps: Steps, budget: Budget, rules: Rules) -> tuple[str, ...]:
    """Return what is known of the limits before anything is made, one line each."""
    model, scope = steps.model, rules.scope
    least, free = (narrowest(model, steps.targets, one) for one in (scope, None))
    return limits(model, budget, least, steps.metric.unit, runs=bool(steps.running), free=free, scope=scope)


def _searched(
    steps: Steps, names: Sequence[str], budget: Budget, fixed: Mapping[str, Plan], rules: Rules
) -> tuple[list[Candidate], str]:
    """Return every candidate of all targets, each target's best first; one that failed where no float file runs.

    And what would meet limits that are missed, if the user allowed it, in words.
    """
    lost = {name: [floats.lost(name, steps.failed[name])] for name in names if name in steps.failed}
    asked = {name: _ask(steps, name, budget, fixed, rules) for name in names if name not in lost}
    mixer = Mixer(
        steps.model.graph,
        steps.profile if any(one.mixes for one in asked.values()) else Profile(),
        steps.weight_elements(),
        {name: target.precisions for name, target in steps.targets.items()},
        rules.scope,
    )
    certain = [next((one for one in ask.proposals if not ask.hopeless(one)), None) for ask in asked.values()]
    plans = [plan for plan in certain if plan is not None]
    apply_ahead(steps.squeeze, plans, steps.data, steps.spread, steps.shop.tell)
    found = best(asked, steps.evaluate, mixer=mixer, confirm=steps.confirmed, sink=steps.shop.tell)
    searched = {name: found[name] for name, one in asked.items() if one.mixes}
    told = instead(
        searched, budget, mixer, lambda name, scope: _uniform(steps, name, budget, replace(rules, scope=scope))
    )
    return [one for name in names for one in {**lost, **found}[name]], "; ".join(told.values())


def _uniform(steps: Steps, name: str, budget: Budget, rules: Rules) -> list[Plan]:
    """Return the uniform plans for a target that the rules allow."""
    able, spend = steps.targets[name].precisions, allowed(steps.spend, rules.scope.without)
    plans = proposals(steps.model.graph, name, able, steps.squeeze.alike(name), spend)
    cannot, demands = hopeless(steps.model.graph, steps.model.weights, budget), steps.constraints[name]
    narrow = [one for first in plans.variants[:1] for one in smaller(first, able, demands, cannot)]
    return rules.kept([*plans.variants, *narrow, *plans.fallbacks])


def _ask(steps: Steps, name: str, budget: Budget, fixed: Mapping[str, Plan], rules: Rules) -> Ask:
    """Return what one target may try: the plan of a recipe alone, or what is proposed for it."""
    if name in fixed:
        return Ask([fixed[name]], budget, mixes=False)
    target = steps.targets[name]
    budget = budget if target.runs_here else judgeable(budget)
    spend = allowed(steps.spend, rules.scope.without)
    plans = proposals(steps.model.graph, name, target.precisions, steps.squeeze.alike(name), spend)
    raced = race(steps, rules.kept(plans.variants))
    model = steps.model
    cannot = hopeless(model.graph, model.weights, budget)
    first = raced.order[:1] or plans.variants[:1]  # forbidden as it is, it may be allowed in 4 bits
    large = [one for one in first if not raced.order or cannot(one)]
    gentler = [
        *(two for one in large for two in smaller(one, target.precisions, steps.constraints[name], cannot)),
        *(two for one in first for two in careful(model.graph, one)),
        *plans.fallbacks,
    ]
    return Ask(
        raced.order[:1],
        budget,
        spares=[(plan, raced.lost[plan.digest]) for plan in raced.order[1:]],
        fallbacks=rules.kept(gentler),
        mixes=target.runs_here,
        hopeless=cannot,
        overshoot=overshoot(model.graph, model.weights, budget),
        float_bytes=steps.floats[name].artifact.bytes,
    )


def _taking(steps: Steps, tried: Runtimes) -> tuple[Steps, Runtimes]:
    """Return both without the runtimes that cannot take the model, where the user asked for any."""
    left = tried.taking(steps.refusals)
    for name in sorted({*tried.targets} - {*left.targets}):
        steps.shop.tell(Event("load", "note", f"{name} is left out: {left.left_out[name]}"))
    return steps.only(left.targets), left


def _ruled(steps: Steps, tried: Runtimes, fixed: Mapping[str, Plan]) -> tuple[Steps, Runtimes, Rules]:
    """Return what the user says of layers and parts, and the runtimes that can have them so, where any may ship.

    Raises:
        UsageError: a glob that names no layer, a layer that cannot be as asked, or a plan that breaks the rules.
    """
    rules = ruled(steps.model.graph, steps.job.layer_precisions, steps.job.without, steps.targets)
    lacks = lacking(rules)
    left = tried.taking(lacks, "layers cannot be as asked in it")
    refuse({name: faults for name, faults in lacks.items() if name in left.targets}, rules, fixed)
    for name in sorted({*tried.targets} - {*left.targets}):
        steps.shop.tell(Event("load", "note", f"{name} is left out: {left.left_out[name]}"))
    return steps.only(left.targets), left, rules


def _refuse(preflight: Preflight, tried: Runtimes) -> None:
    refused = [name for name in tried.targets if preflight.refusals[name]]
    if refused:
        faults = tuple(fault for name in refused for fault in preflight.refusals[name])
        others = "" if tried.one else "; --target any leaves out a runtime that cannot take the model"
        raise ConversionError(
            f"{', '.join(refused)} cannot take this model",
            where=faults[0].where,
            faults=faults,
            tried="exporting it once and looking at every layer",
            next_step=f"replace the layers named above, or choose another --target{others}",
        )
