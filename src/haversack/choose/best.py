"""The loop: uniform plans are made real, the knapsack mixes layers, measurement corrects the forecast, solve again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.plan import Plan
from haversack.base.progress import Event, Sink, silent
from haversack.choose.forecast import computes_integers
from haversack.choose.mixing import BYTES_MARGIN, Forecast, Mixer, Mixture, alike, base_of
from haversack.choose.same_integers import same_integers
from haversack.choose.verdict import Check, checks, cost, exactness, judged, unmade

ROUNDS = 3
GENTLER = 0.03
"""A mixture that misses the drop alone is followed by one that is forecast to lose less by at least this fraction."""
SPARED: Mapping[str, object] = {"spared": True}
"""What a candidate's ``extra`` says of a spare plan that was not needed: no limit kept it from being made."""


def _hopeful(_: Plan) -> str:
    return ""


def _alike(_: Plan) -> float:
    return 0.0


@dataclass(frozen=True)
class Ask:
    """What one target may try.

    Attributes:
        proposals: uniform plans, made real first, in order; the most promising one comes first.
        budget: the limits.
        spares: plans much like the proposals, each with the reason why it is not made; one is made real, in order,
            only while all that was made failed.
        fallbacks: gentler uniform plans that are made real, in order, while they may help: nothing made before meets
            the budget, and what misses it fails or loses too much; or it is no faster than float, and the plan
            computes in float. The plan that leaves all in float is made, too, where all that was made takes more bytes
            times latency than the float file, which loses nothing.
        mixes: whether mixtures are made for it.
        hopeless: says why a plan cannot meet the budget, or returns an empty string; such a plan is not made real.
            If all plans are hopeless, one is made all the same: a best effort is owed.
        overshoot: by how much a hopeless plan is forecast to miss its limits, as fractions of them: the least is made
            where all are hopeless; without it the first.
        float_bytes: of the target's float file; 0 where nothing is to be held against it.
    """

    proposals: Sequence[Plan]
    budget: Budget
    spares: Sequence[tuple[Plan, str]] = ()
    fallbacks: Sequence[Plan] = ()
    mixes: bool = True
    hopeless: Callable[[Plan], str] = _hopeful
    overshoot: Callable[[Plan], float] = _alike
    float_bytes: int = 0


def best(
    asked: Mapping[str, Ask],
    evaluate: Callable[[Plan], Candidate],
    *,
    mixer: Mixer | None = None,
    rounds: int = ROUNDS,
    confirm: Callable[[Candidate], Candidate] | None = None,
    sink: Sink = silent,
) -> dict[str, list[Candidate]]:
    """Return, for each target, a candidate for every plan considered, best first, each with verdict and reason.

    Args:
        asked: target -> what it may try.
        evaluate: makes a plan real and measures it; a failure is a candidate with the verdict ``failed``.
        mixer: proposes mixed plans, or None to stop after the uniform ones. Targets whose best uniform plans are one
            but for the target get one mixture, so that their files hold the same integers; where no mixture meets the
            limits of all, each gets its own.
        rounds: how many mixtures are made real at most.
        confirm: looks at a target's first candidate more closely; where it fails it, or finds that it does not equal
            the reference after all, the search goes on with that known.
        sink: told about each candidate that is made.
    """
    searches = {
        target: _Search(ask, evaluate, sink, label=f"{target}: " if len(asked) > 1 else "")
        for target, ask in asked.items()
    }
    while True:
        for search in searches.values():
            search.uniform()
        if mixer is not None:
            made = [one for search in searches.values() for one in search.made.values()]
            _mix(mixer.knowing(made), searches, rounds, sink)
        found = same_integers({name: judged(list(one.made.values()), one.ask.budget) for name, one in searches.items()})
        firsts = [(search, found[target][0]) for target, search in searches.items() if found[target]]
        refuted = [search.refuted(first, confirm) for search, first in firsts if confirm is not None]
        if not any(refuted):
            return found


def _mix(mixer: Mixer, searches: Mapping[str, _Search], rounds: int, sink: Sink) -> None:
    """Make mixtures real, for all targets that can have one together."""
    bases = {
        target: base
        for target, search in searches.items()
        if search.ask.mixes and (base := base_of(target, search.made, search.ask.budget, mixer)) is not None
    }
    for group in alike(bases):
        if len(group) > 1:
            proposal = mixer.propose(group, searches[next(iter(group))].ask.budget)
            if proposal is None or not proposal.feasible:
                text = f"no one mixture is forecast to meet the limits in {', '.join(group)}: each gets its own"
                sink(Event("choose", "note", text))
                for target, base in group.items():
                    _mix_for(mixer, {target: base}, searches, rounds)
                continue
        _mix_for(mixer, group, searches, rounds)


