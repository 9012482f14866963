"""A Plan: what to do to each layer, as data. ``recipe.toml`` replays it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from haversack.base import digest

Precision = Literal[
    "float32",
    "float16",
    "int8",
    "w7a8",
    "w6a8",
    "w5a8",
    "w4a8",
    "w3a8",
    "w2a8",
    "w1a8",
    "int8_dynamic",
    "w4_grouped",
    "int8_weights",
    "palette",
]
WIDTHS: Mapping[int, Precision] = {
    8: "int8",
    7: "w7a8",
    6: "w6a8",
    5: "w5a8",
    4: "w4a8",
    3: "w3a8",
    2: "w2a8",
    1: "w1a8",
}
"""Bits of a weight -> the precision that computes with it in integers whose scales are fixed beforehand."""
NARROW = frozenset(WIDTHS) - {8}
"""Fewer bits than 8 that a weight may have there."""
STATIC: frozenset[Precision] = frozenset(WIDTHS.values())
"""Precisions that compute in integers whose scales are fixed beforehand."""
PRECISIONS: tuple[Precision, ...] = (
    "float32",
    "float16",
    *WIDTHS.values(),
    "int8_dynamic",
    "w4_grouped",
    "int8_weights",
)
WEIGHT_BITS: Mapping[Precision, int] = {
    "float32": 32,
    "float16": 16,
    **{precision: bits for bits, precision in WIDTHS.items()},
    "int8_dynamic": 8,
    "w4_grouped": 4,
    "int8_weights": 8,
    "palette": 4,
}
"""Precision -> bits of a stored weight; a palette's settings may say otherwise."""
GROUPS = (32, 64, 128, 256)
"""How many weights of a row may share a scale in ``w4_grouped``; the first where nothing is said."""


@dataclass(frozen=True)
class Step:
    """A part by its name on the shelf, with its settings."""

    part: str
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Refuse settings that no digest can be made of: TOML has ``inf`` and ``nan``, JSON has not.

        Raises:
            ValueError: all of them, with the part.
        """
        wrong = [f"{name} = {value}" for name, value in self.settings.items() if _boundless(value)]
        if wrong:
            message = f"{self.part}: {', '.join(wrong)}: not a finite number"
            raise ValueError(message)


@dataclass(frozen=True)
class LayerPlan:
    """How one weighted layer is stored and run.

    Attributes:
        precision: ``float32``, ``float16``, ``int8`` (static), ``w7a8`` to ``w1a8`` (static, with weights of so many
            bits: those of ``w2a8`` are -1, 0 and 1, those of ``w1a8`` -1 and 1), ``int8_dynamic``, ``w4_grouped`` (as
            int8_dynamic, with weights of 4 bits and a scale for each ``group`` of them, which stands in the settings
            of weights), ``int8_weights`` (weight only) or ``palette`` (weight only: indices into a few values;
            ``bits`` of an index stand in the settings of weights).
        granularity: ``channel`` or ``tensor``: one weight scale for each output channel, or one in all.
        weights: the part of ``compress/quantize`` that sets the weight scales.
    """

    precision: Precision = "int8"
    granularity: Literal["channel", "tensor"] = "channel"
    weights: Step = Step("minmax")

    @property
    def bits(self) -> int:
        """Bits of a stored weight: of an index, where a palette's settings say so."""
        usual = WEIGHT_BITS[self.precision]
        return int(self.weights.settings.get("bits", usual)) if self.precision == "palette" else usual

    @property
    def form(self) -> tuple[object, ...]:
        """How its weight is stored, whatever computes with it: what reads one weight must have one form in common."""
        if self.precision in ("float32", "float16"):
            return (self.precision,)
        kind = self.precision if self.precision in ("palette", "w4_grouped") else "integers"
        granularity = "" if kind == "palette" else self.granularity
        return (kind, self.bits, granularity, self.weights.part, tuple(sorted(self.weights.settings.items())))

    @property
    def kind(self) -> str:
        """What its loss and rate are known by: the precision, and how much coarser its steps are (``int8/4``).

        Of a palette its part, its bits and, if it has groups, the rows of one: ``palette/kmeans/4/16``. Of 4-bit
        weights in groups how many share a scale: ``w4_grouped/32``.
        """
        if self.precision == "w4_grouped":
            return f"{self.precision}/{self.weights.settings.get('group', GROUPS[0])}"
        if self.precision == "palette":
            group = self.weights.settings.get("group", 0)
            return f"palette/{self.weights.part}/{self.bits}" + (f"/{group}" if group else "")
        factor = self.weights.settings.get("factor") if self.weights.part == "coarse" else None
        return self.precision if factor is None else f"{self.precision}/{factor:g}"


@dataclass(frozen=True)
class Plan:
    """One candidate, before it is made.

    Attributes:
        target: the runtime's name on the shelf of targets.
        layers: node key of every weighted layer -> LayerPlan; a layer that is absent stays in float32.
        prepare: steps on the float model, in order; those that need encodings run after these exist.
        ranges: the part of ``compress/quantize`` that sets activation ranges.
        constrained_by: the targets whose constraints the encodings satisfy.
        origin: why it was proposed, in words.
    """

    target: str
    layers: Mapping[str, LayerPlan] = field(default_factory=dict, hash=False)
    prepare: tuple[Step, ...] = ()
    ranges: Step = Step("minmax")
    constrained_by: tuple[str, ...] = ()
    origin: str = field(default="", compare=False)

    @property
    def digest(self) -> str:
        """Content digest; ``origin`` does not count."""
        data = asdict(self)
        del data["origin"]
        return digest.of_data(data)

    @property
    def shared_digest(self) -> str:
        """Content digest but for the target: runtimes whose plans have it in common hold the same integers."""
        return replace(self, target="").digest

    @property
    def id(self) -> str:
        """Short identity: the target and twelve digits of the digest."""
        return f"{self.target}-{self.digest[:12]}"

    def differences(self, other: Plan) -> list[str]:
        """Return one line for each layer or setting in which ``other`` differs from this plan."""
        lines = [
            f"{name}: {_say(getattr(self, name))} -> {_say(getattr(other, name))}"
            for name in ("target", "prepare", "ranges", "constrained_by")
            if getattr(self, name) != getattr(other, name)
        ]
        for key in sorted({*self.layers, *other.layers}):
            mine, theirs = self.layers.get(key), other.layers.get(key)
            if mine != theirs:
                lines.append(f"{key}: {_words(mine)} -> {_words(theirs)}")
        return lines


def _boundless(value: object) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_boundless, value))
    return isinstance(value, float) and not math.isfinite(value)


def _words(layer: LayerPlan | None) -> str:
    return "float32" if layer is None else f"{layer.precision}/{layer.granularity}/{_say(layer.weights)}"


def _say(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_say, value)) or "none"
    if isinstance(value, Step):
        settings = ", ".join(f"{name}={setting!r}" for name, setting in value.settings.items())
        return f"{value.part}({settings})" if settings else value.part
    return str(value)
