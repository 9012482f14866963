"""Resolving a finished run for another budget: a measured candidate if one fits, else a plan marked forecast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.plan import Plan
from haversack.choose.best import MARGIN, Forecast, Mixer
from haversack.choose.verdict import checks, judged, loss, unmade


@dataclass(frozen=True)
class Resolution:
    """The answer for another budget.

    Attributes:
        candidates: every measured candidate, best first, judged against the new budget.
        met: whether the first of them meets it.
        plan: when none does: a plan that is forecast to; None when even the knapsack finds none.
        forecast: what the knapsack expects of that plan; never a measurement.
    """

    candidates: tuple[Candidate, ...]
    met: bool
    plan: Plan | None = None
    forecast: Forecast | None = None


def resolve(candidates: Sequence[Candidate], budget: Budget, mixers: Sequence[Mixer]) -> Resolution:
    """Hold measured candidates against another budget; ask the knapsack when none meets it.

    Args:
        candidates: of a finished run, all targets.
        budget: the other limits.
        mixers: one a target, from the run's profile.
    """
    order = judged(candidates, budget)
    if order and order[0].verdict == "chosen":
        return Resolution(tuple(order), met=True)
    known = {one.plan.digest for one in order if not unmade(one)}
    for mixer in mixers:
        for base in order:
            if base.plan.target != mixer.target or base.verdict == "failed" or not base.plan.layers:
                continue
            proposal = mixer.propose(base, budget, MARGIN)
            if proposal is None or proposal[0].digest in known:
                continue
            if _fits(proposal[1], base, budget):
                plan, forecast = proposal
                return Resolution(tuple(order), met=False, plan=plan, forecast=forecast)
    return Resolution(tuple(order), met=False)


def _fits(forecast: Forecast, base: Candidate, budget: Budget) -> bool:
    """Say whether a forecast meets the limits that it speaks of.

    It is silent on memory, where the base must meet the limit, and on the drop, where a base that misses the limit
    must at least be forecast to err less.
    """
    expected = {
        "size": forecast.bytes,
        "download": forecast.download_bytes,
        "latency_ratio": forecast.latency_ratio,
        "latency_ms": forecast.latency_ms,
    }
    for check in checks(base, budget):
        if check.limit in expected:
            fits = expected[check.limit] <= check.allowed
        else:
            fits = check.met or (check.limit == "drop" and forecast.relative_error < loss(base))
        if not fits:
            return False
    return True
