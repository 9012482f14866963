"""The choice between runtimes: one file ships, and a paragraph says why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.choose.verdict import amount, checks, loss

LEAD = 1.05
"""A runtime that takes less than this much longer than the fastest is as fast: machines differ by more."""


@dataclass(frozen=True)
class Choice:
    """The runtime that ships, and why, in one paragraph."""

    target: str
    paragraph: str


def between(
    best: Mapping[str, Candidate],
    budget: Budget,
    *,
    shipping: Mapping[str, str] | None = None,
    left_out: Mapping[str, str] | None = None,
) -> Choice:
    """Choose between the best candidates of several runtimes.

    What does not fail comes first, then the smallest overshoot of the budget, then the time of one call: milliseconds,
    since every ratio is to another float file. Among those as fast as the fastest (within ``LEAD``) the outputs nearest
    to float decide, then the bytes.

    Args:
        best: target -> the first of its candidates, measured.
        budget: the limits.
        shipping: target -> what shipping it to the user's platform takes, as a clause.
        left_out: target -> why it was not tried, as a clause.

    Raises:
        ValueError: there is nothing to choose from.
    """
    if not best:
        raise ValueError("no runtime left a candidate")

    def order(name: str) -> tuple[bool, float]:
        return best[name].verdict == "failed", overshoot(best[name], budget)

    first = min(order(name) for name in best)
    level = [name for name in best if order(name) == first]
    fastest = min(_milliseconds(best[name]) for name in level)
    quick = [name for name in level if _milliseconds(best[name]) <= fastest * LEAD]
    winner = min(quick or level, key=lambda name: (loss(best[name]), _bytes(best[name])))
    sentences = [_why(winner, best, budget, quick)]
    sentences += [_other(name, best[name], best[winner], budget) for name in best if name != winner]
    sentences += [f"{name} was not tried: {why}." for name, why in (left_out or {}).items()]
    if words := (shipping or {}).get(winner):
        sentences.append(f"To ship it: {words}.")
    return Choice(winner, " ".join(sentences))


def outdone(candidates: Iterable[Candidate], choice: Choice) -> list[Candidate]:
    """Return the candidates; those of other runtimes are no longer chosen, and say whose file ships instead."""
    return [
        replace(one, verdict="met", reason=f"met, but {choice.target} ships instead")
        if one.verdict == "chosen" and one.plan.target != choice.target
        else one
        for one in candidates
    ]


def overshoot(candidate: Candidate, budget: Budget) -> float:
    """Return by how much a candidate misses its limits, summed as fractions of them; 0 when all are met."""
    return sum(check.overshoot for check in checks(candidate, budget))


def _why(winner: str, best: Mapping[str, Candidate], budget: Budget, quick: Sequence[str]) -> str:
    one = best[winner]
    figures = ", ".join(_figures(one))
    met = "meets every limit" if not overshoot(one, budget) else "misses the budget by the least"
    if one.verdict == "failed":
        met = "is the best of what failed"
    tie = "; as fast as the fastest, it is nearest to float" if len(quick) > 1 else "; nothing else is as fast"
    return f"{winner} ships ({figures}): it {met}{tie if len(best) > 1 else ''}."


def _other(name: str, other: Candidate, winner: Candidate, budget: Budget) -> str:
    if other.verdict == "failed":
        return f"{name} failed: {other.reason}."
    missed = [str(check) for check in checks(other, budget) if not check.met]
    if missed and not overshoot(winner, budget):
        return f"{name} misses the budget: {'; '.join(missed)}."
    mine, theirs = _milliseconds(other), _milliseconds(winner)
    if mine > theirs * LEAD:
        return f"{name} takes {mine / theirs:.2f} times as long ({mine:.3g} ms)."
    return f"{name} is as fast ({mine:.3g} ms), its outputs are {loss(other):.4f} from float."


def _figures(candidate: Candidate) -> list[str]:
    figures = []
    if candidate.latency is not None:
        figures.append(f"{candidate.latency.median_ms:.3g} ms a call")
    if candidate.artifact is not None:
        figures.append(amount("size", candidate.artifact.bytes))
    if candidate.parity is not None:
        figures.append(f"output error {candidate.parity.relative_error:.4f}")
    return figures


def _milliseconds(candidate: Candidate) -> float:
    return candidate.latency.median_ms if candidate.latency is not None else float("inf")


def _bytes(candidate: Candidate) -> float:
    return candidate.artifact.bytes if candidate.artifact is not None else float("inf")
