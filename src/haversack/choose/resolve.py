"""Resolving a finished run for another budget: a measured candidate if one fits, else a plan marked forecast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.plan import Plan
from haversack.choose.best import MARGIN, MIXED, SPARED, Forecast, Mixer
from haversack.choose.forecast import computes_integers
from haversack.choose.verdict import checks, judged, loss, unmade


@dataclass(frozen=True)
class Resolution:
    """The answer for another budget.

    Attributes:
        candidates: every measured candidate, best first, judged against the new budget.
        met: whether the first of them meets it.
        plan: when none does: a plan that is forecast to, by the knapsack, or one that the run did not make for its own
            limits; None when there is none.
        forecast: what is expected of that plan; never a measurement.
    """

    candidates: tuple[Candidate, ...]
    met: bool
    plan: Plan | None = None
    forecast: Forecast | None = None


def resolve(candidates: Sequence[Candidate], budget: Budget, mixers: Sequence[Mixer]) -> Resolution:
    """Hold measured candidates against another budget; where none meets it, forecast.

    The knapsack is asked first. Then come the uniform plans that the run did not make for limits of its own: they are
    forecast anew. What was not made because it lost a race, and not for a limit, stays so.

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
            if proposal is None or not _fits(proposal[1], base, budget):
                continue
            plan = proposal[0] if proposal[0].layers else _float(proposal[0], order)
            if plan.digest not in known:
                return Resolution(tuple(order), met=False, plan=plan, forecast=proposal[1])
    for mixer in mixers:
        mine = [one for one in order if one.plan.target == mixer.target]
        measured = next((one for one in mine if one.artifact is not None and one.latency is not None), None)
        for one in filter(_given_up, mine):
            forecast = mixer.expect(one.plan, measured)
            if _may_fit(one.plan, forecast, measured, budget):
                return Resolution(tuple(order), met=False, plan=one.plan, forecast=forecast)
    return Resolution(tuple(order), met=False)


def _float(plan: Plan, order: Sequence[Candidate]) -> Plan:
    """Return the run's own plan that leaves every layer in float, or the given one under that name."""
    own = (one.plan for one in order if one.plan.target == plan.target and not one.plan.layers)
    return next(own, replace(plan, origin="float"))


def _given_up(candidate: Candidate) -> bool:
    """Say whether a uniform plan was not made for a limit."""
    return unmade(candidate) and candidate.plan.origin != MIXED and candidate.extra != SPARED


def _may_fit(plan: Plan, forecast: Forecast, measured: Candidate | None, budget: Budget) -> bool:
    """Say whether a uniform plan is forecast to meet what can be forecast of it.

    Memory must be met by what was measured; the drop too, unless the plan computes in float and so loses less.
    """
    expected = _expected(forecast)
    able = {check.limit for check in checks(measured, budget) if check.met} if measured is not None else set()
    able |= set() if computes_integers(plan) else {"drop"}
    return all(expected[name] <= limit if name in expected else name in able for name, limit in budget.limits().items())


def _expected(forecast: Forecast) -> dict[str, float]:
    return {
        "size": forecast.bytes,
        "download": forecast.download_bytes,
        "latency_ratio": forecast.latency_ratio,
        "latency_ms": forecast.latency_ms,
    }


def _fits(forecast: Forecast, base: Candidate, budget: Budget) -> bool:
    """Say whether a forecast meets the limits that it speaks of.

    It is silent on memory, where the base must meet the limit, and on the drop, where a base that misses the limit
    must at least be forecast to err less.
    """
    expected = _expected(forecast)
    for check in checks(base, budget):
        if check.limit in expected:
            fits = expected[check.limit] <= check.allowed
        else:
            fits = check.met or (check.limit == "drop" and forecast.relative_error < loss(base))
        if not fits:
            return False
    return True
