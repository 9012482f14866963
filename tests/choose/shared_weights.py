"""Networks in which several layers read one weight, as the canonical graph has them."""

from __future__ import annotations

from haversack.base.graph import Graph, Node, TensorSpec

SPEC = TensorSpec(("batch", 64), "float32")
STEPS = 3


def _node(key, op, *inputs, weight=None):
    parameters = () if weight is None else (weight,)
    return Node(key, op, key.replace(":", "_").replace("#", "_"), inputs, SPEC, weight=weight, parameters=parameters)


def recurrent() -> Graph:
    """Return a cell that is called at three steps, between a layer before it and one behind it."""
    nodes = [_node("x:input#0", "input")]
    nodes.append(_node("front:linear#0", "linear", nodes[-1].key, weight="front.weight"))
    for step in range(STEPS):
        nodes.append(_node(f"cell:linear#{step}", "linear", nodes[-1].key, weight="cell.weight"))
        nodes.append(_node(f"cell:tanh#{step}", "tanh", nodes[-1].key))
    nodes.append(_node("head:linear#0", "linear", nodes[-1].key, weight="head.weight"))
    return Graph(tuple(nodes), (nodes[0].key,), (nodes[-1].key,))


def tied_table() -> Graph:
    """Return a table of embeddings whose weight is that of the last layer as well."""
    nodes = [
        _node("tokens:input#0", "input"),
        _node("table:embedding#0", "embedding", "tokens:input#0", weight="table.weight"),
        _node("middle:linear#0", "linear", "table:embedding#0", weight="middle.weight"),
        _node("head:linear#0", "linear", "middle:linear#0", weight="table.weight"),
    ]
    return Graph(tuple(nodes), (nodes[0].key,), (nodes[-1].key,))


CELLS = tuple(f"cell:linear#{step}" for step in range(STEPS))
