"""Cross-layer equalization: channels that differ in range share one scale badly; neighbours can even them out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.base.graph import Graph, Node
from haversack.base.model import Model
from haversack.compress.prepare.contract import PrepareContext, PrepareStep, only_reader
from haversack.tools.graph.roles import Role, clamp_bounds, role
from haversack.tools.numerics.granularity import by_channel

_COPIES = frozenset({"dropout", "clone", "contiguous", "detach", "alias"})
_POOLS = frozenset({"max_pool1d", "max_pool2d", "adaptive_avg_pool2d", "mean"})
_RESHAPES = frozenset({"view", "reshape", "flatten", "squeeze", "_unsafe_view"})
_RELU = (0.0, float("inf"))


@dataclass(frozen=True)
class Equalize(PrepareStep):
    """Evens out the channels of neighbouring layers' weights (Nagel et al. 2019, arXiv:1906.04721, section 4.1).

    For layers 1 and 2 with nothing but relu, padding, pooling or dropout between them, output channel i of the first
    is divided, and what the second reads of it multiplied, by the power of two nearest to sqrt(range_1 / range_2):
    powers of two leave every bit of the float output as it was. A clamp with an upper limit (relu6) is no such path,
    for it does not scale with its input: those pairs are left alone.

    Attributes:
        rounds: passes over all pairs at most; fewer when nothing changes any more.
        limit: largest factor of one channel in all, as a power of two.

    Raises:
        ValueError: a setting is negative.
    """

    leaves: ClassVar[frozenset[str]] = frozenset({"outputs", "graph"})
    rounds: int = 8
    limit: int = 8

    def __post_init__(self) -> None:
        if self.rounds < 0 or self.limit < 0:
            raise ValueError(f"rounds and limit must not be negative, not {self.rounds} and {self.limit}")

    def _inner(self, model: Model, context: PrepareContext) -> Model:  # noqa: ARG002 - weights say it all
        pairs = list(equal_pairs(model))
        weights = dict(model.weights)
        moved: dict[str, np.ndarray] = {}
        for _ in range(self.rounds):
            changes = [self._even(weights, first, second, moved) for first, second in pairs]
            if not any(changes):
                break
        changed = {name: value for name, value in weights.items() if value is not model.weights[name]}
        return model.with_weights(changed, f"equalize: {len(moved)} pairs of layers") if changed else model

    def _even(self, weights: dict[str, np.ndarray], first: Node, second: Node, moved: dict[str, np.ndarray]) -> bool:
        """Even out one pair in place; say whether anything changed."""
        assert first.weight is not None
        assert second.weight is not None
        made, read = weights[first.weight], weights[second.weight]
        range_made = np.abs(by_channel(made, 0)).max(axis=1)
        range_read = np.abs(_by_input(read, _groups(second))).max(axis=1)
        alive = (range_made > 0) & (range_read > 0)
        ratio = np.where(alive, range_made, 1.0) / np.where(alive, range_read, 1.0)
        before = moved.get(first.key, np.zeros(len(ratio), np.int64))
        after = np.clip(before + np.rint(np.log2(ratio) / 2).astype(np.int64), -self.limit, self.limit)
        power = after - before
        if not power.any():
            return False
        moved[first.key] = after
        weights[first.weight] = np.ldexp(made, -power.reshape(-1, *[1] * (made.ndim - 1))).astype(np.float32)
        if first.bias is not None:
            weights[first.bias] = np.ldexp(weights[first.bias], -power).astype(np.float32)
        weights[second.weight] = _scaled(read, power, _groups(second))
        return True


def equal_pairs(model: Model) -> Iterator[tuple[Node, Node]]:
    """Yield the pairs of layers whose channels can be scaled against each other without changing the model."""
    for first in model.graph.nodes:
        if role(first) is not Role.LAYER or not _own(model, first, with_bias=True):
            continue
        second = _next_layer(model.graph, first)
        if second is None or not _own(model, second, with_bias=False):
            continue
        assert first.weight is not None
        assert second.weight is not None
        made = model.weights[first.weight].shape[0]
        if made == model.weights[second.weight].shape[1] * _groups(second):
            yield first, second


def _own(model: Model, node: Node, *, with_bias: bool) -> bool:
    names = [node.weight, node.bias] if with_bias else [node.weight]
    return all(name is None or only_reader(model, node, name) for name in names)


def _next_layer(graph: Graph, first: Node) -> Node | None:
    """Return the layer that alone reads what ``first`` makes, through ops that keep channels and scale with them."""
    node, clamped = first, False
    while len(graph.consumers[node.key]) == 1 and node.key not in graph.outputs:
        before, node = node, graph.consumers[node.key][0]
        if role(node) is Role.LAYER:
            return node
        if clamp_bounds(node) == _RELU and not clamped:
            clamped = True
        elif not _keeps_channels(before, node, first):
            return None
    return None


def _keeps_channels(before: Node, node: Node, first: Node) -> bool:
    if first.op == "linear":
        return node.op in _COPIES
    if node.op in _RESHAPES:
        spatial = before.output.shape[2:]
        return all(size == 1 for size in spatial) and node.output.shape == before.output.shape[:2]
    if node.op in ("pad", "constant_pad_nd"):
        inner = len(node.output.shape) - 2
        return role(node) is Role.SAME and not any(node.attributes["pad"][2 * inner :])
    return node.op in _COPIES | _POOLS and role(node) in (Role.SAME, Role.MEAN)


def _groups(node: Node) -> int:
    return int(node.attributes.get("groups", 1))


def _by_input(weight: np.ndarray, groups: int) -> np.ndarray:
    """Return a weight [out, in / groups, ...] as [in, all values that read the channel]."""
    parts = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return parts.transpose(0, 2, 1, 3).reshape(groups * weight.shape[1], -1)


def _scaled(weight: np.ndarray, power: np.ndarray, groups: int) -> np.ndarray:
    """Return a weight with what it reads of each input channel multiplied by 2^power."""
    parts = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    scaled = np.ldexp(parts, power.reshape(groups, 1, weight.shape[1], 1))
    return np.asarray(scaled, np.float32).reshape(weight.shape)
