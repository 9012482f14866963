"""Effort: how much a search may spend on learning what layers lose, and on rounding their weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from haversack.base.errors import UsageError
from haversack.base.plan import Step
from haversack.base.shelf import nearest


@dataclass(frozen=True)
class Effort:
    """One level.

    Attributes:
        rounding: the step that a static plan ends its preparation with; None for rounding to nearest alone.
        words: what that does, for the plan's origin.
        forwards: what that costs about, in forward passes of one sample: for the forecast of time.
        rows: of samples that each layer is tried on alone. The fewer there are, the more the knapsack believes what
            chance made of a layer: of 4 rows it made the smallest file of EfficientNet-Lite0 with error .228, of 16
            with .196.
    """

    rounding: Step | None
    words: str
    forwards: int
    rows: int = 16


DEFAULT, FAST = "default", "fast"
EFFORTS: Mapping[str, Effort] = {
    FAST: Effort(Step("bias_correct"), "bias corrected", 300, rows=4),
    DEFAULT: Effort(Step("gptq"), "rounded by outputs", 1000),
    "high": Effort(Step("gptq", {"samples": 512, "megabytes": 2000.0}), "rounded by outputs of more samples", 3000),
    "highest": Effort(
        Step("block_reconstruction", {"samples": 512, "megabytes": 2000.0}), "trained block by block", 30000
    ),
}
BY_OUTPUTS = frozenset({"gptq", "adaround", "block_reconstruction"})
"""Parts that round weights by what layers give, with second moments of their inputs."""


PLAIN = Effort(None, "rounded to nearest", 0, rows=4)


def allowed(spend: Effort, without: Collection[str]) -> Effort:
    """Return a level without the parts that the user forbids: the dearest cheaper one that uses none of them.

    Args:
        spend: the level.
        without: names of parts.
    """
    cheaper = (spend, *(one for one in list(EFFORTS.values())[::-1] if one.forwards < spend.forwards), PLAIN)
    return next(one for one in cheaper if one.rounding is None or one.rounding.part not in without)


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
