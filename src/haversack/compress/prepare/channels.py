"""Channel groups: the tensors whose channel i is one and the same channel, with the layers that make and read it.

Scaling channel i of a whole group by a positive factor changes nothing that leaves the group, if its makers are
divided and its readers multiplied by the factor: all in between scales with its input (relu, pads, pools, means, adds
of the group's own tensors). A clamp with an upper limit does not, nor does anything that is not known to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from haversack.base.graph import Graph, Node
from haversack.base.model import Model
from haversack.compress.prepare.contract import only_reader
from haversack.tools.graph.roles import Role, clamp_bounds, role

_COPIES = frozenset({"dropout", "clone", "contiguous", "detach", "alias"})
_POOLS = frozenset({"max_pool1d", "max_pool2d", "adaptive_avg_pool2d", "mean"})
_RESHAPES = frozenset({"view", "reshape", "flatten", "squeeze", "_unsafe_view"})
_RELU = (0.0, float("inf"))


@dataclass(frozen=True)
class Group:
    """Channels that can be scaled together: ``tensors`` are node keys, in execution order, as makers and readers."""

    tensors: tuple[str, ...]
    makers: tuple[Node, ...]
    readers: tuple[Node, ...]
    channels: int


def groups(model: Model) -> Iterator[Group]:
    """Yield the groups of a model whose channels can be scaled freely, in execution order."""
    graph = model.graph
    parent = {node.key: node.key for node in graph.nodes}

    def root(key: str) -> str:
        while parent[key] != key:
            key = parent[key]
        return key

    for node in graph.nodes:
        if _scales_with_inputs(graph, node):
            for key in node.inputs:
                parent[root(key)] = root(node.key)
    members: dict[str, list[Node]] = {}
    for node in graph.nodes:
        members.setdefault(root(node.key), []).append(node)
    for nodes in members.values():
        if (found := _group(model, nodes)) is not None:
            yield found


def groups_of(node: Node) -> int:
    """Return a layer's ``groups`` setting (1 for a linear layer)."""
    return int(node.attributes.get("groups", 1))


def _group(model: Model, nodes: list[Node]) -> Group | None:
    graph, keys = model.graph, {node.key for node in nodes}
    makers = [node for node in nodes if not _scales_with_inputs(graph, node)]
    outside = {
        reader.key: reader
        for node in nodes
        for reader in graph.consumers[node.key]
        if not (reader.key in keys and _scales_with_inputs(graph, reader))
    }
    layers = [*makers, *outside.values()]
    if not outside or any(role(node) is not Role.LAYER for node in layers) or keys & set(graph.outputs):
        return None
    if len({node.op == "linear" and len(node.output.shape) != 2 for node in makers}) != 1:
        return None
    if not all(_own(model, node, with_bias=node in makers) for node in layers):
        return None
    counts = {model.weights[str(node.weight)].shape[0] for node in makers}
    counts |= {model.weights[str(node.weight)].shape[1] * groups_of(node) for node in outside.values()}
    if len(counts) != 1:
        return None
    return Group(tuple(node.key for node in nodes), tuple(makers), tuple(outside.values()), counts.pop())


def _own(model: Model, node: Node, *, with_bias: bool) -> bool:
    names = [node.weight, node.bias] if with_bias else [node.weight]
    return all(name is None or only_reader(model, node, name) for name in names)


def _scales_with_inputs(graph: Graph, node: Node) -> bool:
    """Say whether a node's channel i is its inputs' channel i, and scales with it."""
    if role(node) is Role.ADD or clamp_bounds(node) == _RELU or node.op in _COPIES:
        return role(node) is not Role.ADD or _same_shape(graph, node)
    if len(node.inputs) != 1:
        return False
    before, rank = graph.by_key[node.inputs[0]].output.shape, len(node.output.shape)
    if node.op in _RESHAPES:
        return len(before) > 2 and all(size == 1 for size in before[2:]) and node.output.shape == before[:2]
    if len(before) <= 2:
        return False
    if node.op in ("pad", "constant_pad_nd"):
        return role(node) is Role.SAME and not any(node.attributes["pad"][2 * (rank - 2) :])
    return node.op in _POOLS and role(node) in (Role.SAME, Role.MEAN)


def _same_shape(graph: Graph, node: Node) -> bool:
    return len(node.inputs) == 2 and all(graph.by_key[key].output.shape == node.output.shape for key in node.inputs)
