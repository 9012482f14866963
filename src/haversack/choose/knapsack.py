"""The multiple-choice knapsack: one option a layer, least forecast loss under all limits at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from haversack.choose.options import INTEGER_KERNELS, Border, Once, Option

TIME_LIMIT_SECONDS = 10.0
RELATIVE_GAP = 1e-4
OVERSHOOT_PRICE = 1e4
"""Where no choice meets all limits: what exceeding one by its whole costs, against the largest loss of a layer."""


@dataclass(frozen=True)
class Limit:
    """A limit on a sum over the options that are chosen.

    Attributes:
        what: ``bytes``, ``download`` or ``seconds``, as ``Option`` has them.
        most: the largest sum that meets it.
        target: whose seconds, and whose files; files that hold each weight once where it is empty.
    """

    what: Literal["bytes", "download", "seconds"]
    most: float
    target: str = ""

    def of(self, one: Option | Once) -> float:
        """Return what an option adds to the sum, or what several need together."""
        if self.what == "seconds":
            return one.seconds.get(self.target, 0.0) if isinstance(one, Option) else 0.0
        held = one.bytes if self.what == "bytes" else one.download
        return held * one.times.get(self.target, 1.0) if isinstance(one, Option) else held


@dataclass(frozen=True)
class Solution:
    """One option for each layer; ``feasible`` is False when no choice meets all limits (then the nearest is given).

    ``bytes``, ``download``, ``crossed`` (seconds lost at borders) and ``loss`` are the sums of what was chosen; what
    several options need together counts once. They are forecasts, not measurements.
    """

    chosen: Mapping[str, Option]
    feasible: bool
    bytes: float
    download: float
    crossed: float
    loss: float

    def seconds(self, target: str) -> float:
        """Return the sum of a target's seconds, borders included."""
        return sum(option.seconds.get(target, 0.0) for option in self.chosen.values()) + self.crossed


def solve(
    options: Mapping[str, Sequence[Option]], limits: Sequence[Limit] = (), *, borders: Sequence[Border] = ()
) -> Solution:
    """Solve with HiGHS (``scipy.optimize.milp``).

    Args:
        options: layer -> at least one option.
        limits: on sums; one for each target's seconds, where several runtimes get the same choice.
        borders: costs in seconds where integer and float layers meet.

    Raises:
        ValueError: a layer without options.
    """
    if empty := [layer for layer, found in options.items() if not found]:
        message = f"layers without an option: {', '.join(empty)}"
        raise ValueError(message)
    if not options:
        return Solution({}, feasible=True, bytes=0.0, download=0.0, crossed=0.0, loss=0.0)
    chosen = _milp(options, limits, borders, slack=False)
    feasible = chosen is not None
    if chosen is None:
        chosen = _milp(options, limits, borders, slack=True)
    if chosen is None:  # the relaxed problem always has a solution; only the time limit can end here
        chosen = {layer: min(found, key=lambda option: option.bytes) for layer, found in options.items()}
    size, download = weighed(chosen.values())
    loss = sum(option.loss for option in chosen.values())
    return Solution(chosen, feasible, size, download, _crossed(chosen, borders), loss)


def weighed(chosen: Iterable[Option], target: str = "") -> tuple[float, float]:
    """Return the bytes of options in a target's files, and these as a download; what several need counts once."""
    taken = list(chosen)
    parts: list[Option | Once] = [*taken, *_shared(taken)]
    size, download = Limit("bytes", 0.0, target), Limit("download", 0.0, target)
    return sum(map(size.of, parts)), sum(map(download.of, parts))


def _shared(options: Iterable[Option]) -> list[Once]:
    """Return what options need, each once, in order."""
    return list(dict.fromkeys(option.needs for option in options if option.needs is not None))


