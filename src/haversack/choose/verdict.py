"""Verdicts: which limits a candidate meets, by how much it misses the others, and which candidate is best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.choose.pooling import pooled

JUDGED_UNRUN = frozenset({"size", "download"})
"""Limits that a file is held against which no runtime here opens."""


@dataclass(frozen=True)
class Check:
    """One limit held against one candidate; ``got`` is NaN when it was not measured, ``unit`` that of the metric."""

    limit: str
    allowed: float
    got: float
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the measured value is within the limit (an unmeasured one is not)."""
        return self.got <= self.allowed

    @property
    def overshoot(self) -> float:
        """By which fraction of the limit it is missed; 0 when met; infinite when not measured."""
        if self.met:
            return 0.0
        return math.inf if math.isnan(self.got) else (self.got - self.allowed) / max(abs(self.allowed), 1e-9)

    def __str__(self) -> str:
        name = self.limit.partition("_")[0]
        if math.isnan(self.got):
            return f"{name} was not measured"
        for places in range(2, 5):
            got, allowed = (amount(self.limit, value, self.unit, places) for value in (self.got, self.allowed))
            if got != allowed:
                break
        return f"{name} is {got}, allowed is {allowed}"


def amount(limit: str, value: float, unit: str = "", places: int = 2) -> str:
    """Return a limit's value with its unit, as a person reads it and as a report spells it.

    Args:
        limit: its name.
        value: of it, as ``Budget`` has it.
        unit: of the metric, for the drop.
        places: decimals of a ratio and of points.
    """
    if limit in ("size", "download", "memory"):
        if abs(value) < 1e6:
            return f"{value / 1e3:.1f} kB" if abs(value) >= 1e3 else f"{value:.0f} bytes"
        return f"{value / 1e6:.3f} MB"
    if limit == "latency_ratio":
        return f"\u00d7{value:.{places}f}"
    if limit == "drop":
        return f"{100 * value:.{places}f} pt" if unit == "fraction" else f"{value:.{places + 2}f} {unit}".rstrip()
    return f"{value:.3f} ms"


def checks(candidate: Candidate, budget: Budget) -> tuple[Check, ...]:
    """Hold every limit that is set against what was measured on the artefact; of what does not run here, its sizes."""
    got: dict[str, float] = {}
    if candidate.artifact is not None:
        got |= {"size": candidate.artifact.bytes, "download": candidate.artifact.download_bytes}
    if candidate.latency is not None:
        got |= {"latency_ms": candidate.latency.median_ms, "latency_ratio": candidate.latency.ratio}
    if candidate.memory is not None:
        got["memory"] = candidate.memory.peak_bytes
    if candidate.drop is not None:
        got["drop"] = candidate.drop.value
    unit = candidate.quality.unit if candidate.quality is not None else ""
    return tuple(
        Check(name, allowed, got.get(name, math.nan), unit)
        for name, allowed in budget.limits().items()
        if not candidate.exported or name in JUDGED_UNRUN
    )


def unmade(candidate: Candidate) -> bool:
    """Say whether a plan was given up on a forecast: nothing was made of it, and nothing failed."""
    return candidate.artifact is None and candidate.verdict == "missed"


def loss(candidate: Candidate) -> float:
    """Return what recipes are ranked by: the output's relative error (top-1 on a few hundred images ranks badly).

    It is that on the half of the evaluation set that chooses: what the other half says must not touch the choice.

    Of what does not run here it is the error of the reference with the same numbers.
    """
    if candidate.exported:
        return float(candidate.extra.get("reference_error", math.inf))
    if candidate.parity is None or math.isnan(candidate.parity.ranking_error):
        return math.inf
    return candidate.parity.ranking_error


def cost(candidate: Candidate) -> float:
    """Return size times latency ratio: what is minimised when the budget limits quality alone."""
    if candidate.artifact is None or candidate.latency is None:
        return math.inf
    return candidate.artifact.bytes * candidate.latency.ratio


def exactness(candidate: Candidate) -> Literal["equal", "differing", "not compared"]:
    """Say how a candidate's outputs stand to the reference's, bit for bit."""
    parity = candidate.parity
    if parity is None or parity.reference_compared <= 0 or parity.reference_differing < 0:
        return "not compared"
    return "differing" if parity.reference_differing else "equal"


def ranked(candidates: Iterable[Candidate], budget: Budget) -> list[Candidate]:
    """Return candidates from best to worst: by overshoot, then by loss; those that failed later, those not made last.

    What equals the reference bit for bit comes before what differs and what was not compared, within the same
    overshoot.
    When nothing but the drop is limited, candidates within it are ranked by size times latency instead of loss.
    Misses of latency are not ranked inside the noise: those whose quartiles overlap with the leader's are its equals,
    and their loss decides.
    """
    only_quality = set(budget.limits()) <= {"drop"}

    def order(candidate: Candidate) -> tuple[bool, bool, float, bool, float]:
        over = sum(check.overshoot for check in checks(candidate, budget))
        worth = cost(candidate) if only_quality and not over and not candidate.exported else loss(candidate)
        return unmade(candidate), candidate.verdict == "failed", over, not _equal(candidate), worth

    found = sorted(candidates, key=order)
    equals = [one for one in found if _equal_misses(one, found[0], budget)]
    return [
        *sorted(equals, key=lambda one: (not _equal(one), loss(one))),
        *(one for one in found if all(one is not other for other in equals)),
    ]


