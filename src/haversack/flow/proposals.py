"""The uniform plans that are made real first: what a user of this field would try by hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from haversack.base.graph import Graph
from haversack.base.plan import Plan, Precision, Step
from haversack.compress.plans import float_first, uniform
from haversack.tools.graph.roles import Role, role

DYNAMIC_SHARE = 0.5
"""Above this share of the multiply-accumulates in linear layers a model is proposed in dynamic int8 first."""
FOLD = (Step("fold_norm"),)
CORRECTED = (Step("fold_norm"), Step("bias_correct"))


@dataclass(frozen=True)
class Proposals:
    """Uniform plans for one target.

    Attributes:
        promising: are made real in any case, the most promising first.
        fallbacks: are made real, in order, only while nothing meets the budget.
    """

    promising: tuple[Plan, ...]
    fallbacks: tuple[Plan, ...]


def proposals(graph: Graph, target: str, precisions: Iterable[Precision], constrained_by: tuple[str, ...]) -> Proposals:
    """Return uniform plans for one target.

    Args:
        graph: the folded model's graph.
        target: the runtime.
        precisions: what the target can do.
        constrained_by: the targets whose constraints the encodings satisfy.
    """
    able = set(precisions)
    stores = "int8_weights" in able

    def plan(precision: Precision, origin: str, prepare: tuple[Step, ...] = FOLD, part: str = "minmax") -> list[Plan]:
        layers = uniform(graph, precision, weights=Step(part), stores_integers=stores) if precision in able else {}
        made = Plan(target, layers, prepare, Step(part), constrained_by, origin)
        return [made] if layers or precision == "float32" else []

    dynamic = plan("int8_dynamic", "int8 weights, activations quantized at run time", part="mse")
    static = plan("int8", "int8, mean squared error ranges, bias corrected", CORRECTED, "mse")
    floats = [
        *plan("int8_weights", "int8 weights, float arithmetic", part="mse"),
        *plan("float16", "float16 weights, float arithmetic"),
        *plan("float32", "float"),
    ]
    if mostly_linear(graph):
        return Proposals(tuple(dynamic), tuple(floats))
    careful = [
        replace(one, layers=float_first(graph, one.layers), origin=f"{one.origin}, the first layer in float")
        for one in static
    ]
    return Proposals(tuple(static), (*careful, *floats))


def mostly_linear(graph: Graph) -> bool:
    """Say whether most multiply-accumulates are in linear layers and attention, not in convolutions."""
    total = sum(node.macs for node in graph.nodes)
    convolutions = sum(node.macs for node in graph.nodes if role(node) is Role.LAYER and node.op.startswith("conv"))
    return total - convolutions > DYNAMIC_SHARE * total
