"""One choice for several runtimes: where they can hold the same integers within the budget, they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from haversack.base.candidate import Candidate
from haversack.base.plan import STATIC, Plan
from haversack.choose.verdict import exactness, loss


def same_integers(found: Mapping[str, Sequence[Candidate]]) -> dict[str, list[Candidate]]:
    """Return the candidates of each target, with one plan first in all targets that can ship the same integers.

    Each target's best by itself may be another mixture than its neighbour's: measuring put one a little over a limit.
    Of the plans of integers with fixed scales that all of them meet the budget with, the one with the least output
    error goes first; what it displaces says why. Targets that share no encodings, or whose best is of another kind, are
    left alone.

    Args:
        found: target -> candidates, best first, as ``judged`` gives them.
    """
    result = {target: list(order) for target, order in found.items()}
    groups: dict[tuple[str, ...], list[str]] = {}
    for target, order in result.items():
        if order and order[0].verdict == "chosen" and _static(order[0].plan):
            groups.setdefault(order[0].plan.constrained_by, []).append(target)
    for group in groups.values():
        able = {target: _meeting(result[target]) for target in group}
        shared = set.intersection(*(set(one) for one in able.values()))
        if not shared or len({result[target][0].plan.shared_digest for target in group}) == 1:
            continue
        best = min(shared, key=lambda key: max(loss(one[key]) for one in able.values()))
        for target in group:
            result[target] = _first(result[target], able[target][best], group)
    return result


def _meeting(order: Sequence[Candidate]) -> dict[str, Candidate]:
    """Return content of a plan -> candidate, of static plans that meet the budget and are as exact as the first."""
    return {
        one.plan.shared_digest: one
        for one in order
        if one.verdict in {"chosen", "met"} and _static(one.plan) and exactness(one) == exactness(order[0])
    }


def _first(order: Sequence[Candidate], best: Candidate, group: Sequence[str]) -> list[Candidate]:
    """Return the order with another candidate first."""
    if best is order[0]:
        return list(order)
    others = [one for one in order if one is not best]
    reason = f"least output error ({loss(best):.4f}) of those that meet the budget with the same integers in "
    why = f"met, but not in all of {', '.join(group)}: {best.id} holds the same integers in all"
    return [
        replace(best, verdict="chosen", reason=reason + ", ".join(group)),
        replace(others[0], verdict="met", reason=why),
        *others[1:],
    ]


def _static(plan: Plan) -> bool:
    return any(layer.precision in STATIC for layer in plan.layers.values())
