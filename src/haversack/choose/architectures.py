"""The choice between architectures: for a target the file of one ships, and a paragraph says why.

They are compared by what a user gets: the metric's own value, milliseconds and bytes. An output error or a ratio is
against an architecture's own float model, and says nothing of another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.choose.verdict import amount, checks


@dataclass(frozen=True)
class Winner:
    """The architecture that is the best, and why, in one paragraph."""

    architecture: str
    paragraph: str


def between(best: Mapping[str, Candidate], budget: Budget, floats: Mapping[str, float]) -> Winner:
    """Choose between the best candidates of several architectures for one target.

    What failed comes last; then the smallest overshoot of the budget decides, then the smallest drop: every drop is
    against the same float model, so that the least is the best value of the metric. Where nothing but the drop is
    limited, the smallest product of bytes and milliseconds decides among those within it. What is level in that ships
    by its bytes.

    Args:
        best: architecture -> the first of its candidates that left a file, each drop against one float model.
        budget: the limits.
        floats: architecture -> drop of its own float model, which stands for the file of a target that is not run here.

    Raises:
        ValueError: there is nothing to choose from.
    """
    if not best:
        raise ValueError("no architecture left a candidate")
    only_quality = set(budget.limits()) <= {"drop"}

    def order(name: str) -> tuple[bool, float, float, float]:
        one = best[name]
        over = sum(check.overshoot for check in checks(one, budget))
        lost = _lost(one, floats.get(name, math.inf))
        worth = _bytes(one) * _milliseconds(one) if only_quality and not over and not one.exported else lost
        return one.verdict == "failed", over, worth, _bytes(one)

    winner, *others = sorted(best, key=order)
    rule = "the smallest size times milliseconds" if only_quality else "the best quality"
    sentences = [_why(winner, best[winner], budget, rule if others else "")]
    sentences += [_other(name, best[name], best[winner], budget) for name in others]
    return Winner(winner, " ".join(sentences))


def _why(name: str, one: Candidate, budget: Budget, rule: str) -> str:
    if one.verdict == "failed":
        met = "failed, as all of them did"
    elif any(not check.met for check in checks(one, budget)):
        met = "misses the budget by the least"
    else:
        met = f"meets every limit, with {rule} of those that do" if rule else "meets every limit"
    return f"{name} is the best ({_figures(one)}): it {met}."


def _other(name: str, one: Candidate, winner: Candidate, budget: Budget) -> str:
    if one.verdict == "failed":
        return f"{name} failed: {one.reason.splitlines()[0] if one.reason else 'it says no reason'}."
    missed = [str(check) for check in checks(one, budget) if not check.met]
    if missed and all(check.met for check in checks(winner, budget)):
        return f"{name} misses the budget: {'; '.join(missed)}."
    return f"{name} has {_figures(one)}."


def _figures(one: Candidate) -> str:
    figures = []
    if one.quality is not None:
        value = one.quality.value
        told = f"{100 * value:.2f} %" if one.quality.unit == "fraction" else f"{value:.4g} {one.quality.unit}".rstrip()
        figures.append(f"{one.quality.metric} {told}")
    if one.artifact is not None:
        figures.append(amount("size", one.artifact.bytes))
    if one.latency is not None:
        figures.append(f"{one.latency.median_ms:.3g} ms a call")
    return ", ".join(figures)


def _lost(one: Candidate, floats: float) -> float:
    if one.exported:
        return floats
    return one.drop.value if one.drop is not None and not math.isnan(one.drop.value) else math.inf


def _milliseconds(one: Candidate) -> float:
    return one.latency.median_ms if one.latency is not None else math.inf


def _bytes(one: Candidate) -> float:
    return one.artifact.bytes if one.artifact is not None else math.inf


def outdone(candidates: Iterable[Candidate], ships: Mapping[str, str], only: str = "") -> list[Candidate]:
    """Return the candidates; those of other architectures are no longer chosen, and say whose file ships instead.

    Args:
        candidates: of one architecture or of several.
        ships: target -> the architecture whose file ships for it.
        only: the one target that ships, where the choice of the target was ours.
    """
    return [
        replace(one, verdict="met", reason=f"met, but {' on '.join(filter(None, (_whose(one, ships), only)))} ships")
        if one.verdict == "chosen" and ships.get(one.plan.target) != one.architecture
        else one
        for one in candidates
    ]


def _whose(one: Candidate, ships: Mapping[str, str]) -> str:
    return ships.get(one.plan.target) or next(iter(ships.values()), "another")
