"""What plans may hold: layers that the user fixed to a precision, and what the user forbade."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from haversack.base.plan import STATIC, LayerPlan, Plan, Precision

_UNQUANTIZED = frozenset({"float32", "float16"})


@dataclass(frozen=True)
class Scope:
    """The user's say over plans; an empty one allows everything.

    Attributes:
        rules: as they were typed, ``GLOB=PRECISION``.
        without: names of the precisions and parts that no plan may use.
        fixed: node key -> what the rules make of the layer.
    """

    rules: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    fixed: Mapping[str, LayerPlan] = field(default_factory=dict, hash=False)

    def allows(self, key: str, layer: LayerPlan | None) -> bool:
        """Say whether a layer may be so; None is float32, as in a plan that does not name it."""
        held = precision(layer)
        if key in self.fixed and held != self.fixed[key].precision:
            return False
        return not (held in self.without or (layer is not None and quantizers(layer) & {*self.without}))

    def forbids(self, plan: Plan) -> tuple[str, ...]:
        """Return what of ``without`` a plan uses; a layer that it does not name uses nothing."""
        used = {step.part for step in plan.prepare}
        for layer in plan.layers.values():
            used |= {layer.precision, *quantizers(layer)}
            used |= {plan.ranges.part} if layer.precision in STATIC else set()
        return tuple(name for name in self.without if name in used)


def precision(layer: LayerPlan | None) -> Precision:
    """Return the precision of a layer; of one that a plan does not name, float32."""
    return "float32" if layer is None else layer.precision


def quantizers(layer: LayerPlan) -> frozenset[str]:
    """Return the parts that set the scales of a layer's weights; ``coarse`` takes those of another part."""
    if layer.precision in _UNQUANTIZED:
        return frozenset()
    step = layer.weights
    return frozenset({step.part, str(step.settings.get("of", "mse"))} if step.part == "coarse" else {step.part})
