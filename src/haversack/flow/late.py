"""What is tried of a mostly linear model when all else missed: integers whose scales are fixed beforehand."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.plan import STATIC, WEIGHT_BITS, Plan
from haversack.base.profile import Profile
from haversack.base.progress import Event
from haversack.base.recipe import structure, unstructure
from haversack.choose.best import Ask
from haversack.choose.forecast import hopeless, overshoot
from haversack.choose.verdict import checks
from haversack.flow import room
from haversack.flow.effort import BY_OUTPUTS, PLAIN, allowed
from haversack.flow.profiling import Looking
from haversack.flow.proposals import mostly_linear, proposals, smaller
from haversack.flow.rules import Rules
from haversack.flow.squeeze import narrowable
from haversack.flow.steps import Steps
from haversack.load.forecast import sized

BY_BYTES = frozenset({"size", "download", "drop"})
"""Limits that weights of other widths may meet."""
ROOMY = 0.9
"""A file of fewer bits that takes less than this fraction of what is allowed leaves room for a width between."""


def late(
    steps: Steps, found: Mapping[str, Sequence[Candidate]], budget: Budget, fixed: Mapping[str, Plan], rules: Rules
) -> dict[str, Ask]:
    """Return target -> static plans, where activations quantized at run time missed a budget that limits the bytes.

    Static weights have more widths, and are rounded by outputs; but activations with fixed scales lose more in most
    transformers, and rounding takes long. So this comes last, and only where a plan is not hopeless. It comes, too,
    where few bits leave much of the bytes unused: one layer holds most of the weights then, 8 bits are too many for
    it, and there is a width between. The knapsack fills what is allowed where layers are many. Where rounding them is
    forecast to need more memory than is left, they are not tried, and that is told.

    Args:
        steps: of the run.
        found: target -> its candidates, best first.
        budget: the limits.
        fixed: target -> the only plan that is made for it.
        rules: what the user allows.
    """
    model, limited = steps.model, budget.size is not None or budget.download is not None
    if not (limited and mostly_linear(model.graph)):
        return {}
    cannot, over = (hopeless(model.graph, model.weights, budget), overshoot(model.graph, model.weights, budget))
    asked = {}
    for name in steps.running:
        if name in fixed or not found.get(name) or not _wanting(found[name][0], budget):
            continue
        plans = _static(steps, name, rules)
        large = [one for one in plans if cannot(one)]
        able, demands = steps.targets[name].precisions, steps.constraints[name]
        plans += [two for one in large for two in rules.kept(smaller(one, able, demands, cannot))]
        plans = [one for one in plans if not cannot(one)]
        if plans:
            first = [plans[0], *_to_nearest(plans[0])]
            asked[name] = Ask(first, budget, fallbacks=plans[1:], hopeless=cannot, overshoot=over)
    return asked if asked and _has_room(steps, asked, rules) else {}


def _to_nearest(plan: Plan) -> list[Plan]:
    """Return a plan without its rounding by outputs: data are often padded, and then it serves what counts for nothing.

    MiniLM on padded batches of sentences: relative error .74 with gptq, .50 without (``bench/ablation``).
    """
    kept = tuple(step for step in plan.prepare if step.part not in BY_OUTPUTS)
    origin = f"{plan.origin.rpartition(', ')[0]}, {PLAIN.words}"
    return [replace(plan, prepare=kept, origin=origin)] if kept != plan.prepare else []


def _has_room(steps: Steps, asked: Collection[str], rules: Rules) -> bool:
    """Say whether memory is left to round such plans; tell where it is not."""
    step = allowed(steps.spend, rules.scope.without).rounding
    needed, free = room.rounding(steps.model, step, steps.data.counts()[0]), room.left()
    if free is None or needed <= free.bytes:
        return True
    text = f"rounding is forecast to need {sized(needed)}B of memory, and {sized(free.bytes)}B are left ({free.limit})"
    steps.shop.tell(Event("choose", "note", f"{', '.join(asked)}: fixed scales are not tried: {text}"))
    return False


def widened(steps: Steps) -> Profile:
    """Return the run's profile with what static layers lose and weigh; from now on the steps have it too."""
    narrow, known = narrowable(steps.constraints.values()), steps.profile
    precisions = [frozenset(one.precisions) for one in steps.targets.values()]
    looking = Looking(
        steps.model, narrow, precisions, steps.light, spread=steps.spread, static=True, rows=steps.spend.rows
    )
    made = steps.shop.remember(
        "profile",
        "sensitivity of layers with fixed scales",
        [*steps.content, *steps.targets, *looking.key],
        lambda: looking.taken({}, steps.ranges(steps.model), steps.data, steps.shop.tell),
        save=lambda made: ({"profile": unstructure(made)}, {}),
        load=lambda data, _: structure(data["profile"], Profile, where="ledger"),
    )
    losses, rates = _both(known.sensitivity, made.sensitivity), _both(known.rates, made.rates)
    vars(steps)["profile"] = replace(known, sensitivity=losses, rates=rates)
    return steps.profile


_Figures = Mapping[str, Mapping[str, float]]


def _both(first: _Figures, second: _Figures) -> _Figures:
    return {key: {**second.get(key, {}), **first.get(key, {})} for key in {**first, **second}}


def _wanting(candidate: Candidate, budget: Budget) -> bool:
    """Say whether other widths might meet what the best candidate misses, or use bytes that it leaves."""
    missed = {check.limit for check in checks(candidate, budget) if not check.met}
    if missed or candidate.artifact is None:
        return candidate.verdict == "failed" or bool(missed & BY_BYTES)
    takes = [(candidate.artifact.bytes, budget.size), (candidate.artifact.download_bytes, budget.download)]
    narrow = any(layer.bits < WEIGHT_BITS["int8_dynamic"] for layer in candidate.plan.layers.values())
    return narrow and all(bytes_ < ROOMY * limit for bytes_, limit in takes if limit is not None)


def _static(steps: Steps, name: str, rules: Rules) -> list[Plan]:
    """Return the usual static plan of a target that has kernels for all its layers, where the user allows it."""
    graph, spend = steps.model.graph, allowed(steps.spend, rules.scope.without)
    found = proposals(
        graph, name, steps.targets[name].precisions, steps.squeeze.alike(name), spend, static=True
    ).variants[:1]
    kernels = steps.constraints[name].integer_ops

    def able(plan: Plan) -> bool:
        static = [key for key, layer in plan.layers.items() if layer.precision in STATIC]
        return bool(static) and all(graph.by_key[key].op in kernels for key in static)

    return [plan for plan in rules.kept([one for one in found if able(one)]) if able(plan)]
