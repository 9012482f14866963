"""The search of one model for all its targets: its steps, what each target may try, and the exit code at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from haversack import metrics
from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.errors import EXIT_BUDGET_MISSED, EXIT_MET, EXIT_VERIFICATION
from haversack.base.job import Job
from haversack.base.plan import Plan
from haversack.base.profile import Profile
from haversack.base.progress import Event
from haversack.base.scope import Scope
from haversack.base.spread import Spread, here
from haversack.choose.best import Ask, best
from haversack.choose.forecast import hopeless, overshoot
from haversack.choose.mixing import Mixer
from haversack.choose.same_integers import same_integers
from haversack.choose.verdict import checks, judged
from haversack.compress.prepare.fold_norm import folded
from haversack.flow import floats
from haversack.flow.ahead import apply_ahead
from haversack.flow.barred import instead
from haversack.flow.data import Data
from haversack.flow.early import BEYOND, beyond, limits, narrowest
from haversack.flow.effort import DEFAULT, EFFORTS, FAST, effort
from haversack.flow.effort import allowed as allowed_effort
from haversack.flow.exports import judgeable
from haversack.flow.late import late, widened
from haversack.flow.outputs import shipped
from haversack.flow.proposals import careful, mostly_linear, proposals, smaller
from haversack.flow.race import race
from haversack.flow.request import Runtimes
from haversack.flow.rules import Rules, lacking, refuse
from haversack.flow.scoping import ruled
from haversack.flow.settings import built
from haversack.flow.steps import Steps
from haversack.flow.workshop import Workshop
from haversack.measure.device import Device

PLANS = 3
"""How many plans for each target a forecast of time counts with."""
LATE = "activations quantized at run time miss a limit or leave room, so that fixed scales and their widths are tried"


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


def allowed(allow: Sequence[str], budget: Budget) -> tuple[str, ...]:
    """Return the kinds of findings that fail nothing.

    Where the budget limits the latency, that limit judges speed: a file that is slower than float is told by its
    finding, and meets the limit or misses it; it has not failed, and gentler plans are no cure.
    """
    return tuple(dict.fromkeys((*allow, "slower-than-float"))) if budget.judges_speed else tuple(allow)


def steps_of(
    shop: Workshop,
    job: Job,
    tried: Runtimes,
    device: Device,
    spend: str,
    allow: Sequence[str] = (),
    budget: Budget | None = None,
    spread: Spread = here,
    *,
    data: Data | None = None,
    architecture: str = "",
) -> Steps:
    """Return the run's steps; the fast ones learn what small downloads lose only where one is asked for.

    Args:
        shop, job, tried, device, spend, allow, budget, spread: of the run.
        data: the job's, where somebody looked at them already.
        architecture: which of several the job is of.
    """
    metric = metrics.resolve(job.metric)
    targets = {name: built(name, tried.settings.get(name)).sized(job.lengths) for name in tried.targets}
    data = data or Data(job, None, metric)
    light = spend != FAST or (budget is not None and budget.download is not None)
    limited = budget is not None and (budget.size is not None or budget.download is not None)
    kept, own = effort(spend), tried.settings
    steps = Steps(shop, job, data, metric, targets, device, tuple(allow), kept, own, light, limited, spread)
    return replace(steps, architecture=architecture)


def limits_of(steps: Steps, budget: Budget, rules: Rules, fixed: Mapping[str, Plan]) -> tuple[str, ...]:
    """Return what is known of the limits before anything is made, one line each."""

    def least(scope: Scope) -> dict[str, Plan]:
        return _least(steps, scope, fixed)

    return limits(steps.model, budget, least, steps.metric.unit, runs=bool(steps.running), scope=rules.scope)


def beyond_of(steps: Steps, budget: Budget, rules: Rules, fixed: Mapping[str, Plan], *, one: bool) -> tuple[str, ...]:
    """Return the targets for which ``pack`` will miss the size, as ``early.beyond`` does."""
    return beyond(steps.model, budget, _least(steps, rules.scope, fixed), one=one)


def _least(steps: Steps, scope: Scope, fixed: Mapping[str, Plan]) -> dict[str, Plan]:
    found = narrowest(steps.model, steps.targets, scope)
    return {name: fixed.get(name, plan) for name, plan in found.items()}


def tell_beyond(steps: Steps, budget: Budget, rules: Rules, fixed: Mapping[str, Plan]) -> None:
    """Tell which sizes the weights alone are above, whatever is done."""
    for line in limits_of(steps, budget, rules, fixed):
        if BEYOND in line:
            steps.shop.tell(Event("load", "note", f"{line}; the best effort is made"))


def tell_effort(steps: Steps) -> None:
    """Tell that weights are rounded to nearest, whatever is spent, where activations are quantized at run time."""
    if mostly_linear(steps.model.graph) and steps.spend not in (EFFORTS[DEFAULT], EFFORTS[FAST]):
        text = "effort changes nothing where activations are quantized at run time: weights are rounded to nearest"
        steps.shop.tell(Event("load", "note", f"{text}; it counts if fixed scales are tried"))


def searched(
    steps: Steps, names: Sequence[str], budget: Budget, fixed: Mapping[str, Plan], rules: Rules
) -> tuple[list[Candidate], dict[str, str]]:
    """Return every candidate of all targets, each target's best first; one that failed where no float file runs.

    And target -> what would meet limits that are missed, if the user allowed it, in words.
    """
    tell_effort(steps)
    lost = {name: [floats.lost(name, steps.failed[name])] for name in names if name in steps.failed}
    asked = {name: _ask(steps, name, budget, fixed, rules) for name in names if name not in lost}
    mixer = Mixer(
        steps.model.graph,
        steps.profile if any(one.mixes for one in asked.values()) else Profile(),
        steps.weight_elements(),
        {name: target.precisions for name, target in steps.targets.items()},
        rules.scope,
        stores={name: target.stores for name, target in steps.targets.items()},
    )
    certain = [next((one for one in ask.proposals if not ask.hopeless(one)), None) for ask in asked.values()]
    plans = [plan for plan in certain if plan is not None]
    apply_ahead(steps.squeeze, plans, steps.data, steps.spread, steps.shop.tell)
    found = best(asked, steps.evaluate, mixer=mixer, confirm=steps.confirmed, sink=steps.shop.tell)
    if more := late(steps, found, budget, fixed, rules):
        steps.shop.tell(Event("choose", "note", f"{', '.join(more)}: {LATE}"))
        mixer = replace(mixer, profile=widened(steps))
        tried = best(more, steps.evaluate, mixer=mixer, confirm=steps.confirmed, sink=steps.shop.tell)
        every = {name: [*{one.id: one for one in (*found[name], *tried[name])}.values()] for name in more}
        found |= same_integers({name: judged(those, budget) for name, those in every.items()})
    mixed = {name: found[name] for name, one in asked.items() if one.mixes}
    told = instead(mixed, budget, mixer, lambda name, scope: _uniform(steps, name, budget, replace(rules, scope=scope)))
    ordered = [one for name in names for one in {**lost, **found}[name]]
    return [replace(one, architecture=steps.architecture) for one in ordered], {n: one.words for n, one in told.items()}


def _uniform(steps: Steps, name: str, budget: Budget, rules: Rules) -> list[Plan]:
    """Return the uniform plans for a target that the rules allow."""
    able, spend = steps.targets[name].precisions, allowed_effort(steps.spend, rules.scope.without)
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
    spend = allowed_effort(steps.spend, rules.scope.without)
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


def taking(steps: Steps, tried: Runtimes) -> tuple[Steps, Runtimes]:
    """Return both without the runtimes that cannot take the model, where the user asked for any."""
    left = tried.taking(steps.refusals)
    for name in sorted({*tried.targets} - {*left.targets}):
        steps.shop.tell(Event("load", "note", f"{name} is left out: {left.left_out[name]}"))
    return steps.only(left.targets), left


def ruling(steps: Steps, tried: Runtimes, fixed: Mapping[str, Plan]) -> tuple[Steps, Runtimes, Rules]:
    """Return what the user says of layers and parts, and the runtimes that can have them so, where any may ship.

    Raises:
        UsageError: a glob that names no layer, a layer that cannot be as asked, or a plan that breaks the rules.
    """
    said = steps.job.layer_precisions, steps.job.without
    rules = ruled(steps.model.graph, *said, steps.targets, folded(steps.model))
    lacks = lacking(rules)
    left = tried.taking(lacks, "layers cannot be as asked in it")
    refuse({name: faults for name, faults in lacks.items() if name in left.targets}, rules, fixed)
    for name in sorted({*tried.targets} - {*left.targets}):
        steps.shop.tell(Event("load", "note", f"{name} is left out: {left.left_out[name]}"))
    if left.targets != tried.targets:  # those that are left out share no encodings any more
        steps = steps.only(left.targets)
        rules = ruled(steps.model.graph, *said, steps.targets)
        refuse(lacking(rules), rules, fixed)
    return steps, left, rules
