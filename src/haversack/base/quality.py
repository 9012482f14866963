"""Measured quality: one number with its unit, its samples and its uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["higher", "lower"]
HALVES = (
    "One half of the evaluation set chose the plans; the figures here are from the untouched half. "
    "Agreement with float and errors of outputs, which need no labels, are over both halves."
)
"""Which samples the figures of a report are of, in words."""


@dataclass(frozen=True)
class Quality:
    """A metric's value on an evaluation set.

    Attributes:
        metric: the metric's name.
        value: in the metric's unit.
        unit: ``fraction`` (a drop of .01 is one point, ``pt``) or any other word.
        direction: whether higher or lower is better.
        samples: how many samples were scored.
        standard_error: of ``value``; NaN where the metric cannot state one.
    """

    metric: str
    value: float
    unit: str
    direction: Direction
    samples: int
    standard_error: float


@dataclass(frozen=True)
class Drop:
    """How much worse an artefact scores than float on the same samples: positive is worse, in the metric's unit.

    ``low`` and ``high`` bound it with 95 % confidence by a paired bootstrap over samples.
    """

    value: float
    low: float
    high: float
    samples: int