def _milp(
    options: Mapping[str, Sequence[Option]],
    limits: Sequence[Limit],
    borders: Sequence[Border],
    *,
    slack: bool,
) -> dict[str, Option] | None:
    """Return the choice, or None; with ``slack`` each limit may be exceeded at a price far above all losses."""
    from scipy.optimize import Bounds, milp

    flat = [option for found in options.values() for option in found]
    crossing = [border for border in borders if border.first in options and border.second in options]
    shared = _shared(flat) if any(limit.what != "seconds" for limit in limits) else []
    count = len(flat) + len(crossing) + len(shared) + len(limits)
    scale = max(option.loss for option in flat) or 1.0
    objective = np.zeros(count)
    objective[: len(flat)] = [option.loss / scale for option in flat]
    upper = np.ones(count)
    slacks = slice(count - len(limits), count)
    objective[slacks], upper[slacks] = (len(options) * OVERSHOOT_PRICE, np.inf) if slack else (0.0, 0.0)
    rows = [*_one_each(options, flat), *_crossings(options, flat, crossing)]
    rows += _needs(options, flat, shared, len(flat) + len(crossing))
    rows += _limits(limits, flat, crossing, shared)
    result = milp(
        objective,
        constraints=_matrix(rows, count),
        bounds=Bounds(np.zeros(count), upper),
        integrality=np.concatenate([np.ones(len(flat)), np.zeros(count - len(flat))]),
        options={"time_limit": TIME_LIMIT_SECONDS, "mip_rel_gap": RELATIVE_GAP},
    )
    if result.x is None:
        return None
    weight = {id(option): float(value) for option, value in zip(flat, result.x, strict=False)}
    return {layer: max(found, key=lambda option: weight[id(option)]) for layer, found in options.items()}


@dataclass(frozen=True)
class _Row:
    """low <= sum of factor * variable <= high."""

    factors: Mapping[int, float]
    low: float
    high: float


def _one_each(options: Mapping[str, Sequence[Option]], flat: Sequence[Option]) -> list[_Row]:
    columns = {id(option): index for index, option in enumerate(flat)}
    return [_Row({columns[id(option)]: 1.0 for option in found}, 1.0, 1.0) for found in options.values()]


def _crossings(
    options: Mapping[str, Sequence[Option]], flat: Sequence[Option], crossing: Sequence[Border]
) -> list[_Row]:
    """A border's variable is at least |integer(first) - integer(second)|."""
    columns = {id(option): index for index, option in enumerate(flat)}
    rows = []
    for index, border in enumerate(crossing, len(flat)):
        for sign in (1.0, -1.0):
            factors = {columns[id(option)]: sign for option in options[border.first] if _integer(option)}
            factors |= {columns[id(option)]: -sign for option in options[border.second] if _integer(option)}
            rows.append(_Row({**factors, index: -1.0}, -np.inf, 0.0))
    return rows


def _needs(
    options: Mapping[str, Sequence[Option]], flat: Sequence[Option], shared: Sequence[Once], first: int
) -> list[_Row]:
    """What several need together has a variable, at least as large as each layer's options that need it."""
    columns = {id(option): index for index, option in enumerate(flat)}
    rows = []
    for index, one in enumerate(shared, first):
        for found in options.values():
            if needing := {columns[id(option)]: 1.0 for option in found if option.needs == one}:
                rows.append(_Row({**needing, index: -1.0}, -np.inf, 0.0))
    return rows


def _limits(
    limits: Sequence[Limit], flat: Sequence[Option], crossing: Sequence[Border], shared: Sequence[Once]
) -> list[_Row]:
    """Each limit in units of itself, less its slack variable."""
    rows = []
    for slack, limit in enumerate(limits, len(flat) + len(crossing) + len(shared)):
        costs = [limit.of(option) for option in flat]
        unit = max(abs(limit.most), 1e-6 * max(costs, default=0.0), 1e-12)
        factors = {index: cost / unit for index, cost in enumerate(costs)}
        factors |= {index: limit.of(one) / unit for index, one in enumerate(shared, len(flat) + len(crossing))}
        if limit.what == "seconds":
            factors |= {index: border.seconds / unit for index, border in enumerate(crossing, len(flat))}
        rows.append(_Row({**factors, slack: -1.0}, -np.inf, limit.most / unit))
    return rows


def _matrix(rows: Sequence[_Row], count: int) -> Any:  # noqa: ANN401 - scipy is imported where it is used
    from scipy import sparse
    from scipy.optimize import LinearConstraint

    places = [(index, column, factor) for index, row in enumerate(rows) for column, factor in row.factors.items()]
    index, column, factor = (list(values) for values in zip(*places, strict=True))
    matrix = sparse.csr_array((factor, (index, column)), shape=(len(rows), count))
    return LinearConstraint(matrix, np.array([row.low for row in rows]), np.array([row.high for row in rows]))


def _integer(option: Option) -> bool:
    return any(plan.precision in INTEGER_KERNELS for plan in option.layers.values())


def _crossed(chosen: Mapping[str, Option], borders: Sequence[Border]) -> float:
    return sum(
        border.seconds
        for border in borders
        if border.first in chosen
        and border.second in chosen
        and _integer(chosen[border.first]) != _integer(chosen[border.second])
    )