def _mix_for(mixer: Mixer, bases: Mapping[str, Candidate], searches: Mapping[str, _Search], rounds: int) -> None:
    """Propose, make real, and propose again: further inside the limits that a target's file missed, or with its room.

    Room is left where a mixture misses the drop alone and weighs less than was forecast: a gentler one may fit.
    """
    budget, wider = searches[next(iter(bases))].ask.budget, 0.0
    aims, most = budget, math.inf
    for _ in range(rounds):
        proposal = mixer.propose(bases, aims, wider)
        if proposal is None or not _new(proposal, searches) or _lost(proposal) > most:
            break
        plans = proposal.plans.items()
        over = [searches[target].mixed(plan, proposal.forecasts[target]) for target, plan in plans]
        if any(over):
            wider, most = wider + max(over), math.inf
        elif math.isfinite(_lost(proposal)) and (room := _with_room(proposal, searches, budget)) is not None:
            aims, wider, most = room, 0.0, _lost(proposal) * (1.0 - GENTLER)
        else:
            break


def _lost(proposal: Mixture) -> float:
    """Return the largest forecast error of a mixture's outputs in any target; NaN where none is forecast."""
    return max(told.relative_error for told in proposal.forecasts.values())


def _with_room(proposal: Mixture, searches: Mapping[str, _Search], budget: Budget) -> Budget | None:
    """Return limits for forecasts that are off as this mixture's were; None where a gentler one would not help or fit.

    It would help where the mixture misses the drop and nothing else, and fit where what was measured is inside the
    limits on bytes by more than the margin.
    """
    limits = {name: most for name, most in budget.limits().items() if name in ("size", "download")}
    ratios = dict.fromkeys(limits, 0.0)
    missed: set[str] = set()
    for target, plan in proposal.plans.items():
        made, told = searches[target].made[plan.digest], proposal.forecasts[target]
        if made.artifact is None or made.verdict == "failed":
            return None
        missed |= {check.limit for check in checks(made, budget) if not check.met}
        forecast = {"size": told.bytes, "download": told.download_bytes}
        for name, got in (("size", made.artifact.bytes), ("download", made.artifact.download_bytes)):
            if name in limits and got > limits[name] * (1.0 - BYTES_MARGIN):
                return None
            ratios |= {name: max(ratios[name], got / forecast[name])} if name in limits else {}
    if missed != {"drop"} or not limits:
        return None
    return replace(budget, **{name: math.floor(most / ratios[name]) for name, most in limits.items()})


def _new(proposal: Mixture, searches: Mapping[str, _Search]) -> bool:
    """Say whether a mixture is one, and not made yet: what leaves every layer in float compresses nothing."""
    unmade_ones = (plan.digest not in searches[target].made for target, plan in proposal.plans.items())
    return any(plan.layers for plan in proposal.plans.values()) and any(unmade_ones)


