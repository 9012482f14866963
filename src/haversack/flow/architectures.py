"""``haversack pack`` for a job of several architectures: each is searched by itself, and the best of all ships.

One budget, one output folder, one ledger. What compares architectures is what a user gets: a drop is taken against the
best float model among them, the one that would have shipped without compression, so that it orders them by the metric's
own value; speed is compared in milliseconds. ``flow/pack.py`` comes first: here stands only what several need more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from haversack.base.candidate import Candidate
from haversack.base.plan import Plan
from haversack.base.progress import Event
from haversack.base.scope import Scope
from haversack.choose import architectures as choosing
from haversack.choose.architectures import Winner, outdone
from haversack.choose.runtimes import Choice, between
from haversack.flow import request, robustness, room
from haversack.flow.crossing import crossed, parting, told
from haversack.flow.entrants import Errand, Field, begun, best_float, looked
from haversack.flow.foreign import foreign
from haversack.flow.outputs import Wishes, float_drop, shipped
from haversack.flow.planned import refuse_unmakeable
from haversack.flow.reporting import confirmed
from haversack.flow.request import Runtimes
from haversack.flow.search import beyond_of, exit_code, limits_of, searched, tell_beyond
from haversack.flow.several_outputs import Part, Whole, leave
from haversack.flow.steps import Steps
from haversack.flow.unlike import unlike
from haversack.load.forecast import Preflights
from haversack.report.record import Record

HALF = "by the half of the evaluation set that chooses, "


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
    for name, one in forecasts.items():
        room.refuse(one, f"packing {name}")
    for name, steps in ones.steps.items():
        tell_beyond(steps, budget, ones.rules[name], _fixed(ones, name))
    reference = best_float(ones)
    against = ones.steps[reference].baseline
    held = {name: steps.held_against(against) for name, steps in ones.steps.items()}
    found: dict[str, list[Candidate]] = {}
    barred: dict[str, dict[str, str]] = {}
    for name, steps in held.items():
        wanted = [target for target in steps.targets if ones.planned.get(target, name) == name]
        candidates, barred[name] = (
            searched(steps, wanted, budget, errand.fixed, ones.rules[name]) if wanted else ([], {})
        )
        found[name] = confirmed(steps, candidates, budget)
    choice, winners = _chosen(errand, held, found)
    ships = {target: one.architecture for target, one in winners.items()}
    parts = {}
    for name, steps in held.items():
        part = _part(errand, steps, found[name], [target for target, owner in ships.items() if owner == name])
        part = replace(part, scope=ones.rules[name].scope)
        degraded = robustness.measured(steps, part.best, worse)
        final = robustness.told(part.candidates, degraded, steps.metric.unit)
        best = {target: shipped(final)[target] for target in part.best}
        final = outdone(final, ships, choice.target if choice else "")
        parts[name] = replace(part, candidates=tuple(final), best=best, degraded=degraded)
    order = _order(tried, parts, ships, ones.failed)
    between_them = {target: f"{HALF}{one.paragraph}" for target, one in winners.items()}
    whole = Whole(errand.job.name, reference, errand.job.baseline, order, between_them, ones.lost)
    scope = Scope(errand.job.layer_precisions, errand.job.without)
    more = scope, request.degraded(errand.request), _instead(ships, barred)
    record = leave(shop, parts, whole, Wishes(budget, errand.allow, errand.request.command, choice, *more))
    counted = [one for one in order if choice is None or one.plan.target == choice.target]
    return record, exit_code(counted, errand.allow, budget)


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
        fixed = _fixed(ones, name)
        refuse_unmakeable(steps.model.graph, fixed, steps.targets)
        known = limits_of(steps, errand.budget, ones.rules[name], fixed)
        beyond = beyond_of(steps, errand.budget, ones.rules[name], fixed, one=errand.tried.one)
        found[name] = replace(one, limits=known, beyond=beyond, left_out=errand.tried.left_out)
    return Preflights(found, ones.lost)


def _fixed(ones: Field, name: str) -> dict[str, Plan]:
    """Return target -> the only plan that is made for it, of one architecture."""
    return {target: plan for target, plan in ones.errand.fixed.items() if ones.planned.get(target) == name}


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
    mismatch = unlike(steps.data, steps.model.inputs)
    final = told(final, dict.fromkeys(targets, mismatch) if mismatch else {})
    return Part(steps, tuple(final), {target: shipped(final)[target] for target in targets}, pairs)


def _instead(ships: Mapping[str, str], barred: Mapping[str, Mapping[str, str]]) -> str:
    """Return for each target what would meet its limits if the user allowed it; that of what ships goes first."""
    told = []
    for target, owner in ships.items():
        names = sorted(barred, key=lambda name: name != owner)
        told += [f"{name}: {barred[name][target]}" for name in names if target in barred[name]][:1]
    return "; ".join(told)


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
