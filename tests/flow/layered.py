"""A small network as the canonical graph has it: what globs are held against, without any model."""

from __future__ import annotations

from haversack.base.graph import Graph, Node, TensorSpec

SPEC = TensorSpec(("batch", 64), "float32")
IMAGE = TensorSpec(("batch", 64, 4, 4), "float32")


def node(path, op, *inputs, weight=True, spec=IMAGE):
    name = f"{path}.weight" if weight else None
    attributes = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
    return Node(f"{path}:{op}#0", op, path.replace(".", "_"), inputs, spec, weight=name, attributes=attributes)


def network() -> Graph:
    """Return four layers that can be compressed, a transposed convolution and a relu."""
    nodes = [node("x", "input", weight=False)]
    for path, op in (
        ("features.0", "conv2d"),
        ("features.1.conv", "conv2d"),
        ("features.1.act", "relu"),
        ("features.10.conv", "conv2d"),
        ("up", "conv_transpose2d"),
    ):
        nodes.append(node(path, op, nodes[-1].key, weight=op != "relu"))
    nodes.append(node("", "mean", nodes[-1].key, weight=False, spec=SPEC))
    nodes.append(node("head", "linear", nodes[-1].key, spec=SPEC))
    return Graph(tuple(nodes), (nodes[0].key,), (nodes[-1].key,))