def _equal_misses(one: Candidate, leader: Candidate, budget: Budget) -> bool:
    """Say whether both miss the latency, by amounts that the noise does not tell apart, and the rest by the same."""
    if one is leader:
        return True
    if one.latency is None or leader.latency is None or "failed" in (one.verdict, leader.verdict):
        return False
    mine, theirs = (_misses(each, budget) for each in (one, leader))
    slow = {name for name in mine if name.startswith("latency")}
    rest = [{name: over for name, over in each.items() if name not in slow} for each in (mine, theirs)]
    overlap = one.latency.ratio_low <= leader.latency.ratio_high and leader.latency.ratio_low <= one.latency.ratio_high
    return (
        bool(slow)
        and slow == {name for name in theirs if name.startswith("latency")}
        and overlap
        and (rest[0] == rest[1])
    )


def _misses(candidate: Candidate, budget: Budget) -> dict[str, float]:
    return {check.limit: check.overshoot for check in checks(candidate, budget) if not check.met}


def judged(candidates: Sequence[Candidate], budget: Budget) -> list[Candidate]:
    """Return the candidates, best first, each with its verdict, its reason and the drop that it was judged by.

    Drops are pooled where chance alone explains that what errs less lost more (``pooling``). What failed and what was
    not made keeps the verdict and the reason it came with.
    """
    kept = _within_by_pooling(candidates, budget)
    order = ranked([kept.get(id(one), one) for one in candidates], budget)
    measured = {kept[id(one)].id: one.drop.value for one in candidates if id(one) in kept and one.drop is not None}
    result = []
    for place, candidate in enumerate(order):
        missed = [check for check in checks(candidate, budget) if not check.met]
        if candidate.verdict == "failed" or unmade(candidate):
            result.append(candidate)
        elif place == 0:
            reason = _why_first(candidate, order, budget) if not missed else "nearest: " + _words(missed)
            result.append(replace(candidate, verdict="missed" if missed else "chosen", reason=reason))
        elif missed:
            result.append(replace(candidate, verdict="missed", reason=_words(missed)))
        else:
            result.append(replace(candidate, verdict="met", reason=_why_not(candidate, order[0], budget)))
    return [_with_pooling(one, measured.get(one.id)) for one in result]


def _within_by_pooling(candidates: Sequence[Candidate], budget: Budget) -> dict[int, Candidate]:
    """Return identity of a candidate -> it with its pooled drop, where that is within the limit and its own is not."""
    most = math.inf if budget.drop is None else budget.drop
    return {
        id(one): other
        for one, other in zip(candidates, pooled(candidates, loss), strict=True)
        if one.drop is not None and other.drop is not None and other.drop.value <= most < one.drop.value
    }


def _with_pooling(candidate: Candidate, measured: float | None) -> Candidate:
    """Return a candidate whose reason says so where pooling decided that it is within the allowed drop."""
    if measured is None or candidate.drop is None:
        return candidate
    unit = candidate.quality.unit if candidate.quality is not None else ""
    found, judged_by = (amount("drop", value, unit) for value in (measured, candidate.drop.value))
    words = f"by itself its drop is {found} on the samples that choose, together with plans that err more {judged_by}"
    return replace(candidate, reason=f"{candidate.reason}; {words}")


def _words(missed: Sequence[Check]) -> str:
    return "; ".join(f"{check} ({check.overshoot:.1%} over)" if check.allowed else str(check) for check in missed)


def _equal(candidate: Candidate) -> bool:
    return exactness(candidate) == "equal"


def _why_first(best: Candidate, order: Sequence[Candidate], budget: Budget) -> str:
    if best.exported:
        return "written and read back; not run here, so that only its size is judged"
    able = [other for other in order if other.verdict != "failed" and not unmade(other)]
    within = [other for other in able if all(check.met for check in checks(other, budget))]
    equal = [other for other in within if _equal(other)]
    quality = set(budget.limits()) <= {"drop"}
    limits = "the allowed drop" if quality else "the budget"
    rule = "smallest size times latency" if quality else f"least output error ({loss(best):.4f})"
    if not equal or len(equal) == len(within):
        return f"{rule} of {len(within)} within {limits}"
    if len(equal) == 1:
        return f"of {len(within)} within {limits} the only one known to equal the reference bit for bit"
    return f"{rule} of the {len(equal)} that equal the reference bit for bit, of {len(within)} within {limits}"


def _why_not(candidate: Candidate, best: Candidate, budget: Budget) -> str:
    if candidate.exported:
        errors = f"{loss(candidate):.4f}, with those of {best.id} by {loss(best):.4f}"
        return f"not run here; with its numbers the reference errs by {errors}"
    if _equal(best) and exactness(candidate) == "differing":
        return f"met, but unlike {best.id} it does not equal the reference bit for bit"
    if _equal(best) and not _equal(candidate):
        return f"met, but it was not compared with the reference, which {best.id} equals bit for bit"
    if set(budget.limits()) <= {"drop"}:
        return f"met, but size times latency is {cost(candidate) / cost(best):.2f} times that of {best.id}"
    return f"met, but its output error {loss(candidate):.4f} is not below {loss(best):.4f} of {best.id}"
