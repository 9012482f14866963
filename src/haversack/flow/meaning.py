"""What a target's integers mean: the reference with the target's own rounding, where that is not the law's."""

from __future__ import annotations

from haversack.targets.contract import Target
from haversack.targets.reference import Reference


def meaning(target: Target) -> Reference:
    """Return the reference that a target's files must equal bit for bit."""
    return Reference(arithmetic=target.arithmetic)
