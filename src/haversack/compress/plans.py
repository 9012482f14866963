"""Plans that give every layer the same precision: where a search begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from haversack.base.graph import Graph, Node
from haversack.base.plan import STATIC, LayerPlan, Precision, Step
from haversack.compress.selection import bears, group_of, lacks
from haversack.tools.graph import tied
from haversack.tools.graph.roles import Role, role

MINMAX = Step("minmax")


def uniform(
    graph: Graph,
    precision: Precision,
    *,
    granularity: Literal["channel", "tensor"] = "channel",
    weights: Step = MINMAX,
    integer_ops: frozenset[str] | None = None,
    widths: Mapping[str, frozenset[int]] | None = None,
    groups: Mapping[str, frozenset[int]] | None = None,
    stores_integers: bool = True,
) -> dict[str, LayerPlan]:
    """Return the layers of a plan in which every weighted layer has a precision, or the nearest that it can have.

    A layer whose op has no integer kernel stays out of an ``int8`` plan, in float32. In ``int8_dynamic`` only linear
    layers are quantized at run time; other layers store integers (``int8_weights``), as embeddings do in every plan
    of integers, one scale a row. So it is in ``w4_grouped``, where linear layers without such kernels are
    ``int8_dynamic``. What reads one weight has it in one form (``tools.graph.tied``).

    Args:
        graph: the prepared model's.
        precision: what every layer gets; ``float32`` gives no layers.
        granularity: of the weight scales of layers.
        weights: the quantizer of weights.
        integer_ops: ops with an integer kernel (``Constraints.integer_ops``), or None when all have one.
        widths: which bits the weights of each layer can have (``Constraints.widths``), or None when all have all; in
            a plan of ``w4a8`` the others are int8.
        groups: which groups of 4-bit weights each layer can have (``Constraints.groups``), or None when all have all.
        stores_integers: whether the target stores integers for layers that run in float; otherwise these stay float32
            (tables of embeddings are stored all the same).
    """
    found: dict[str, LayerPlan] = {}
    for node in graph.nodes:
        wide = widths is not None and lacks(node.key, precision, widths)
        wanted: Precision = "int8" if wide else precision
        if precision == "w4_grouped" and groups is not None:
            group = group_of(LayerPlan(precision, weights=weights))
            wanted = precision if group in groups.get(node.key, ()) else "int8_dynamic"
        nearest = _nearest(node, wanted, integer_ops)
        rows = role(node) is Role.EMBEDDING
        if nearest == "int8_weights" != precision and not stores_integers and not rows:
            nearest = "float32"
        if nearest != "float32":
            shared = "tensor" if nearest == "palette" else granularity
            step = weights if nearest == "w4_grouped" or (nearest == "palette" and not rows) else _ungrouped(weights)
            found[node.key] = LayerPlan(nearest, "channel" if rows and nearest != "palette" else shared, step)
    return tied.agreed(graph, found)


def float_first(graph: Graph, layers: Mapping[str, LayerPlan]) -> dict[str, LayerPlan]:
    """Return the layers of a plan but for those that read the model's inputs: these run in float32.

    Such a layer is small, its input has a wide range, and every error that it makes passes through the whole model:
    kept in float it costs little time and takes much of the error away. A layer that is called again further on keeps
    its precision: in float its weight would be stored twice, or the whole of it run in float.

    Args:
        graph: the prepared model's.
        layers: of a plan.
    """
    near = set(graph.inputs)
    first = set()
    for node in graph.nodes:
        if near.intersection(node.inputs):
            if role(node) is Role.SAME:
                near.add(node.key)
            first.add(node.key)
    again = {node.key for nodes in tied.shared(graph) for node in nodes if not first >= {one.key for one in nodes}}
    return {key: layer for key, layer in layers.items() if key not in first or key in again}


def _ungrouped(weights: Step) -> Step:
    """Return a quantizer of weights without what it says of groups."""
    return Step(weights.part, {name: value for name, value in weights.settings.items() if name != "group"})


def _nearest(node: Node, precision: Precision, integer_ops: frozenset[str] | None) -> Precision:
    if role(node) is Role.EMBEDDING and precision in (*STATIC, "int8_dynamic", "w4_grouped"):
        return "int8_weights"
    if precision == "w4_grouped" and node.op != "linear" and bears(node, "int8_weights"):
        return "int8_weights"
    if not bears(node, precision):
        return "float32"
    if precision in STATIC and integer_ops is not None and node.op not in integer_ops:
        return "float32"
    if precision == "int8_dynamic" and node.op != "linear":
        return "int8_weights"
    return precision
