"""How many bytes of activations are alive while each unit runs, and where that peaks: from tensor lifetimes alone.

The count follows what runtimes do on CPUs. A tensor takes memory from the unit that makes it to its last reader; inputs
and outputs of the model are held for the whole call. A clamp fused behind a layer and what merely looks at a tensor
(``view``, ``dropout``) take none of their own. A value takes a byte where it is encoded in up to 8 bits, else what its
dtype takes. What depends on no input is part of the file. Left out are weights, scratch memory of kernels (im2col,
packed weights), the gaps that a planner leaves between tensors, and kernels that write over a tensor they read last:
the bytes are a model of a runtime's arena, never a measurement of it.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from haversack.base.encodings import Encodings
from haversack.base.graph import Graph, Node, TensorSpec
from haversack.tools.graph.roles import units

_VIEWS = frozenset(
    "view reshape flatten unflatten squeeze unsqueeze _unsafe_view dropout alias detach contiguous clone".split()
)
_WIDTHS = {"float64": 8, "int64": 8, "complex64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2, "int16": 2}
_ARITHMETIC = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv}
_PICK = "getitem"


@dataclass(frozen=True)
class Tensor:
    """A piece of memory: its tensor key, the node that makes it, its bytes, and the places of the steps that read it.

    ``held`` tensors stay alive until the call ends.
    """

    key: str
    maker: str
    bytes: int
    readers: tuple[int, ...]
    held: bool = False


@dataclass(frozen=True)
class Step:
    """Nodes that run as one: a unit with the views of what it makes.

    Attributes:
        nodes: node keys, in the graph's order; the first does the work.
        makes, reads: places of tensors.
        after: places of the steps that must have run.
    """

    nodes: tuple[str, ...]
    makes: tuple[int, ...]
    reads: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class Live:
    """What is alive while one step runs: node key of its head, and bytes of all tensors together."""

    node: str
    bytes: int


@dataclass(frozen=True)
class Steps:
    """A graph as steps and tensors; ``always`` bytes (the model's inputs) are alive throughout."""

    steps: tuple[Step, ...]
    tensors: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...]

    @cached_property
    def always(self) -> int:
        """Bytes of the model's inputs."""
        return sum(tensor.bytes for tensor in self.inputs)

    def over(self, order: Sequence[int]) -> tuple[Live, ...]:
        """Return the bytes alive at each step, in an order of the steps' places.

        Raises:
            ValueError: it is no order of all steps in which each comes after those it reads from.
        """
        self._check(order)
        left = [len(tensor.readers) for tensor in self.tensors]
        live, found = self.always, []
        for place in order:
            step = self.steps[place]
            live += sum(self.tensors[made].bytes for made in step.makes)
            found.append(Live(step.nodes[0], live))
            for read in step.reads:
                left[read] -= 1
            gone = {*step.reads, *step.makes}
            live -= sum(self.tensors[t].bytes for t in gone if not left[t] and not self.tensors[t].held)
        return tuple(found)

    def alive(self, order: Sequence[int], at: int) -> tuple[Tensor, ...]:
        """Return the tensors alive at the step in place ``at`` of an order, largest first; inputs among them."""
        done, later = set(order[: at + 1]), set(order[at:])
        made = {tensor for place in done for tensor in self.steps[place].makes}
        mine = set(self.steps[order[at]].makes)
        needed = {t for t in made if self.tensors[t].held or t in mine or later.intersection(self.tensors[t].readers)}
        found = [*self.inputs, *(self.tensors[t] for t in sorted(needed))]
        return tuple(sorted((one for one in found if one.bytes), key=lambda one: -one.bytes))

    def _check(self, order: Sequence[int]) -> None:
        if sorted(order) != list(range(len(self.steps))):
            raise ValueError("not an order of all steps")
        places = {step: place for place, step in enumerate(order)}
        for step, place in places.items():
            if any(places[before] > place for before in self.steps[step].after):
                raise ValueError(f"{self.steps[step].nodes[0]} runs before what it reads")


@dataclass(frozen=True)
class Lifetimes:
    """Where memory peaks.

    Attributes:
        live: bytes alive at each step, in execution order.
        alive: the tensors alive at the peak as (key of the node that makes it, bytes), largest first.
    """

    live: tuple[Live, ...]
    alive: tuple[tuple[str, int], ...]

    @property
    def peak(self) -> Live:
        """The first step at which most is alive; an empty node key and 0 bytes for a graph without steps."""
        return max(self.live, key=lambda live: live.bytes, default=Live("", 0))


def lifetimes(graph: Graph, encodings: Encodings | None = None, lengths: Mapping[str, int] | None = None) -> Lifetimes:
    """Return the bytes alive at each step of a graph in the order that it has, and what is alive at the peak.

    Args:
        graph: the canonical graph.
        encodings: how activations are stored; all as the graph has them where absent.
        lengths: free dimension -> length; 1 for those that are absent.
    """
    found = steps(graph, encodings, lengths)
    order = range(len(found.steps))
    live = found.over(order)
    if not live:
        return Lifetimes((), ())
    at = max(order, key=lambda place: live[place].bytes)
    return Lifetimes(live, tuple((one.maker, one.bytes) for one in found.alive(order, at)))


