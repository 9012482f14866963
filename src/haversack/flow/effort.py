"""Effort: how much a search may spend on rounding the weights of layers that run in integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from haversack.base.errors import UsageError
from haversack.base.plan import Step
from haversack.base.shelf import nearest


@dataclass(frozen=True)
class Effort:
    """One level.

    Attributes:
        rounding: the step that a static plan ends its preparation with.
        words: what that does, for the plan's origin.
        forwards: what it costs about, in forward passes of one sample: for the forecast of time.
    """

    rounding: Step
    words: str
    forwards: int


DEFAULT, FAST = "default", "fast"
EFFORTS: Mapping[str, Effort] = {
    FAST: Effort(Step("bias_correct"), "bias corrected", 300),
    DEFAULT: Effort(Step("gptq"), "rounded by outputs", 1000),
    "high": Effort(Step("gptq", {"samples": 128, "megabytes": 2000.0}), "rounded by outputs of more samples", 2000),
}


def effort(name: str) -> Effort:
    """Return a level by its name.

    Raises:
        UsageError: there is no such level; the nearest name is shown.
    """
    if name not in EFFORTS:
        raise UsageError(
            f"there is no effort {name!r}{nearest(name, EFFORTS)}",
            where="--effort",
            next_step=f"one of {', '.join(EFFORTS)}",
        )
    return EFFORTS[name]
