"""Resolving a finished run for another budget: a measured candidate if one fits, else a plan marked forecast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.plan import Plan
from haversack.choose.best import SPARED
from haversack.choose.forecast import computes_integers
from haversack.choose.mixing import MIXED, Forecast, Mixer
from haversack.choose.same_integers import same_integers
from haversack.choose.verdict import checks, judged, loss, unmade


@dataclass(frozen=True)
class Resolution:
    """The answer for another budget.

    Attributes:
        candidates: every measured candidate, best first, judged against the new budget.
        met: whether the first of them meets it.
        plan: when none does: a plan that is forecast to, by the knapsack, or one that the run did not make for its own
            limits; None when there is none.
        forecast: what is expected of that plan; never a measurement. None beside a plan whose file was measured to meet
            the budget, and is gone.
    """

    candidates: tuple[Candidate, ...]
    met: bool
    plan: Plan | None = None
    forecast: Forecast | None = None


def resolve(candidates: Sequence[Candidate], budget: Budget, mixer: Mixer) -> dict[str, Resolution]:
    """Hold measured candidates against another budget, for each target; where none meets it, forecast.

    The knapsack is asked first: for one mixture that is forecast to fit all targets which need one and share their
    encodings, then for each by itself. Then come the uniform plans that the run did not make for limits of its own:
    they are forecast anew. What was not made because it lost a race, and not for a limit, stays so.

    Args:
        candidates: of a finished run, all targets.
        budget: the other limits.
        mixer: from the run's profile.
    """
    targets, mixer = dict.fromkeys(one.plan.target for one in candidates), mixer.knowing(candidates)
    orders = same_integers(
        {name: judged([one for one in candidates if one.plan.target == name], budget) for name in targets}
    )
    met = {target for target, order in orders.items() if order[0].verdict == "chosen"}
    lacking = {target: order for target, order in orders.items() if target not in met}
    found = _together(lacking, budget, mixer)
    for target, order in lacking.items():
        if target not in found and (answer := _mixed(target, order, budget, mixer) or _spare(order, budget, mixer)):
            found[target] = answer
    return {
        target: Resolution(tuple(order), target in met, *found.get(target, (None, None)))
        for target, order in orders.items()
    }


_Answer = tuple[Plan, Forecast]


def _together(lacking: Mapping[str, Sequence[Candidate]], budget: Budget, mixer: Mixer) -> dict[str, _Answer]:
    """Return one mixture for all targets that lack a measured answer, where one is forecast to fit all of them."""
    if len(lacking) < 2:
        return {}
    known = {one.plan.digest for order in lacking.values() for one in order if not unmade(one)}
    first, *others = ([one for one in order if _base(one)] for order in lacking.values())
    for base in first:
        group = [base, *(one for able in others for one in able if one.plan.shared_digest == base.plan.shared_digest)]
        bases = {one.plan.target: one for one in group}
        proposal = mixer.propose(bases, budget) if len(bases) == len(lacking) else None
        if proposal is None or not all(plan.layers and plan.digest not in known for plan in proposal.plans.values()):
            continue
        if all(_fits(proposal.forecasts[target], one, budget) for target, one in bases.items()):
            return {target: (plan, proposal.forecasts[target]) for target, plan in proposal.plans.items()}
    return {}


def _mixed(target: str, order: Sequence[Candidate], budget: Budget, mixer: Mixer) -> _Answer | None:
    """Return a mixture that is forecast to fit one target, around the best measured candidate that gives one."""
    known = {one.plan.digest for one in order if not unmade(one)}
    for base in filter(_base, order):
        proposal = mixer.propose({target: base}, budget)
        if proposal is None or not _fits(proposal.forecasts[target], base, budget):
            continue
        plan = proposal.plans[target] if proposal.plans[target].layers else _float(proposal.plans[target], order)
        if plan.digest not in known:
            return plan, proposal.forecasts[target]
    return None


def _spare(order: Sequence[Candidate], budget: Budget, mixer: Mixer) -> _Answer | None:
    """Return a uniform plan that was given up for another limit, where it is forecast to fit this one."""
    measured = next((one for one in order if one.artifact is not None and one.latency is not None), None)
    for one in filter(_given_up, order):
        forecast = mixer.expect(one.plan.target, one.plan, measured)
        if _may_fit(one.plan, forecast, measured, budget):
            return one.plan, forecast
    return None


def _base(candidate: Candidate) -> bool:
    return candidate.verdict != "failed" and bool(candidate.plan.layers)


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
