"""The loop: uniform plans are made real, the knapsack mixes layers, measurement corrects the forecast, solve again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.graph import Graph
from haversack.base.plan import Plan, Precision
from haversack.base.profile import Profile
from haversack.base.progress import Event, Sink, silent
from haversack.choose import knapsack
from haversack.choose.options import borders, options
from haversack.choose.verdict import checks, judged, ranked

ROUNDS = 3
MARGIN = 0.01
"""The knapsack aims this far inside a limit; each miss by measurement widens it."""
FORECAST_UNLIMITED = 1.0


@dataclass(frozen=True)
class Forecast:
    """What the knapsack expected of a plan before it was made: kept to be held against the measurement."""

    bytes: float
    latency_ratio: float
    relative_error: float


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
        speed: dict[Precision, float] = {plan.precision: base.latency.ratio for plan in base.plan.layers.values()}
        items = options(
            self.graph, self.profile, self.target, base.plan.layers,
            weight_elements=self.weight_elements, speed=speed,
        )
        edges = borders(self.graph, list(items))
        uniform = {layer: found[0] for layer, found in items.items()}
        fixed_bytes = base.artifact.bytes - sum(option.bytes for option in uniform.values())
        total = sum(self.profile.seconds.get(self.target, {}).values()) or FORECAST_UNLIMITED
        fixed_seconds = base.latency.ratio * total - sum(option.seconds for option in uniform.values())
        shrink = base.artifact.download_bytes / base.artifact.bytes
        keep = 1.0 - margin
        sizes = [budget.size, budget.download / shrink if budget.download else None]
        ratios = [budget.latency_ratio, _as_ratio(budget.latency_ms, base)]
        max_bytes = min((size * keep - fixed_bytes for size in sizes if size is not None), default=None)
        max_seconds = min((ratio * keep * total - fixed_seconds for ratio in ratios if ratio is not None), default=None)
        found = knapsack.solve(items, max_bytes=max_bytes, max_seconds=max_seconds, borders=edges)
        layers = {key: option.plan for key, option in found.chosen.items() if option.plan.precision != "float32"}
        predicted = sum(option.loss for option in uniform.values())
        scale = base.parity.relative_error / predicted**0.5 if predicted else 1.0
        forecast = Forecast(
            found.bytes + fixed_bytes, (found.seconds + fixed_seconds) / total, scale * found.loss**0.5
        )
        return replace(base.plan, layers=layers, origin="knapsack over layers"), forecast


def _as_ratio(milliseconds: float | None, base: Candidate) -> float | None:
    if milliseconds is None or base.latency is None or not base.latency.float_median_ms:
        return None
    return milliseconds / base.latency.float_median_ms


def best(
    proposals: Sequence[Plan],
    budget: Budget,
    evaluate: Callable[[Plan], Candidate],
    *,
    mixer: Mixer | None = None,
    rounds: int = ROUNDS,
    sink: Sink = silent,
) -> list[Candidate]:
    """Return every candidate that was made, best first, each with verdict and reason.

    Args:
        proposals: uniform plans of one target, made real first, in order.
        budget: the limits.
        evaluate: makes a plan real and measures it; a failure is a candidate with the verdict ``failed``.
        mixer: proposes mixed plans, or None to stop after the proposals.
        rounds: how many mixed plans are made real at most.
        sink: told about each candidate.
    """
    made: dict[str, Candidate] = {}
    for index, plan in enumerate(proposals):
        sink(Event("choose", "progress", f"candidate {plan.origin or plan.id}", index, len(proposals)))
        if plan.digest not in made:
            made[plan.digest] = evaluate(plan)
    margin = MARGIN
    for _ in range(rounds if mixer is not None else 0):
        proposal = _mixed(mixer, made, budget, margin)
        if proposal is None:
            break
        plan, forecast = proposal
        candidate = evaluate(plan)
        made[plan.digest] = replace(candidate, extra={**candidate.extra, "forecast": vars(forecast)})
        missed = [check for check in checks(candidate, budget) if not check.met and check.limit != "drop"]
        if not missed:
            break
        margin += max(check.overshoot for check in missed if check.overshoot != float("inf")) if missed else 0.0
    return judged(list(made.values()), budget)


def _mixed(
    mixer: Mixer | None, made: Mapping[str, Candidate], budget: Budget, margin: float
) -> tuple[Plan, Forecast] | None:
    """Return a new mixed plan around the best integer candidate, or None when there is nothing new to try."""
    usable = [c for c in made.values() if c.verdict != "failed" and c.plan.layers and _cheapens(c)]
    if mixer is None or not usable or set(budget.limits()) <= {"drop", "memory"}:
        return None
    base = ranked(usable, budget)[0]
    uniform = [c for c in usable if c.plan.origin != "knapsack over layers"]
    proposal = mixer.propose(base if base in uniform else ranked(uniform, budget)[0], budget, margin)
    return None if proposal is None or proposal[0].digest in made else proposal


def _cheapens(candidate: Candidate) -> bool:
    return any(plan.precision.startswith("int8") for plan in candidate.plan.layers.values())
