"""What the selected targets demand of the encodings, so that one set fits them all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Ratio:
    """``scale[input] / scale[output]`` must be ``k / denominator`` with ``k`` a positive multiple of ``multiple``.

    With an odd denominator no sum of integers times such ratios lies half-way between two codes, so every
    runtime rounds it alike whatever its order of operations (an average over 2^p * odd values needs multiple 2^p).
    Where it is known how many values a mean has, any odd denominator will do at which all runtimes are known to round
    all its sums alike (``tools.numerics.means``).

    Attributes:
        input, output: tensor keys.
        denominator: odd.
        multiple: of k.
        count: values of a mean; 0 for an add, and where it is not known.
    """

    input: str
    output: str
    denominator: int = 501
    multiple: int = 1
    count: int = 0


@dataclass(frozen=True)
class Constraints:
    """The union over the selected targets; keys are tensor keys.

    Attributes:
        ties: groups of tensors that share one encoding (pads, reshapes, pools, concats).
        fixed: tensor -> (scale, zero point) that a kernel demands (softmax, logistic).
        bounds: tensor -> (low, high) of real values its codes may not leave (the clamp fused before it).
        ratios: scale ratios of adds and means.
        integer_ops: ops that may run in integers.
        widths: node key -> fewer bits than 8 that its weights may have, where they run as fast as with 8.
        groups: node key -> how many neighbouring 4-bit weights of a row may share a scale, where there is a kernel.
        symmetric: whether activations lie around 0 (uint8 code 128, int8 code 0), so that no grid does a clamp's work.
        half_scales: whether the scales of weights that are stored for float arithmetic are float16 numbers.
        floats: tensors that stay float32, since a file has no place for their codes.
    """

    ties: tuple[frozenset[str], ...] = ()
    fixed: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    ratios: tuple[Ratio, ...] = ()
    integer_ops: frozenset[str] = frozenset()
    widths: Mapping[str, frozenset[int]] = field(default_factory=dict)
    groups: Mapping[str, frozenset[int]] = field(default_factory=dict)
    symmetric: bool = False
    half_scales: bool = False
    floats: frozenset[str] = frozenset()

    @classmethod
    def union(cls, several: Iterable[Constraints]) -> Constraints:
        """Return what fits all of several targets: every demand of each, and only the kernels common to all.

        Raises:
            ValueError: two targets fix one tensor's encoding differently, bound it to disjoint intervals, or only one
                wants it symmetric.
        """
        found = list(several)
        if not found:
            return cls()
        if len({one.symmetric for one in found}) > 1:
            raise ValueError("one target takes symmetric activations only, another a grid that clamps")
        fixed: dict[str, tuple[float, int]] = {}
        bounds: dict[str, tuple[float, float]] = {}
        for one in found:
            for key, demand in one.fixed.items():
                if fixed.setdefault(key, demand) != demand:
                    raise ValueError(f"{key}: one target fixes {fixed[key]}, another {demand}")
            for key, (low, high) in one.bounds.items():
                before = bounds.get(key, (low, high))
                bounds[key] = max(low, before[0]), min(high, before[1])
                if bounds[key][0] > bounds[key][1]:
                    raise ValueError(f"{key}: bounded to disjoint intervals {before} and {(low, high)}")
        return cls(
            ties=tuple(dict.fromkeys(tie for one in found for tie in one.ties)),
            fixed=fixed,
            bounds=bounds,
            ratios=tuple(dict.fromkeys(ratio for one in found for ratio in one.ratios)),
            integer_ops=frozenset.intersection(*(one.integer_ops for one in found)),
            widths=_common([one.widths for one in found]),
            groups=_common([one.groups for one in found]),
            symmetric=found[0].symmetric,
            half_scales=any(one.half_scales for one in found),
            floats=frozenset[str]().union(*(one.floats for one in found)),
        )


def _common(several: Sequence[Mapping[str, frozenset[int]]]) -> dict[str, frozenset[int]]:
    """Return the groups or widths that all have for a layer; a layer that one has none for is left out."""
    first, *others = several
    shared = {key: found.intersection(*(one.get(key, frozenset()) for one in others)) for key, found in first.items()}
    return {key: found for key, found in shared.items() if found}
