"""Mixtures: the knapsack gives each layer its own option, and runtimes that share encodings the same ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from haversack.base.budget import Budget
from haversack.base.candidate import Artifact, Candidate, Latency, Parity
from haversack.base.graph import Graph
from haversack.base.plan import STATIC, WEIGHT_BITS, LayerPlan, Plan, Precision
from haversack.base.profile import Profile
from haversack.base.scope import Scope
from haversack.choose import knapsack
from haversack.choose.forecast import COMPUTING
from haversack.choose.knapsack import Limit
from haversack.choose.options import AT_RUN_TIME, Option, borders, options, stored_bits, stored_times, unpacking
from haversack.choose.verdict import amount, checks, exactness, ranked
from haversack.tools.graph import tied
from haversack.tools.graph.tied import Stores

BYTES_MARGIN, TIME_MARGIN = 0.002, 0.01
"""The knapsack aims this far inside a limit; each miss by measurement widens it. Bytes of real networks' mixtures were
forecast to within .13 %."""
REACH = 1.25
"""A mixture whose forecast latency is over the limit by more than this factor is not made real."""
MIXED = "knapsack over layers"
"""The origin of a plan that the knapsack mixed."""
SLOWER = frozenset({"w4_grouped", "palette"})
"""Precisions that save bytes where 8 bits are too many, and cost time."""
_INTEGERS = 8


@dataclass(frozen=True)
class Forecast:
    """What the knapsack expected of a plan before it was made: kept to be held against the measurement.

    Attributes:
        bytes, download_bytes: of all files.
        latency_ratio, latency_ms: against the same runtime's float artefact, and in milliseconds; NaN without its time.
        relative_error: of the outputs; NaN where nobody measured what the layers lose: they would seem to lose nothing.
    """

    bytes: float
    latency_ratio: float
    relative_error: float
    download_bytes: float = math.nan
    latency_ms: float = math.nan

    def out_of_reach(self, budget: Budget) -> str:
        """Say why a mixture is not worth making, or nothing where it is.

        The knapsack minimises what is over a limit that nothing meets. What is far over it even so meets nothing when
        it is made; the uniform plan that was measured is the best effort then.
        """
        limits = budget.limits()
        for name, value in (("latency_ratio", self.latency_ratio), ("latency_ms", self.latency_ms)):
            if name in limits and value > limits[name] * REACH:
                return f"forecast latency {amount(name, value)} is over the allowed {amount(name, limits[name])}"
        return ""


MARGINS: Mapping[str, float] = {
    "size": 0.02,
    "download": 0.05,
    "latency_ratio": 0.15,
    "latency_ms": 0.15,
    "relative_error": 1.0,
}
"""By which fraction of itself a forecast may be off: losses of layers do not simply add up, bytes nearly do."""


def margins(candidates: Iterable[Candidate]) -> dict[str, float]:
    """Return figure -> the stated margin of a forecast, widened where a mixture of the same run was further off.

    Args:
        candidates: of a run; those that were forecast and then measured count.
    """
    found = dict(MARGINS)
    for one in candidates:
        told = one.extra.get("forecast")
        figures = _measured(one)
        if not isinstance(told, Mapping) or figures is None:
            continue
        truth = {
            "size": (told.get("bytes"), figures.artifact.bytes),
            "download": (told.get("download_bytes"), figures.artifact.download_bytes),
            "latency_ratio": (told.get("latency_ratio"), figures.latency.ratio),
            "relative_error": (told.get("relative_error"), figures.parity.ranking_error),
        }
        for name, (forecast, measured) in truth.items():
            if forecast and math.isfinite(forecast) and math.isfinite(measured):
                found[name] = max(found[name], abs(measured / forecast - 1.0))
    return {**found, "latency_ms": max(found["latency_ms"], found["latency_ratio"])}


@dataclass(frozen=True)
class Mixture:
    """One choice for the layers of all targets: target -> its plan, and what is forecast of it.

    ``feasible`` says whether the forecasts meet what the knapsack was held to.
    """

    plans: Mapping[str, Plan]
    forecasts: Mapping[str, Forecast]
    feasible: bool


@dataclass(frozen=True)
class Mixer:
    """Knows what layers cost in each target, calibrated on measured uniform candidates.

    Attributes:
        graph: the prepared model's graph.
        profile: measured seconds, sensitivities, and bits of a weight as a download.
        weight_elements: node key -> number of weight elements.
        precisions: target -> what it can do.
        scope: what the user allows of plans.
        ratios: target -> precision or kind of a layer -> latency against float's that was measured of such layers.
        stores: target -> how often its files hold a weight that several layers read; once where nothing is said.
    """

    graph: Graph
    profile: Profile
    weight_elements: Mapping[str, int]
    precisions: Mapping[str, Sequence[Precision]]
    scope: Scope = field(default_factory=Scope)
    ratios: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    stores: Mapping[str, Stores] = field(default_factory=dict)

    def knowing(self, candidates: Iterable[Candidate]) -> Mixer:
        """Return one that knows how fast 4-bit weights in groups ran, and 8-bit ones, in uniform plans.

        Args:
            candidates: of all targets; those that were measured count, of two plans with a kind the better one.
        """
        found: dict[str, dict[str, float]] = {}
        for one in candidates:
            figures = _measured(one)
            if figures is None or one.plan.origin == MIXED:
                continue
            held = one.plan.layers.values()
            kinds = {layer.kind for layer in held if layer.precision == "w4_grouped"}
            kinds = kinds or {layer.kind for layer in held if layer.precision == "int8_dynamic"}
            known, ratio = found.setdefault(one.plan.target, {}), figures.latency.ratio
            known |= {kind: min(ratio, known.get(kind, ratio)) for kind in kinds}
        return replace(self, ratios=found)

    def propose(self, bases: Mapping[str, Candidate], budget: Budget, wider: float = 0.0) -> Mixture | None:
        """Return the choice with the least forecast loss under the budget in every target.

        None where a candidate lacks figures.

        Args:
            bases: target -> a measured candidate; all have the same layers, which are the first of the options.
            budget: limits on size, download and latency bind the knapsack; drop and memory are only measured.
            wider: fraction of each limit that is kept free, more than the margins.
        """
        known = {target: figures for target, one in bases.items() if (figures := _measured(one)) is not None}
        if not bases or len(known) < len(bases):
            return None
        items = self._items(bases, known, light=budget.download is not None)
        uniform = [found[0] for found in items.values()]
        fixed = {target: self._fixed(target, one, uniform) for target, one in known.items()}
        limits = [limit for target in bases for limit in fixed[target].limits(budget, wider)]
        edges = borders(self.graph, list(items))
        fast = _as_fast(items)
        found = knapsack.solve(_whole(fast), limits, borders=edges)
        unchanged = found.feasible and list(found.chosen.values()) == uniform
        if not found.feasible or (unchanged and not all(settled(one, budget) for one in bases.values())):
            found = knapsack.solve(fast, limits, borders=edges)
            found = found if found.feasible else knapsack.solve(items, limits, borders=edges)
        chosen = {key: plan for option in found.chosen.values() for key, plan in option.layers.items()}
        layers = {key: plan for key, plan in chosen.items() if plan.precision != "float32"}
        expected = sum(option.loss for option in uniform)
        plans = {target: replace(one.plan, layers=layers, origin=MIXED) for target, one in bases.items()}
        forecasts = {target: one.forecast(found, expected) for target, one in fixed.items()}
        return Mixture(plans, forecasts, found.feasible)

    def expect(self, target: str, plan: Plan, measured: Candidate | None) -> Forecast:
        """Return what is expected of a uniform plan that was not made.

        Args:
            target: the plan's.
            plan: what computes in float is expected to take float's time.
            measured: whose file says what is no weight, and how integers of its kind run; None where there is none.
        """
        computing = {layer.precision for layer in plan.layers.values() if layer.precision in COMPUTING}
        ratio, milliseconds = math.nan if computing else 1.0, math.nan
        size, shrink = self._bytes(plan), 1.0
        if measured is not None and measured.artifact is not None and measured.latency is not None:
            assert measured.plan.target == target, "a file of another target says nothing of this one's"
            size += measured.artifact.bytes - self._bytes(measured.plan)
            shrink = measured.artifact.download_bytes / measured.artifact.bytes
            if computing and computing <= {layer.precision for layer in measured.plan.layers.values()}:
                ratio = measured.latency.ratio
            milliseconds = ratio * measured.latency.float_median_ms if measured.latency.float_median_ms else math.nan
        error = math.nan if plan.layers else 0.0
        return Forecast(size, ratio, error, size * shrink, milliseconds)

    def _bytes(self, plan: Plan) -> float:
        size, shared = 0.0, dict[str, float]()
        for key, calls in tied.calls(self.graph, self.weight_elements).items():
            count = self.weight_elements.get(key, 0)
            held = {node.key: plan.layers.get(node.key, LayerPlan("float32")) for node in calls}
            needs, (use, _) = unpacking(held[key], calls[0], count)
            times = stored_times(calls, held, self.stores.get(plan.target, "weight"))
            size += times * (count * stored_bits(held[key], calls[0]) / 8 + use)
            shared |= {needs.name: needs.bytes} if needs else {}
        return size + sum(shared.values())

    def _items(
        self, bases: Mapping[str, Candidate], known: Mapping[str, _Measured], *, light: bool
    ) -> dict[str, tuple[Option, ...]]:
        """Return the options of every layer that all targets have; the first is what the measured candidates took."""
        speed = {
            target: _speed(one.plan, known[target].latency.ratio, self.ratios.get(target, {}))
            for target, one in bases.items()
        }
        return options(
            self.graph,
            self.profile,
            next(iter(bases.values())).plan.layers,
            weight_elements=self.weight_elements,
            speed=speed,
            precisions=frozenset.intersection(*(frozenset(self.precisions[target]) for target in bases)),
            packing=max(one.artifact.download_bytes / one.artifact.bytes for one in known.values()),
            light=light,
            scope=self.scope,
            stores=self.stores,
        )

    def _fixed(self, target: str, measured: _Measured, uniform: Sequence[Option]) -> _Fixed:
        """Return what a target's file has beyond the weights of its layers, by the file that was measured."""
        artifact, total = measured.artifact, sum(self.profile.seconds.get(target, {}).values()) or 1.0
        size, download = knapsack.weighed(uniform, target)
        return _Fixed(
            target,
            measured,
            artifact.bytes - size,
            artifact.download_bytes - download,
            measured.latency.ratio * total - sum(option.seconds.get(target, 0.0) for option in uniform),
            total,
        )


