"""Channel groups: which channels of which tensors are one and the same, with the layers that make and read them.

Scaling a channel by a positive factor wherever it appears changes nothing that leaves it, if its makers are divided and
its readers multiplied by the factor: all in between scales with its input (relu, pads, pools, means, adds of channel
to channel) or puts channels side by side (concatenations, slices). A clamp with an upper limit does not scale, nor does
anything that is not known to: the channels that it gives or reads keep their range, whatever happens to those beside
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from haversack.base.graph import Graph, Node
from haversack.base.model import Model
from haversack.compress.prepare.contract import only_reader
from haversack.tools.graph.roles import Role, clamp_bounds, role
from haversack.tools.numerics.granularity import output_axis

_COPIES = frozenset({"dropout", "clone", "contiguous", "detach", "alias"})
_POOLS = frozenset({"max_pool1d", "max_pool2d", "adaptive_avg_pool2d", "mean"})
_RESHAPES = frozenset({"view", "reshape", "flatten", "squeeze", "_unsafe_view"})
_RELU = (0.0, float("inf"))


@dataclass(frozen=True, eq=False)
class Group:
    """Tensors that share channels, or a scale by being joined.

    Attributes:
        tensors: node key -> the group's channel that each of the tensor's channels is, int64 [tensor's channels].
        makers: layers that give channels which can be scaled, in execution order.
        readers: layers that read such channels.
        free: which of the group's channels can be scaled, bool [channels]; the others keep their range.
    """

    tensors: Mapping[str, np.ndarray]
    makers: tuple[Node, ...]
    readers: tuple[Node, ...]
    free: np.ndarray

    @property
    def channels(self) -> int:
        """How many channels the group has."""
        return len(self.free)


def groups(model: Model) -> Iterator[Group]:
    """Yield the groups of a model that have channels to scale, in execution order."""
    walk = _Walk(model)
    for node in model.graph.nodes:
        walk.enter(node)
    for node in model.graph.nodes:
        walk.pin(node)
    yield from walk.groups()


def groups_of(node: Node) -> int:
    """Return a layer's ``groups`` setting (1 for a linear layer)."""
    return int(node.attributes.get("groups", 1))


@dataclass(frozen=True)
class _Lane:
    """A tensor's channels: their axis, and a number for each of them, int64 [channels]."""

    axis: int
    ids: np.ndarray


@dataclass
class _Walk:
    """What is known of the channels of every tensor; numbers that turn out to be one channel are united."""

    model: Model
    lanes: dict[str, _Lane] = field(default_factory=dict)
    parent: list[int] = field(default_factory=list)
    pinned: set[int] = field(default_factory=set)
    scope: dict[str, str] = field(default_factory=dict)

    def enter(self, node: Node) -> None:
        """Find out what a node's channels are, from what its inputs' are."""
        lane = self._made(node) if role(node) is Role.LAYER else self._carried(node)
        if lane is None or node.output.shape[lane.axis] != len(lane.ids):
            return
        self.lanes[node.key] = lane
        self.scope[node.key] = node.key
        if role(node) is not Role.LAYER:
            for key in node.inputs:
                if key in self.lanes:
                    self.scope[self._scope(key)] = self._scope(node.key)

    def pin(self, node: Node) -> None:
        """Let channels keep their range that a node gives or reads and that cannot be scaled there."""
        graph, lane = self.model.graph, self.lanes.get(node.key)
        if role(node) is Role.LAYER:
            if lane is not None and not self._own(node, node.weight, node.bias):
                self._pin(node.key)
            source = self.lanes.get(node.inputs[0])
            if source is not None and not (self._reads(node, source) and self._own(node, node.weight)):
                self._pin(node.inputs[0])
        elif lane is None:
            for key in node.inputs:
                self._pin(key)
        if node.key in graph.outputs:
            self._pin(node.key)

    def groups(self) -> Iterator[Group]:
        """Yield what was found."""
        fixed = {self._root(one) for one in self.pinned}
        members: dict[str, list[str]] = {}
        for key in self.lanes:
            members.setdefault(self._scope(key), []).append(key)
        for keys in members.values():
            roots = [np.array([self._root(one) for one in self.lanes[key].ids], np.int64) for key in keys]
            numbers = np.unique(np.concatenate(roots))
            tensors = {key: np.searchsorted(numbers, mine) for key, mine in zip(keys, roots, strict=True)}
            free = np.array([number not in fixed for number in numbers.tolist()])
            able = {key for key, index in tensors.items() if free[index].any()}
            layers = [node for node in self.model.graph.nodes if role(node) is Role.LAYER]
            makers = tuple(node for node in layers if node.key in able)
            readers = tuple(node for node in layers if node.inputs[0] in able)
            if makers and readers:
                yield Group(tensors, makers, readers, free)

    def _made(self, node: Node) -> _Lane | None:
        axis = output_axis(node.op) % len(node.output.shape)
        return _Lane(axis, self._fresh(self.model.weights[str(node.weight)].shape[0]))

    def _carried(self, node: Node) -> _Lane | None:
        """Return the channels of a node that scales with its inputs, or puts theirs side by side; None of others."""
        lanes = [self.lanes.get(key) for key in node.inputs]
        known = [lane for lane in lanes if lane is not None]
        if not known or len({lane.axis for lane in known}) != 1:
            return None
        first = known[0]
        if role(node) is Role.CONCAT:
            return self._beside(node, lanes, first.axis)
        if len(known) < len(lanes):
            return None
        if role(node) is Role.ADD:
            return self._added(node, *known)
        if node.op == "slice":
            return _sliced(node, first)
        return first if len(lanes) == 1 and _scales(self.model.graph, node, first.axis) else None

    def _added(self, node: Node, one: _Lane, other: _Lane) -> _Lane | None:
        shapes = [self.model.graph.by_key[key].output.shape for key in node.inputs]
        if any(shape != node.output.shape for shape in shapes):
            return None
        for mine, theirs in zip(one.ids.tolist(), other.ids.tolist(), strict=True):
            self.parent[self._root(mine)] = self._root(theirs)
        return one

    def _beside(self, node: Node, lanes: list[_Lane | None], axis: int) -> _Lane | None:
        """Return the channels of a concatenation; those of inputs that nothing is known of are new and pinned."""
        if int(node.attributes.get("dim", 0)) % len(node.output.shape) != axis:
            return None
        parts = []
        for key, lane in zip(node.inputs, lanes, strict=True):
            size = self.model.graph.by_key[key].output.shape[axis]
            if lane is None and not isinstance(size, int):
                return None
            parts.append(self._fresh(int(size)) if lane is None else lane.ids)
            if lane is None:
                self.pinned.update(parts[-1].tolist())
        return _Lane(axis, np.concatenate(parts))

    def _reads(self, node: Node, source: _Lane) -> bool:
        """Say whether a layer's input channels are a tensor's."""
        shape = self.model.graph.by_key[node.inputs[0]].output.shape
        wanted = self.model.weights[str(node.weight)].shape[1] * groups_of(node)
        return source.axis == output_axis(node.op) % len(shape) and len(source.ids) == wanted

    def _own(self, node: Node, *names: str | None) -> bool:
        return all(name is None or only_reader(self.model, node, name) for name in names)

    def _pin(self, key: str) -> None:
        if key in self.lanes:
            self.pinned.update(self.lanes[key].ids.tolist())

    def _fresh(self, count: int) -> np.ndarray:
        start = len(self.parent)
        self.parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def _root(self, one: int) -> int:
        while self.parent[one] != one:
            self.parent[one] = one = self.parent[self.parent[one]]
        return one

    def _scope(self, key: str) -> str:
        while self.scope[key] != key:
            key = self.scope[key]
        return key


def _sliced(node: Node, lane: _Lane) -> _Lane | None:
    """Return the channels of a slice with limits that are numbers; along another axis all of them."""
    if int(node.attributes.get("dim", 0)) % len(node.output.shape) != lane.axis:
        return lane
    limits = [node.attributes.get(name, default) for name, default in (("start", 0), ("end", None), ("step", 1))]
    if not all(isinstance(limit, int | None) for limit in limits):
        return None
    return _Lane(lane.axis, lane.ids[slice(*limits)])


def _scales(graph: Graph, node: Node, axis: int) -> bool:
    """Say whether channel i on an axis of a node with one input is its input's channel i, and scales with it."""
    if clamp_bounds(node) == _RELU or node.op in _COPIES:
        return True
    before, rank = graph.by_key[node.inputs[0]].output.shape, len(node.output.shape)
    if axis != 1 or len(before) <= 2:  # what follows works on the places of pictures and sequences
        return False
    if node.op in _RESHAPES:
        return all(size == 1 for size in before[2:]) and node.output.shape == before[:2]
    if node.op in ("pad", "constant_pad_nd"):
        return role(node) is Role.SAME and not any(node.attributes["pad"][2 * (rank - 2) :])
    return node.op in _POOLS and role(node) in (Role.SAME, Role.MEAN)
