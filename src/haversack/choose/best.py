"""The loop: uniform plans are made real, the knapsack mixes layers, measurement corrects the forecast, solve again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.graph import Graph
from haversack.base.plan import PRECISIONS, STATIC, WEIGHT_BITS, Plan, Precision
from haversack.base.profile import Profile
from haversack.base.progress import Event, Sink, silent
from haversack.choose import knapsack
from haversack.choose.forecast import COMPUTING, computes_integers
from haversack.choose.options import BYTES_PER_WEIGHT, Option, borders, options
from haversack.choose.verdict import amount, checks, exactness, judged, ranked, unmade

ROUNDS = 3
MARGIN = 0.01
"""The knapsack aims this far inside a limit; each miss by measurement widens it."""
REACH = 1.25
"""A mixture whose forecast latency is over the limit by more than this factor is not made real."""
MIXED = "knapsack over layers"
"""The origin of a plan that the knapsack mixed."""
_INTEGERS = 8
SPARED: Mapping[str, object] = {"spared": True}
"""What a candidate's ``extra`` says of a spare plan that was not needed: no limit kept it from being made."""


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
        precisions: what the target can do.
    """

    graph: Graph
    profile: Profile
    target: str
    weight_elements: Mapping[str, int]
    precisions: tuple[Precision, ...] = PRECISIONS

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
        solve = partial(
            knapsack.solve,
            max_bytes=min((size * keep - fixed_bytes for size in sizes if size is not None), default=None),
            max_seconds=min(
                (ratio * keep * total - fixed_seconds for ratio in ratios if ratio is not None), default=None
            ),
            borders=borders(self.graph, list(items)),
        )
        found = solve(_whole(items))
        if not found.feasible or list(found.chosen.values()) == uniform:
            found = solve(items)
        layers = {key: option.plan for key, option in found.chosen.items() if option.plan.precision != "float32"}
        predicted = sum(option.loss for option in uniform)
        scale = base.parity.relative_error / predicted**0.5 if predicted else 1.0
        size, ratio = found.bytes + fixed_bytes, (found.seconds + fixed_seconds) / total
        milliseconds = ratio * base.latency.float_median_ms if base.latency.float_median_ms else math.nan
        forecast = Forecast(size, ratio, scale * found.loss**0.5, size * shrink, milliseconds)
        return replace(base.plan, layers=layers, origin=MIXED), forecast

    def expect(self, plan: Plan, measured: Candidate | None) -> Forecast:
        """Return what is expected of a uniform plan that was not made.

        Args:
            plan: what computes in float is expected to take float's time.
            measured: whose file says what is no weight, and how integers of its kind run; None where there is none.
        """
        computing = {layer.precision for layer in plan.layers.values() if layer.precision in COMPUTING}
        ratio, milliseconds = math.nan if computing else 1.0, math.nan
        size, shrink = self._bytes(plan), 1.0
        if measured is not None and measured.artifact is not None and measured.latency is not None:
            size += measured.artifact.bytes - self._bytes(measured.plan)
            shrink = measured.artifact.download_bytes / measured.artifact.bytes
            if computing and computing <= {layer.precision for layer in measured.plan.layers.values()}:
                ratio = measured.latency.ratio
            milliseconds = ratio * measured.latency.float_median_ms if measured.latency.float_median_ms else math.nan
        error = math.nan if plan.layers else 0.0
        return Forecast(size, ratio, error, size * shrink, milliseconds)

    def _bytes(self, plan: Plan) -> float:
        kinds = {key: layer.precision for key, layer in plan.layers.items()}
        elements = self.weight_elements.items()
        return sum(count * BYTES_PER_WEIGHT[kinds.get(key, "float32")] for key, count in elements)

    def _items(self, base: Candidate, ratio: float) -> tuple[dict[str, tuple[Option, ...]], list[Option]]:
        """Return the options of every layer, and those that the measured candidate itself took."""
        speed: dict[Precision, float] = {plan.precision: ratio for plan in base.plan.layers.values()}
        if STATIC & speed.keys():  # the same kernels, whatever the width of the weights
            speed |= dict.fromkeys(STATIC, ratio)
        items = options(
            self.graph,
            self.profile,
            self.target,
            base.plan.layers,
            weight_elements=self.weight_elements,
            speed=speed,
            precisions=self.precisions,
        )
        return items, [found[0] for found in items.values()]


def _whole(items: Mapping[str, tuple[Option, ...]]) -> dict[str, tuple[Option, ...]]:
    """Return the options that keep integers with fixed scales wherever a layer has them: their bits can be proven.

    A float layer among integer ones costs that, so it is no option where a new mixture of integers alone fits.
    """
    return {
        key: tuple(option for option in found if option.plan.precision in STATIC) or found
        for key, found in items.items()
    }


def _as_ratio(milliseconds: float | None, base: Candidate) -> float | None:
    if milliseconds is None or base.latency is None or not base.latency.float_median_ms:
        return None
    return milliseconds / base.latency.float_median_ms


def best(
    proposals: Sequence[Plan],
    budget: Budget,
    evaluate: Callable[[Plan], Candidate],
    *,
    spares: Sequence[tuple[Plan, str]] = (),
    fallbacks: Sequence[Plan] = (),
    mixer: Mixer | None = None,
    rounds: int = ROUNDS,
    hopeless: Callable[[Plan], str] | None = None,
    overshoot: Callable[[Plan], float] | None = None,
    confirm: Callable[[Candidate], Candidate] | None = None,
    sink: Sink = silent,
) -> list[Candidate]:
    """Return a candidate for every plan that was considered, best first, each with verdict and reason.

    Args:
        proposals: uniform plans of one target, made real first, in order; the most promising one comes first.
        budget: the limits.
        evaluate: makes a plan real and measures it; a failure is a candidate with the verdict ``failed``.
        spares: plans much like the proposals, each with the reason why it is not made; one is made real, in order,
            only while all that was made failed.
        fallbacks: gentler uniform plans that are made real, in order, while they may help: nothing made before meets
            the budget, and what misses it fails or loses too much; or it is no faster than float, and the plan
            computes in float.
        mixer: proposes mixed plans, or None to stop after the proposals.
        rounds: how many mixed plans are made real at most.
        hopeless: says why a plan cannot meet the budget, or returns an empty string; such a plan is not made real.
            If all plans are hopeless, one is made all the same: a best effort is owed.
        overshoot: by how much a hopeless plan is forecast to miss its limits, as fractions of them: the least is made
            where all are hopeless; without it the first.
        confirm: looks at the first candidate more closely; where it fails it, or finds that it does not equal the
            reference after all, the search goes on with that known.
        sink: told about each candidate that is made.
    """
    search = _Search(
        proposals, budget, evaluate, spares, fallbacks, mixer, rounds, hopeless or _hopeful, overshoot or _alike, sink
    )
    while True:
        found = judged(search.candidates(), budget)
        first = found[0] if found else None
        if confirm is None or first is None or first.artifact is None or first.verdict == "failed":
            return found
        again = confirm(first)
        if again.verdict != "failed" and exactness(again) == exactness(first):
            return found
        search.known[first.plan.digest] = again


@dataclass(frozen=True)
class _Search:
    """What ``best`` was asked, and what is known of plans by now: digest -> candidate."""

    proposals: Sequence[Plan]
    budget: Budget
    evaluate: Callable[[Plan], Candidate]
    spares: Sequence[tuple[Plan, str]]
    fallbacks: Sequence[Plan]
    mixer: Mixer | None
    rounds: int
    hopeless: Callable[[Plan], str]
    overshoot: Callable[[Plan], float]
    sink: Sink
    known: dict[str, Candidate] = field(default_factory=dict)

    def candidates(self) -> list[Candidate]:
        """Return what one search gives; what is known is not made again."""
        made = self._uniform()
        margin = MARGIN
        for _ in range(self.rounds if self.mixer is not None else 0):
            proposal = _mixed(self.mixer, made, self.budget, margin)
            if proposal is None:
                break
            plan, forecast = proposal
            if reason := self.hopeless(plan) or _out_of_reach(forecast, self.budget):
                made[plan.digest] = _not_made(plan, reason)
                break
            candidate = self._real(plan)
            made[plan.digest] = replace(candidate, extra={**candidate.extra, "forecast": vars(forecast)})
            missed = [one for one in checks(candidate, self.budget) if not one.met and one.limit != "drop"]
            if not missed:
                break
            margin += max((one.overshoot for one in missed if math.isfinite(one.overshoot)), default=0.0)
        return list(made.values())

    def _uniform(self) -> dict[str, Candidate]:
        """Return digest -> candidate of the plans that somebody proposed."""
        lost = {plan.digest: reason for plan, reason in self.spares}
        plans = [*self.proposals, *(plan for plan, _ in self.spares), *self.fallbacks]
        refused = {plan.digest: self.hopeless(plan) for plan in plans}
        if plans and all(refused.values()):
            refused[min(plans, key=self.overshoot).digest] = ""
        made: dict[str, Candidate] = {}
        for index, plan in enumerate(plans):
            if plan.digest in made:
                continue
            reason, spare = refused[plan.digest], plan.digest in lost
            if index >= len(self.proposals) and not spare and not _may_help(plan, made.values(), self.budget):
                continue
            if spare and not reason and not _all_failed(made.values()):
                made[plan.digest] = replace(_not_made(plan, lost[plan.digest]), extra=SPARED)
            else:
                made[plan.digest] = _not_made(plan, reason) if reason else self._real(plan, index, len(plans))
        return made

    def _real(self, plan: Plan, done: int = 0, total: int = 0) -> Candidate:
        if plan.digest not in self.known:
            if total:
                self.sink(Event("choose", "progress", f"candidate {plan.origin or plan.id}", done, total))
            self.known[plan.digest] = self.evaluate(plan)
        return self.known[plan.digest]


def _hopeful(_: Plan) -> str:
    return ""


def _alike(_: Plan) -> float:
    return 0.0


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


def _may_help(plan: Plan, made: Iterable[Candidate], budget: Budget) -> bool:
    """Say whether a gentler plan may meet what nothing made so far meets.

    It cannot where one meets the budget. Where one keeps the drop and misses by bytes or time, losing less is of no
    use; only if integers are no faster than float (the quartiles reach 1) may a plan help that computes in float.
    """
    for one in made:
        missed = {check.limit for check in checks(one, budget) if not check.met}
        if one.verdict == "failed" or unmade(one) or "drop" in missed:
            continue
        if not missed or (one.latency is not None and one.latency.ratio_high < 1.0):
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
    """Return a new mixed plan around the best integer candidate, or None when there is nothing new to try.

    A mixture that leaves every layer in float is no mixture: it compresses nothing.
    """
    uniform = [one for one in made.values() if one.verdict != "failed" and _cheapens(one) and one.plan.origin != MIXED]
    if mixer is None or not uniform or set(budget.limits()) <= {"drop", "memory"}:
        return None
    proposal = mixer.propose(ranked(uniform, budget)[0], budget, margin)
    return None if proposal is None or not proposal[0].layers or proposal[0].digest in made else proposal


def _cheapens(candidate: Candidate) -> bool:
    integers = any(WEIGHT_BITS[plan.precision] <= _INTEGERS for plan in candidate.plan.layers.values())
    return candidate.artifact is not None and integers