@dataclass(frozen=True)
class _Measured:
    """What mixing needs of a candidate."""

    artifact: Artifact
    latency: Latency
    parity: Parity


@dataclass(frozen=True)
class _Fixed:
    """A target's bytes, download bytes and seconds that no choice of options changes, and float's whole seconds."""

    target: str
    measured: _Measured
    bytes: float
    download: float
    seconds: float
    total: float

    def limits(self, budget: Budget, wider: float) -> Iterator[Limit]:
        """Yield what a budget leaves for the options, without the margins and what is kept free beside them."""
        bytes_kept, time_kept = 1.0 - BYTES_MARGIN - wider, 1.0 - TIME_MARGIN - wider
        if budget.size is not None:
            yield Limit("bytes", budget.size * bytes_kept - self.bytes, self.target)
        if budget.download is not None:
            yield Limit("download", budget.download * bytes_kept - self.download, self.target)
        full = self.measured.latency.float_median_ms
        in_time = budget.latency_ms / full if budget.latency_ms is not None and full else None
        for ratio in (budget.latency_ratio, in_time):
            if ratio is not None:
                yield Limit("seconds", ratio * time_kept * self.total - self.seconds, self.target)

    def forecast(self, found: knapsack.Solution, expected: float) -> Forecast:
        """Return what is expected of a choice; ``expected`` is the forecast loss of the file that was measured."""
        ratio = (found.seconds(self.target) + self.seconds) / self.total
        full = self.measured.latency.float_median_ms
        scale = self.measured.parity.ranking_error / expected**0.5 if expected else math.nan
        size, download = knapsack.weighed(found.chosen.values(), self.target)
        return Forecast(
            size + self.bytes,
            ratio,
            scale * found.loss**0.5,
            download + self.download,
            ratio * full if full else math.nan,
        )


