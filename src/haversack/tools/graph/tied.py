"""Weights that several layers read: a recurrent layer's, read at each step, or a table that is the last layer as well.

A file stores such a weight once, whatever computes with it. So there is one decision for it: all that read it, its
*calls*, hold it in one form (``LayerPlan.form``), with one set of scales.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Literal

from haversack.base.graph import Graph, Node
from haversack.base.plan import STATIC, LayerPlan, Step
from haversack.tools.graph.roles import Role, role

_STORED = frozenset({"int8", "int8_dynamic", "int8_weights"})
"""Precisions with one form: the integers are the same, whatever computes with them."""
_AS_IS = frozenset({"float32", "float16", "palette"})
"""Precisions that a table of embeddings can have as a layer has them."""

Stores = Literal["weight", "kernel", "call"]
"""How often a runtime's files hold a weight: once; once for its layers and once for its tables; or for each call."""
_ORDER = {Role.LAYER: 0, Role.EMBEDDING: 1}


def calls(graph: Graph, others: Collection[str] = ()) -> dict[str, tuple[Node, ...]]:
    """Return key of the first layer that reads a weight -> all that read it, that one first, then in execution order.

    Every layer and every table of embeddings is in one of them, most alone. A layer comes before a table.

    Args:
        graph: the model's.
        others: keys of nodes that count as well; they come last.
    """
    found: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if role(node) in _ORDER or node.key in others:
            found.setdefault(node.weight or node.key, []).append(node)
    ordered = [sorted(nodes, key=lambda node: _ORDER.get(role(node), len(_ORDER))) for nodes in found.values()]
    return {nodes[0].key: tuple(nodes) for nodes in ordered}


def shared(graph: Graph) -> tuple[tuple[Node, ...], ...]:
    """Return the calls of each weight that has several, as ``calls``."""
    return tuple(nodes for nodes in calls(graph).values() if len(nodes) > 1)


def beside(node: Node, lead: LayerPlan) -> LayerPlan | None:
    """Return what a call of a weight becomes where its first call has a plan; None where it has no such form.

    A table holds the integers of a layer that computes in 8 bits, a scale for each row, and looks rows up in them.
    """
    if role(node) is Role.LAYER or lead.precision in _AS_IS:
        return lead if not (role(node) is Role.EMBEDDING and "group" in lead.weights.settings) else None
    if lead.precision in _STORED and lead.granularity == "channel":
        return replace(lead, precision="int8_weights")
    return None


def arrays(nodes: tuple[Node, ...], stores: Stores) -> tuple[tuple[Node, ...], ...]:
    """Return the calls of one weight by the array that a file has for them, where all hold the same numbers."""
    if stores == "weight":
        return (nodes,)
    if stores == "call":
        return tuple((node,) for node in nodes)
    kinds = [tuple(node for node in nodes if role(node) is kind) for kind in dict.fromkeys(map(role, nodes))]
    return tuple(kinds)


def together(nodes: tuple[Node, ...], lead: LayerPlan) -> dict[str, LayerPlan] | None:
    """Return node key -> what becomes of each call where the first has a plan; None where one has no such form."""
    found = {node.key: beside(node, lead) for node in nodes}
    made = {key: layer for key, layer in found.items() if layer is not None}
    return {**made, nodes[0].key: lead} if len(made) == len(found) else None


def quarrels(graph: Graph, layers: Mapping[str, LayerPlan]) -> Iterator[tuple[Node, Node]]:
    """Yield two calls of each weight that a plan gives different forms; what it does not name is float32."""
    for first, *others in shared(graph):
        form = _form(layers, first)
        differing = [node for node in others if _form(layers, node) != form]
        yield from ((first, node) for node in differing[:1])


def agreed(graph: Graph, layers: Mapping[str, LayerPlan]) -> dict[str, LayerPlan]:
    """Return a plan's layers with one form for each weight: one that all its calls can have.

    Calls that a plan gives different forms are stored in 8 bits where all of them are in integers (palettes without
    groups where all are palettes), and else in float32: one call in float would bring the weight in float as well.

    Args:
        graph: the model's.
        layers: node key -> its plan, of each call as if it were alone.
    """
    found = dict(layers)
    for first, second in list(quarrels(graph, layers)):
        nodes = next(nodes for nodes in shared(graph) if first in nodes and second in nodes)
        lead = _eight(layers.get(nodes[0].key), [layers.get(node.key) for node in nodes])
        made = together(nodes, lead) if lead is not None else None
        for node in nodes:
            found.pop(node.key, None)
        found |= made or {}
    return {key: found[key] for key in layers if key in found}


def leads(graph: Graph, others: Collection[str] = ()) -> dict[str, str]:
    """Return node key of each layer and table -> key of the first call of its weight, with ``calls``'s ``others``."""
    return {node.key: first for first, nodes in calls(graph, others).items() for node in nodes}


def _eight(lead: LayerPlan | None, plans: Collection[LayerPlan | None]) -> LayerPlan | None:
    """Return what the first call is where all have a form in common that is no float; None for float32."""
    held = [one for one in plans if one is not None]
    if lead is None or len(held) < len(plans) or {"float32", "float16"} & {one.precision for one in held}:
        return None
    weights = next((one.weights for one in held if one.precision in _STORED), lead.weights)
    weights = Step(weights.part, {name: value for name, value in weights.settings.items() if name != "group"})
    if any(one.precision == "palette" for one in held):
        return LayerPlan("palette", "tensor", weights) if {one.precision for one in held} == {"palette"} else None
    precision = lead.precision
    if precision in STATIC:
        precision = "int8"
    elif precision == "w4_grouped":
        precision = "int8_dynamic"
    return LayerPlan(precision, "channel", weights)


def _form(layers: Mapping[str, LayerPlan], node: Node) -> object:
    return layers.get(node.key, LayerPlan("float32")).form