def steps(graph: Graph, encodings: Encodings | None = None, lengths: Mapping[str, int] | None = None) -> Steps:
    """Return a graph as steps, in its order; arguments as for ``lifetimes``."""
    return _Reader(graph, encodings or Encodings.none(), dict(lengths or {})).read()


class _Reader:
    """Turns nodes into steps."""

    def __init__(self, graph: Graph, encodings: Encodings, lengths: dict[str, int]) -> None:
        self.graph = graph
        self.encodings = encodings
        self.lengths = lengths
        self.groups: list[list[Node]] = []
        self.group_of: dict[str, int] = {}
        self.memory: dict[str, str] = {}  # node key -> node key whose tensor it is; absent for what takes no memory
        self.flowing: set[str] = set()  # node keys that depend on an input

    def read(self) -> Steps:
        fused = {unit.clamp.key: unit.head.key for unit in units(self.graph) if unit.clamp is not None}
        for node in self.graph.nodes:
            self._place(node, fused.get(node.key, ""))
        last = {head: clamp for clamp, head in fused.items()}
        own = [key for key, memory in self.memory.items() if key == memory]
        inputs = set(self.graph.inputs)
        made = {key: place for place, key in enumerate(key for key in own if key not in inputs)}
        reads = [self._reads(group, made) for group in self.groups]
        readers: dict[int, list[int]] = {place: [] for place in made.values()}
        for step, wanted in enumerate(reads):
            for tensor in wanted:
                readers[tensor].append(step)
        outputs = {self.memory.get(key, "") for key in self.graph.outputs}
        tensors = tuple(
            Tensor(
                f"{last.get(key, key)}:out", key, self._bytes(last.get(key, key)), tuple(readers[place]), key in outputs
            )
            for key, place in made.items()
        )
        found = tuple(
            Step(
                tuple(node.key for node in group),
                tuple(made[node.key] for node in group if node.key in made),
                reads[number],
                self._after(group, number),
            )
            for number, group in enumerate(self.groups)
        )
        held = tuple(Tensor(f"{key}:out", key, self._bytes(key), (), held=True) for key in self.graph.inputs)
        return Steps(found, tensors, held)

    def _place(self, node: Node, head: str) -> None:
        """Put a node into a step, and say whose memory holds what it makes."""
        if node.key in self.graph.inputs:
            self.flowing.add(node.key)
            self.memory[node.key] = node.key
            return
        if self.flowing.intersection(node.inputs):
            self.flowing.add(node.key)
        source = head or self._viewed(node)
        joined = self.group_of.get(source) if source else None
        if joined is None:
            joined = len(self.groups)
            self.groups.append([])
        self.groups[joined].append(node)
        self.group_of[node.key] = joined
        if node.op == _PICK or not source:
            several = {reader.op for reader in self.graph.consumers[node.key]} == {_PICK}
            if node.key in self.flowing and not several:
                self.memory[node.key] = node.key
        elif source in self.memory:
            self.memory[node.key] = self.memory[source]

    def _viewed(self, node: Node) -> str:
        """Return the node whose result a view, or a picked item, is a part of; nothing for what does some work."""
        tensors = dict.fromkeys(node.inputs)
        return next(iter(tensors)) if len(tensors) == 1 and (node.op in _VIEWS or node.op == _PICK) else ""

    def _reads(self, group: list[Node], made: Mapping[str, int]) -> tuple[int, ...]:
        inside = {node.key for node in group}
        sources = (key for node in group for key in node.inputs if key not in inside)
        places = (made.get(self.memory.get(key, "")) for key in sources)
        return tuple(dict.fromkeys(place for place in places if place is not None))

    def _after(self, group: list[Node], number: int) -> tuple[int, ...]:
        found = {self.group_of[key] for node in group for key in node.inputs if key in self.group_of}
        return tuple(sorted(found - {number}))

    def _bytes(self, key: str) -> int:
        spec = self.graph.by_key[key].output
        encoding = self.encodings.affine(f"{key}:out")
        width = _WIDTHS.get(spec.dtype, 1) if encoding is None else -(-encoding.bits // 8)
        return elements(spec, self.lengths) * width


def elements(spec: TensorSpec, lengths: Mapping[str, int]) -> int:
    """Return the number of elements, free dimensions (names, or sums and products of them) at given lengths, else 1."""
    count = 1
    for size in spec.shape:
        count *= size if isinstance(size, int) else _length(ast.parse(size, mode="eval").body, lengths)
    return count


def _length(tree: ast.expr, lengths: Mapping[str, int]) -> int:
    if isinstance(tree, ast.Constant) and isinstance(tree.value, int):
        return tree.value
    if isinstance(tree, ast.Name):
        return lengths.get(tree.id, 1)
    if isinstance(tree, ast.BinOp) and (does := _ARITHMETIC.get(type(tree.op))) is not None:
        right = _length(tree.right, lengths)
        return max(1, int(does(_length(tree.left, lengths), right or 1)))
    return 1