def alike(bases: Mapping[str, Candidate]) -> list[dict[str, Candidate]]:
    """Return measured candidates by what they have in common: one plan but for its target, so one set of encodings."""
    groups: dict[str, dict[str, Candidate]] = {}
    for target, one in bases.items():
        groups.setdefault(one.plan.shared_digest, {})[target] = one
    return list(groups.values())


def base_of(target: str, made: Mapping[str, Candidate], budget: Budget, mixer: Mixer) -> Candidate | None:
    """Return the uniform candidate with integers that a target's mixtures are made of.

    It is the best one around which a new mixture is forecast to meet the limits, or else the best one. None where there
    is none, no limit that mixing changes, or nothing that would come before the best one.
    """
    uniform = [one for one in made.values() if one.verdict != "failed" and _cheapens(one) and one.plan.origin != MIXED]
    if not uniform or set(budget.limits()) <= {"drop", "memory"}:
        return None
    order = ranked(uniform, budget)
    for base in order:
        found = mixer.propose({target: base}, budget)
        if found is None or not found.feasible:
            continue
        if found.plans[target].digest not in made:
            return base
        if base is order[0] and settled(base, budget):
            return None
    return order[0]


def settled(candidate: Candidate, budget: Budget) -> bool:
    """Say whether a candidate meets every limit with the reference's bits: layers in float would cost it these.

    What gives the reference's bits comes first of all that meets the limits (``verdict.ranked``), so that a mixture of
    integers and floats would be made and measured for nothing.
    """
    return exactness(candidate) == "equal" and all(check.met for check in checks(candidate, budget))


