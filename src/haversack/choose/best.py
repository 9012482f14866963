"""The loop: uniform plans are made real, the knapsack mixes layers, measurement corrects the forecast, solve again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.graph import Graph
from haversack.base.plan import Plan, Precision
from haversack.base.profile import Profile
from haversack.base.progress import Event, Sink, silent
from haversack.choose import knapsack
from haversack.choose.forecast import computes_integers
from haversack.choose.options import Option, borders, options
from haversack.choose.verdict import amount, checks, judged, ranked, unmade

ROUNDS = 3
MARGIN = 0.01
"""The knapsack aims this far inside a limit; each miss by measurement widens it."""
REACH = 1.25
"""A mixture whose forecast latency is over the limit by more than this factor is not made real."""
MIXED = "knapsack over layers"
"""The origin of a plan that the knapsack mixed."""


@dataclass(frozen=True)
class Forecast:
    """What the knapsack expected of a plan before it was made: kept to be held against the measurement.

    Attributes:
        bytes, download_bytes: of all files.
        latency_ratio, latency_ms: against the same runtime's float artefact, and in milliseconds; NaN without its time.
        relative_error: of the outputs.
    """

    bytes: float
    latency_ratio: float
    relative_error: float
    download_bytes: float = math.nan
    latency_ms: float = math.nan


@dataclass(frozen=True)
class Mixer:
    """Knows one target's costs, calibrated on its measured uniform candidates.

    Attributes:
        graph: the prepared model's graph.
        profile: measured seconds and sensitivities.
        target: the runtime.
        weight_elements: node key -> number of weight elements.
    """

    graph: Graph
    profile: Profile
    target: str
    weight_elements: Mapping[str, int]

    def propose(self, base: Candidate, budget: Budget, margin: float) -> tuple[Plan, Forecast] | None:
        """Return the plan with the least forecast loss under the budget, starting from a measured uniform one.

        Args:
            base: a measured candidate whose layers are the integer options.
            budget: limits on size, download and latency bind the knapsack; drop and memory are only measured.
            margin: fraction of each limit that is kept free.
        """
        if base.artifact is None or base.latency is None or base.parity is None:
            return None
        items, uniform = self._items(base, base.latency.ratio)
        total = sum(self.profile.seconds.get(self.target, {}).values()) or 1.0
        shrink = base.artifact.download_bytes / base.artifact.bytes
        fixed_bytes = base.artifact.bytes - sum(option.bytes for option in uniform)
        fixed_seconds = base.latency.ratio * total - sum(option.seconds for option in uniform)
        keep = 1.0 - margin
        sizes = [budget.size, budget.download / shrink if budget.download else None]
        ratios = [budget.latency_ratio, _as_ratio(budget.latency_ms, base)]
        found = knapsack.solve(
            items,
            max_bytes=min((size * keep - fixed_bytes for size in sizes if size is not None), default=None),
            max_seconds=min(
                (ratio * keep * total - fixed_seconds for ratio in ratios if ratio is not None), default=None
            ),
            borders=borders(self.graph, list(items)),
        )
        layers = {key: option.plan for key, option in found.chosen.items() if option.plan.precision != "float32"}
        predicted = sum(option.loss for option in uniform)
        scale = base.parity.relative_error / predicted**0.5 if predicted else 1.0
        size, ratio = found.bytes + fixed_bytes, (found.seconds + fixed_seconds) / total
        milliseconds = ratio * base.latency.float_median_ms if base.latency.float_median_ms else math.nan
        forecast = Forecast(size, ratio, scale * found.loss**0.5, size * shrink, milliseconds)
        return replace(base.plan, layers=layers, origin=MIXED), forecast

    def _items(self, base: Candidate, ratio: float) -> tuple[dict[str, tuple[Option, ...]], list[Option]]:
        """Return the options of every layer, and those that the measured candidate itself took."""
        speed: dict[Precision, float] = {plan.precision: ratio for plan in base.plan.layers.values()}
        items = options(
            self.graph,
            self.profile,
            self.target,
            base.plan.layers,
            weight_elements=self.weight_elements,
            speed=speed,
        )
        return items, [found[0] for found in items.values()]


def _as_ratio(milliseconds: float | None, base: Candidate) -> float | None:
    if milliseconds is None or base.latency is None or not base.latency.float_median_ms:
        return None
    return milliseconds / base.latency.float_median_ms


def best(
    proposals: Sequence[Plan],
    budget: Budget,
    evaluate: Callable[[Plan], Candidate],
    *,
    fallbacks: Sequence[Plan] = (),
    mixer: Mixer | None = None,
    rounds: int = ROUNDS,
    hopeless: Callable[[Plan], str] | None = None,
    sink: Sink = silent,
) -> list[Candidate]:
    """Return a candidate for every plan that was considered, best first, each with verdict and reason.

    Args:
        proposals: uniform plans of one target, made real first, in order; the most promising one comes first.
        budget: the limits.
        evaluate: makes a plan real and measures it; a failure is a candidate with the verdict ``failed``.
        fallbacks: gentler uniform plans that are made real, in order, while they may help: nothing made before meets
            the budget, and what misses it fails or loses too much; or it is no faster than float, and the plan
            computes in float.
        mixer: proposes mixed plans, or None to stop after the proposals.
        rounds: how many mixed plans are made real at most.
        hopeless: says why a plan cannot meet the budget, or returns an empty string; such a plan is not made real.
            If all proposals are hopeless, the first is made all the same: a best effort is owed.
        sink: told about each candidate.
    """
    plans = [*proposals, *fallbacks]
    refused = {plan.digest: hopeless(plan) for plan in plans} if hopeless is not None else {}
    if plans and all(refused.get(plan.digest) for plan in plans):
        refused[plans[0].digest] = ""
    made: dict[str, Candidate] = {}
    for index, plan in enumerate(plans):
        if plan.digest in made or (index >= len(proposals) and not _may_help(plan, made.values(), budget)):
            continue
        sink(Event("choose", "progress", f"candidate {plan.origin or plan.id}", index, len(plans)))
        reason = refused.get(plan.digest, "")
        made[plan.digest] = _not_made(plan, reason) if reason else evaluate(plan)
    margin = MARGIN
    for _ in range(rounds if mixer is not None else 0):
        proposal = _mixed(mixer, made, budget, margin)
        if proposal is None:
            break
        plan, forecast = proposal
        reason = (hopeless(plan) if hopeless is not None else "") or _out_of_reach(forecast, budget)
        if reason:
            made[plan.digest] = _not_made(plan, reason)
            break
        candidate = evaluate(plan)
        made[plan.digest] = replace(candidate, extra={**candidate.extra, "forecast": vars(forecast)})
        missed = [check.overshoot for check in checks(candidate, budget) if not check.met and check.limit != "drop"]
        if not missed:
            break
        margin += max((over for over in missed if math.isfinite(over)), default=0.0)
    return judged(list(made.values()), budget)


def _may_help(plan: Plan, made: Iterable[Candidate], budget: Budget) -> bool:
    """Say whether a gentler plan may meet what nothing made so far meets.

    It cannot where one meets the budget. Where one keeps the drop and misses by bytes or time, losing less is of no
    use; only if integers are no faster than float may a plan help that computes in float.
    """
    for one in made:
        missed = {check.limit for check in checks(one, budget) if not check.met}
        if one.verdict == "failed" or unmade(one) or "drop" in missed:
            continue
        if not missed or (one.latency is not None and one.latency.ratio < 1.0):
            return False
        if computes_integers(one.plan) and computes_integers(plan):
            return False
    return True


def _out_of_reach(forecast: Forecast, budget: Budget) -> str:
    """Say why the mixture with the least loss that the knapsack found is not worth making, or nothing where it is.

    The knapsack minimises what is over a limit that nothing meets. What is far over it even so meets nothing when it
    is made; the uniform plan that was measured is the best effort then.
    """
    limits = budget.limits()
    for name, value in (("latency_ratio", forecast.latency_ratio), ("latency_ms", forecast.latency_ms)):
        if name in limits and value > limits[name] * REACH:
            return f"forecast latency {amount(name, value)} is over the allowed {amount(name, limits[name])}"
    return ""


def _not_made(plan: Plan, reason: str) -> Candidate:
    return Candidate(plan, None, None, None, None, None, None, verdict="missed", reason=f"not made: {reason}")


def _mixed(
    mixer: Mixer | None, made: Mapping[str, Candidate], budget: Budget, margin: float
) -> tuple[Plan, Forecast] | None:
    """Return a new mixed plan around the best integer candidate, or None when there is nothing new to try."""
    uniform = [one for one in made.values() if one.verdict != "failed" and _cheapens(one) and one.plan.origin != MIXED]
    if mixer is None or not uniform or set(budget.limits()) <= {"drop", "memory"}:
        return None
    proposal = mixer.propose(ranked(uniform, budget)[0], budget, margin)
    return None if proposal is None or proposal[0].digest in made else proposal


def _cheapens(candidate: Candidate) -> bool:
    integers = any(plan.precision.startswith("int8") for plan in candidate.plan.layers.values())
    return candidate.artifact is not None and integers
