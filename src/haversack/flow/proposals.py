"""The uniform plans that are made real first: what a user of this field would try by hand."""

from __future__ import annotations

from collections.abc import Iterable

from haversack.base.graph import Graph
from haversack.base.plan import Plan, Precision, Step
from haversack.compress.plans import uniform
from haversack.tools.graph.roles import Role, role

DYNAMIC_SHARE = 0.5
"""Above this share of the multiply-accumulates in linear layers a model is proposed in dynamic int8 first."""
FOLD = (Step("fold_norm"),)
CORRECTED = (Step("fold_norm"), Step("bias_correct"))


def proposals(
    graph: Graph, target: str, precisions: Iterable[Precision], constrained_by: tuple[str, ...]
) -> list[Plan]:
    """Return uniform plans for one target, the most promising first.

    Args:
        graph: the folded model's graph.
        target: the runtime.
        precisions: what the target can do.
        constrained_by: the targets whose constraints the encodings satisfy.
    """
    able = set(precisions)
    plans: list[Plan] = []

    def add(precision: Precision, origin: str, prepare: tuple[Step, ...] = FOLD, **settings: Step) -> None:
        if precision not in able:
            return
        layers = uniform(graph, precision, weights=settings.get("weights", Step("minmax")))
        ranges = settings.get("ranges", Step("minmax"))
        if layers or precision == "float32":
            plans.append(Plan(target, layers, prepare, ranges, constrained_by, origin))

    if mostly_linear(graph):
        add("int8_dynamic", "int8 weights, activations quantized at run time")
        add("int8_weights", "int8 weights, float arithmetic")
    else:
        add("int8", "int8, min-max ranges, bias corrected", CORRECTED)
        least = {"ranges": Step("mse"), "weights": Step("mse")}
        add("int8", "int8, mean squared error ranges, bias corrected", CORRECTED, **least)
        add("int8_weights", "int8 weights, float arithmetic")
    add("float16", "float16 weights, float arithmetic")
    add("float32", "float")
    return plans


def mostly_linear(graph: Graph) -> bool:
    """Say whether most multiply-accumulates are in linear layers and attention, not in convolutions."""
    total = sum(node.macs for node in graph.nodes)
    convolutions = sum(node.macs for node in graph.nodes if role(node) is Role.LAYER and node.op.startswith("conv"))
    return total - convolutions > DYNAMIC_SHARE * total