def _cheapens(candidate: Candidate) -> bool:
    integers = any(WEIGHT_BITS[plan.precision] <= _INTEGERS for plan in candidate.plan.layers.values())
    return candidate.artifact is not None and integers


def _measured(one: Candidate) -> _Measured | None:
    if one.artifact is None or one.latency is None or one.parity is None:
        return None
    return _Measured(one.artifact, one.latency, one.parity)


def _speed(plan: Plan, ratio: float, measured: Mapping[str, float]) -> dict[str, float]:
    """Return precision or kind -> latency against float's, as a uniform candidate has it.

    Where activations are quantized at run time, weights of 4 bits take what those of 8 do unless both were measured.
    """
    speed: dict[str, float] = {layer.precision: ratio for layer in plan.layers.values()}
    if speed.keys() & {*AT_RUN_TIME}:
        speed |= dict.fromkeys(AT_RUN_TIME, measured.get("int8_dynamic", ratio))
        speed |= measured
    if STATIC & speed.keys():  # the same kernels, whatever the width of the weights
        speed |= dict.fromkeys(STATIC, ratio)
    return speed


def _as_fast(items: Mapping[str, tuple[Option, ...]]) -> dict[str, tuple[Option, ...]]:
    """Return the options without those that save bytes and cost time, but for layers that begin so.

    Those are 4-bit weights in groups, and palettes, which compute in float. Where the limits are met without them, the
    time that the limits leave would be spent on nothing that was asked for.
    """
    return {
        key: found
        if found[0].plan.precision in SLOWER
        else tuple(one for one in found if one.plan.precision not in SLOWER)
        for key, found in items.items()
    }


def _whole(items: Mapping[str, tuple[Option, ...]]) -> dict[str, tuple[Option, ...]]:
    """Return the options that keep integers with fixed scales wherever a layer has them: their bits can be proven.

    A float layer among integer ones costs that, so it is no option where a new mixture of integers alone fits.
    """
    return {
        key: tuple(option for option in found if option.plan.precision in STATIC) or found
        for key, found in items.items()
    }
