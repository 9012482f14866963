"""What a finished run did not measure, since its own limits did not ask for it, and what might meet others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.plan import WEIGHT_BITS
from haversack.choose.options import COARSENED, PALETTE_BITS
from haversack.choose.verdict import checks
from haversack.flow.choice import Choice
from haversack.flow.proposals import mostly_linear
from haversack.targets.contract import SHELF as TARGETS
from haversack.tools.graph import tied

COARSE, PALETTES = "coarser steps of 8-bit weights", "palettes"
LEAST_RATE = 1
"""Bits of a weight as a download, below which coarser steps do not bring it: the coarsest leave about two."""


def unmeasured(choice: Choice, found: Sequence[Candidate], budget: Budget) -> tuple[str, ...]:
    """Return what might meet other limits and was not measured, in words: ``pack`` measures it for these limits.

    Fewer bytes are all that is gained by it, and more is lost: something that was measured must meet every limit but
    those on bytes and on the drop.

    Args:
        choice: what the run chose by; its profile shows what was measured.
        found: candidates of one target.
        budget: the other limits.
    """
    return tuple(_told(choice, found, budget))


def _told(choice: Choice, found: Sequence[Candidate], budget: Budget) -> Iterator[str]:
    once = tied.calls(choice.graph, choice.weight_elements)
    elements, without = sum(choice.weight_elements.get(key, 0) for key in once), {*choice.scope.without}
    coarsened = any(layer.precision in COARSENED for one in found for layer in one.plan.layers.values())
    if (
        budget.download is not None
        and budget.download >= elements * LEAST_RATE / 8
        and coarsened
        and not (choice.profile.rates or "coarse" in without)
        and _else_met(found, budget, {"download", "drop"})
    ):
        yield COARSE
    limits = [limit for limit in (budget.size, budget.download) if limit is not None]
    if (
        limits
        and min(limits) >= elements * min(PALETTE_BITS) / 8
        and _palettes_missing(choice)
        and _else_met(found, budget, {"size", "download", "drop"})
    ):
        yield PALETTES


def unforecast(target: str, barred: str, more: Mapping[str, Sequence[str]], others: Mapping[str, Sequence[str]]) -> str:
    """Say that no plan is forecast to meet other limits, and what might meet them even so.

    Args:
        target: that misses them.
        barred: what would meet them if the user allowed it, in words, or nothing.
        more: target -> what ``unmeasured`` returned.
        others: target -> what ``sharing`` returned.
    """
    either = "is forecast to meet it either"
    if barred:
        return f"no plan that the run was allowed {either}; {barred}"
    if open_ := more.get(target):
        told = f"{' and '.join(open_)} were not measured, for its own limits did not ask for them, and might"
        return f"no plan of what the run measured {either}; {told}"
    if shared := others.get(target):
        told = f"one set of integers serves {' and '.join([target, *shared])}, and --target {target} alone might"
        return f"no plan for all of them {either}; {told}"
    return f"no plan {either}"


def sharing(found: Sequence[Candidate], elements: int, budget: Budget) -> tuple[str, ...]:
    """Return the other targets with which one shares its integers, where it might meet a limit on bytes without them.

    Layers have just what all of them can have then, so that alone there may be more to choose from: it was not measured
    and cannot be forecast. Every limit but those on bytes and on the drop must be met by something that was measured.

    Args:
        found: candidates of one target.
        elements: of all weights.
        budget: the other limits.
    """
    target = next((one.plan.target for one in found), "")
    others = dict.fromkeys(name for one in found for name in one.plan.constrained_by if name != target)
    limits = [limit for limit in (budget.size, budget.download) if limit is not None]
    if not others or not limits or not _else_met(found, budget, {"size", "download", "drop"}):
        return ()
    fewest = min(WEIGHT_BITS[precision] for precision in TARGETS.type_of(target).precisions)
    return tuple(others) if min(limits) >= elements * fewest / 8 else ()


def _else_met(found: Sequence[Candidate], budget: Budget, but: set[str]) -> bool:
    """Say whether a file meets every limit but some."""
    return any(
        one.artifact is not None and all(check.met for check in checks(one, budget) if check.limit not in but)
        for one in found
    )


def _palettes_missing(choice: Choice) -> bool:
    """Say whether palettes were not measured, though all runtimes have them and the model's layers gain by them."""
    targets = {one.plan.target for one in choice.candidates}
    able = all("palette" in TARGETS.type_of(name).precisions for name in targets)
    known = any(kind.startswith("palette") for kinds in choice.profile.sensitivity.values() for kind in kinds)
    forbidden = {"palette", "kmeans"} & {*choice.scope.without}
    return able and not known and not forbidden and mostly_linear(choice.graph)
