"""Joins at a model's end that hold tensors of different range: boxes beside scores, each on a scale of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from haversack.base.finding import Finding
from haversack.base.graph import Graph, Node
from haversack.base.keys import split_node
from haversack.base.profile import TensorStatistics
from haversack.tools.graph.roles import Role, role

DIFFERING = 2.0
"""Inputs of which one spans more than so many times another's range are joined in float."""
_FLOAT = frozenset({Role.FLOAT, Role.CLAMP})
"""What computes on numbers, not on codes; a clamp that is fused behind a layer reads no concatenation."""


def apart(
    graph: Graph, keys: Collection[str], ranges: Mapping[str, TensorStatistics]
) -> tuple[frozenset[str], tuple[Finding, ...]]:
    """Return the tensors that stay float so that what is joined keeps scales of its own, and where that is.

    A concatenation in integers has one scale: beside boxes of hundreds of pixels, scores up to 1 keep two or three of
    256 codes. Behind it, where no layer reads it any more, nothing needs its codes: the codes of its inputs become
    numbers before they are joined, which costs what making numbers of the joined codes costs. A concatenation that
    layers read is left as it is: they need one scale for their input.

    Args:
        graph: the canonical graph.
        keys: the activations that are to hold integers.
        ranges: statistics by tensor key; what has none is not looked at.
    """
    last = _ends(graph)
    floats: set[str] = set()
    findings = []
    for node in graph.nodes:
        if role(node) is not Role.CONCAT or node.out not in keys or node.key not in last:
            continue
        spans = {f"{key}:out": _span(graph, f"{key}:out", ranges) for key in node.inputs}
        known = {key: span for key, span in spans.items() if span is not None}
        wide, narrow = max(known, key=known.__getitem__, default=""), min(known, key=known.__getitem__, default="")
        if known and known[wide] > DIFFERING * known[narrow]:
            floats.add(node.out)
            text = f"{narrow} spans {known[narrow]:.3g}, {wide} {known[wide]:.3g}: each keeps its own scale"
            findings.append(Finding("joined-in-float", text, split_node(node.key)[0] or node.key))
    return frozenset(floats), tuple(findings)


def _ends(graph: Graph) -> frozenset[str]:
    """Return the nodes whose values are only moved and joined until they leave the model or enter a float operation."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        if all(role(reader) in _FLOAT or _carried(reader, found) for reader in graph.consumers[node.key]):
            found.add(node.key)
    return frozenset(found)


def _carried(reader: Node, found: Collection[str]) -> bool:
    return role(reader) in {Role.SAME, Role.CONCAT} and reader.key in found


def _span(graph: Graph, key: str, ranges: Mapping[str, TensorStatistics]) -> float | None:
    """Return the width of a tensor's range with 0 in it; of what only moves values, its source's."""
    node = graph.by_key[key.rpartition(":")[0]]
    while key not in ranges and role(node) is Role.SAME and len(node.inputs) == 1:
        key, node = f"{node.inputs[0]}:out", graph.by_key[node.inputs[0]]
    if key not in ranges:
        return None
    return max(ranges[key].maximum, 0.0) - min(ranges[key].minimum, 0.0)
