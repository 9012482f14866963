"""What the selected targets demand of the encodings, so that one set fits them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Ratio:
    """``scale[input] / scale[output]`` must be ``k / denominator`` with ``k`` a positive multiple of ``multiple``.

    With an odd denominator no sum of integers times such ratios lies half-way between two codes, so every
    runtime rounds it alike whatever its order of operations (an average over 2^p * odd values needs multiple 2^p).
    """

    input: str
    output: str
    denominator: int = 501
    multiple: int = 1


@dataclass(frozen=True)
class Constraints:
    """The union over the selected targets; keys are tensor keys.

    Attributes:
        ties: groups of tensors that share one encoding (pads, reshapes, pools, concats).
        fixed: tensor -> (scale, zero point) that a kernel demands (softmax, logistic).
        bounds: tensor -> (low, high) of real values its codes may not leave (the clamp fused before it).
        ratios: scale ratios of adds and means.
        integer_ops: ops that may run in integers.
    """

    ties: tuple[frozenset[str], ...] = ()
    fixed: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    ratios: tuple[Ratio, ...] = ()
    integer_ops: frozenset[str] = frozenset()
