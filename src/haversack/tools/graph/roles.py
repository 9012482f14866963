"""Roles: what a node is to quantization, and which clamp is fused behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from haversack.base.graph import Graph, Node


class Role(Enum):
    """What an op does with integers.

    LAYER multiplies by a weight of its own; ADD and MEAN combine integers under a ratio of scales; CLAMP limits;
    SAME moves values without changing them (its output has its input's encoding); CONCAT joins tensors of one
    encoding; EMBEDDING looks rows up; INPUT brings data; FLOAT is everything else.
    """

    INPUT = "input"
    LAYER = "layer"
    EMBEDDING = "embedding"
    ADD = "add"
    MEAN = "mean"
    CLAMP = "clamp"
    SAME = "same"
    CONCAT = "concat"
    FLOAT = "float"


_SAME = frozenset(
    {
        *("view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "squeeze", "unsqueeze", "expand"),
        *("dropout", "clone", "contiguous", "alias", "detach", "slice", "select", "_unsafe_view"),
        *("max_pool2d", "max_pool1d", "channel_shuffle", "pixel_shuffle"),
    }
)
_LAYERS = frozenset({"conv1d", "conv2d", "linear"})
_IMAGE_DIMENSIONS = 4


def role(node: Node) -> Role:  # noqa: PLR0911 - a table in words
    """Return the role of a node."""
    if node.op == "input":
        return Role.INPUT
    if not node.inputs and node.op != "embedding":  # computed from constants alone: positions, masks of nothing
        return Role.FLOAT
    if not node.output.dtype.startswith(("float", "bfloat")):  # sums and limits of indices and masks are no layers
        return Role.SAME if node.op in _SAME else Role.FLOAT
    if node.op in _LAYERS and node.weight is not None and len(node.inputs) == 1:
        return Role.LAYER
    if node.op == "embedding" and node.weight is not None:
        return Role.EMBEDDING
    if node.op == "add" and len(node.inputs) == 2 and node.attributes.get("alpha", 1) == 1:
        return Role.ADD
    if _is_spatial_mean(node):
        return Role.MEAN
    if clamp_bounds(node) is not None:
        return Role.CLAMP
    if node.op in _SAME or _is_zero_pad(node):
        return Role.SAME
    return Role.CONCAT if node.op == "cat" else Role.FLOAT


def clamp_bounds(node: Node) -> tuple[float, float] | None:
    """Return the real interval a clamp limits to, or None if the node is no clamp with constant limits."""
    if node.op == "relu":
        return 0.0, float("inf")
    if node.op == "relu6":
        return 0.0, 6.0
    if node.op in ("hardtanh", "clamp") and len(node.inputs) == 1 and not node.parameters:
        names = ("min_val", "max_val") if node.op == "hardtanh" else ("min", "max")
        low, high = (node.attributes.get(name) for name in names)
        if isinstance(low, int | float | None) and isinstance(high, int | float | None):
            return float("-inf") if low is None else float(low), float("inf") if high is None else float(high)
    return None


def is_product(graph: Graph, node: Node) -> bool:
    """Say whether a layer is one product of matrices: a linear layer, or a 1x1 convolution that visits every place."""
    if role(node) is not Role.LAYER or node.op == "linear":
        return node.op == "linear" and role(node) is Role.LAYER
    before, after = graph.by_key[node.inputs[0]].output.shape, node.output.shape
    if node.op != "conv2d" or node.attributes.get("groups") != 1 or before[2:] != after[2:]:
        return False
    still = [[1], [1, 1], 1]
    if node.attributes.get("stride") not in still or not all(isinstance(size, int) for size in (before[1], *after[1:])):
        return False
    return node.macs == math.prod(int(size) for size in (before[1], *after[1:]))


def is_even_product(graph: Graph, node: Node) -> bool:
    """Say whether a layer is one product of matrices with rows of even length, which XNNPACK takes in 4 bits.

    Rows of odd length leave LiteRT's fast kernels, and ExecuTorch's give other values on processors with AVX-512 VNNI.
    """
    if not is_product(graph, node):
        return False
    shape = graph.by_key[node.inputs[0]].output.shape
    length = shape[-1] if node.op == "linear" else shape[1]
    return isinstance(length, int) and length % 2 == 0


def _is_spatial_mean(node: Node) -> bool:
    if node.op == "adaptive_avg_pool2d":
        return list(node.attributes.get("output_size", ())) == [1, 1]
    if node.op == "mean" and isinstance(node.attributes.get("dim"), list):
        rank = len(node.output.shape) + (0 if node.attributes.get("keepdim") else len(node.attributes["dim"]))
        axes = sorted(axis % rank for axis in node.attributes["dim"])
        return rank == _IMAGE_DIMENSIONS and axes == [2, 3]
    return False


def _is_zero_pad(node: Node) -> bool:
    if node.op not in ("pad", "constant_pad_nd"):
        return False
    return node.attributes.get("mode", "constant") == "constant" and not node.attributes.get("value")


@dataclass(frozen=True)
class Unit:
    """A node with the clamp fused behind it, if there is one: the smallest thing that runs in integers."""

    head: Node
    clamp: Node | None = None

    @property
    def last(self) -> Node:
        """The node whose output leaves the unit."""
        return self.clamp or self.head

    @property
    def out(self) -> str:
        """Tensor key of what leaves the unit."""
        return self.last.out


def units(graph: Graph) -> tuple[Unit, ...]:
    """Return the graph as units in execution order: a clamp joins a layer, add or mean that only it reads."""
    found: list[Unit] = []
    absorbed: set[str] = set()
    for node in graph.nodes:
        if node.key in absorbed:
            continue
        readers = graph.consumers[node.key]
        fused = None
        if (
            role(node) in (Role.LAYER, Role.ADD, Role.MEAN)
            and len(readers) == 1
            and node.key not in graph.outputs
            and role(readers[0]) is Role.CLAMP
        ):
            fused = readers[0]
            absorbed.add(fused.key)
        found.append(Unit(node, fused))
    return tuple(found)
