"""What a finished run did not measure, since its own limits did not ask for it, and what might meet others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
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