@dataclass
class _Search:
    """One target's search.

    Attributes:
        ask: what it may try.
        evaluate, sink: as ``best``.
        known: digest -> candidate of all that was made real, in this round or an earlier one.
        made: digest -> candidate of this round, those that were not made real among them.
        agreed: digests of what was confirmed.
        label: of the lines that tell of its candidates, where other targets have lines too.
    """

    ask: Ask
    evaluate: Callable[[Plan], Candidate]
    sink: Sink
    known: dict[str, Candidate] = field(default_factory=dict)
    made: dict[str, Candidate] = field(default_factory=dict)
    agreed: set[str] = field(default_factory=set)
    label: str = ""

    def uniform(self) -> None:
        """Begin a round: make real what somebody proposed; what is known is not made again."""
        ask = self.ask
        lost = {plan.digest: reason for plan, reason in ask.spares}
        plans = [*ask.proposals, *(plan for plan, _ in ask.spares), *ask.fallbacks]
        refused = {plan.digest: ask.hopeless(plan) for plan in plans}
        if plans and all(refused.values()):
            refused[min(plans, key=ask.overshoot).digest] = ""
        made = self.made = {}
        for index, plan in enumerate(plans):
            if plan.digest in made:
                continue
            reason, spare = refused[plan.digest], plan.digest in lost
            if index >= len(ask.proposals) and not spare and not _may_help(plan, made.values(), ask):
                continue
            if spare and not reason and not _all_failed(made.values()):
                made[plan.digest] = replace(_not_made(plan, lost[plan.digest]), extra=SPARED)
            else:
                made[plan.digest] = _not_made(plan, reason) if reason else self._real(plan, index, len(plans))

    def mixed(self, plan: Plan, forecast: Forecast) -> float:
        """Make a mixture real if it is worth it, and return by how much of a limit it is over what was forecast."""
        if reason := self.ask.hopeless(plan) or forecast.out_of_reach(self.ask.budget):
            self.made[plan.digest] = _not_made(plan, reason)
            return 0.0
        candidate = self._real(plan)
        self.made[plan.digest] = replace(candidate, extra={**candidate.extra, "forecast": vars(forecast)})
        missed = [one.overshoot for one in checks(candidate, self.ask.budget) if not one.met and _told(one, candidate)]
        return max((over for over in missed if math.isfinite(over)), default=0.0)

    def refuted(self, first: Candidate, confirm: Callable[[Candidate], Candidate]) -> bool:
        """Say whether a closer look at the first candidate finds it failed, or not as exact as it seemed."""
        if first.artifact is None or first.verdict == "failed" or first.plan.digest in self.agreed:
            return False
        again = confirm(first)
        if again.verdict != "failed" and exactness(again) == exactness(first):
            self.agreed.add(first.plan.digest)
            return False
        self.known[first.plan.digest] = again
        return True

    def _real(self, plan: Plan, done: int = 0, total: int = 0) -> Candidate:
        if plan.digest not in self.known:
            if total:
                text = f"{self.label}candidate {plan.origin or plan.id}"
                self.sink(Event("choose", "progress", text, done, total))
            self.known[plan.digest] = self.evaluate(plan)
        return self.known[plan.digest]


def _told(check: Check, candidate: Candidate) -> bool:
    """Say whether a missed limit tells how far off the forecast was.

    The drop was not forecast; and what a quarter of the timed pairs kept on a busy machine says nothing of the layers.
    """
    if check.limit.startswith("latency") and candidate.latency is not None:
        return candidate.latency.ratio_low * check.got > candidate.latency.ratio * check.allowed
    return check.limit != "drop"


def _all_failed(made: Iterable[Candidate]) -> bool:
    """Say whether a spare plan may help: all that was made failed, by what another plan of its kind may not share.

    They share their speed; and what failed two of them by the same words fails the others.
    """
    tried = [one for one in made if not unmade(one)]
    reasons = {one.reason for one in tried}
    return bool(tried) and len(reasons) == len(tried) and all(map(_broken, tried))


def _broken(candidate: Candidate) -> bool:
    errors = {finding.kind for finding in candidate.findings if finding.severity == "error"}
    return candidate.verdict == "failed" and errors != {"slower-than-float"}


def _may_help(plan: Plan, made: Iterable[Candidate], ask: Ask) -> bool:
    """Say whether a gentler plan may meet what nothing made so far meets.

    It cannot where one meets the budget. Where one keeps the drop and misses by bytes or time, losing less is of no
    use; only if integers are no faster than float (the quartiles reach 1) may a plan help that computes in float.
    Where all that was made takes more bytes times latency than the float file, that file is better in all.
    """
    made = list(made)
    costs = [cost(one) for one in made if _able(one)]
    if not plan.layers and ask.float_bytes and costs and min(costs) > ask.float_bytes:
        return True
    for one in made:
        missed = {check.limit for check in checks(one, ask.budget) if not check.met}
        if one.verdict == "failed" or unmade(one) or "drop" in missed:
            continue
        if not missed or (one.latency is not None and one.latency.ratio_high < 1.0):
            return False
        if computes_integers(one.plan) and computes_integers(plan):
            return False
    return True


def _able(candidate: Candidate) -> bool:
    return candidate.verdict != "failed" and candidate.artifact is not None and candidate.latency is not None


def _not_made(plan: Plan, reason: str) -> Candidate:
    return Candidate(plan, None, None, None, None, None, None, verdict="missed", reason=f"not made: {reason}")
