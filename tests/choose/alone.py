"""Asking the knapsack and the search for one target alone, in the fewest words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.plan import LayerPlan, Plan
from haversack.choose import best as search
from haversack.choose import knapsack
from haversack.choose import resolve as resolution
from haversack.choose.knapsack import Limit, Solution
from haversack.choose.mixing import Forecast, Mixer
from haversack.choose.options import Border, Once, Option
from haversack.choose.resolve import Resolution

HERE = "onnxruntime"


def option(
    layer: str,
    precision: str = "int8",
    size: float = 0.0,
    seconds: float = 0.0,
    loss: float = 0.0,
    *,
    download: float = 0.0,
    needs: Once | None = None,
) -> Option:
    return Option(layer, LayerPlan(precision), size, download, {HERE: seconds}, loss, needs)


def solve(
    layers: Mapping[str, Sequence[Option]],
    *,
    max_bytes: float | None = None,
    max_seconds: float | None = None,
    max_download: float | None = None,
    borders: Sequence[Border] = (),
) -> Solution:
    limits = [Limit("bytes", max_bytes)] if max_bytes is not None else []
    limits += [Limit("download", max_download)] if max_download is not None else []
    limits += [Limit("seconds", max_seconds, HERE)] if max_seconds is not None else []
    return knapsack.solve(layers, limits, borders=borders)


def best(
    proposals: Sequence[Plan], budget: Budget, evaluate, *, mixer=None, rounds=search.ROUNDS, confirm=None, **asked
):
    """Return the candidates of one target; ``asked`` are fields of ``Ask``, ``sink`` among them goes to the search."""
    sink = {"sink": asked.pop("sink")} if "sink" in asked else {}
    ask = search.Ask(proposals, budget, **asked)
    return search.best({HERE: ask}, evaluate, mixer=mixer, rounds=rounds, confirm=confirm, **sink)[HERE]


def propose(mixer: Mixer, base: Candidate, budget: Budget, wider: float = 0.0) -> tuple[Plan, Forecast] | None:
    made = mixer.propose({base.plan.target: base}, budget, wider)
    return None if made is None else (made.plans[base.plan.target], made.forecasts[base.plan.target])


def resolve(candidates: Sequence[Candidate], budget: Budget, mixer: Mixer) -> Resolution:
    (answer,) = resolution.resolve(candidates, budget, mixer).values()
    return answer
