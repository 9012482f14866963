"""The canonical graph as plain data: what the model computes, by tensor key, without torch.

It mirrors the one torch.export graph that travels beside it in ``Model.program``; ``Node.name`` is the name of the
same node there. Only tensors that flow are edges; parameters are named, and live in ``Model.weights``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from haversack.base import digest


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of a tensor: a dimension is an int, or a name when its length is free (``batch``)."""

    shape: tuple[int | str, ...]
    dtype: str

    def elements(self, free: int = 1) -> int:
        """Return the number of elements with every free dimension taken as ``free``."""
        count = 1
        for size in self.shape:
            count *= free if isinstance(size, str) else size
        return count


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        key: node key (see ``keys``); graph inputs are nodes with op ``input``.
        op: the ATen name without overload, ``conv2d``, ``linear``, ``add``, ``hardtanh``, ``view`` …
        name: the node's name in the torch.export graph.
        inputs: keys of the nodes whose outputs flow in, in order of the arguments.
        weight, bias: names of the parameters in those roles (convolutions, linear, embedding, norms), or None.
        parameters: names of all parameters and buffers it reads.
        attributes: the op's other arguments by name, JSON-able.
        output: shape and dtype of what it produces.
        macs: multiply-accumulates for one sample.
    """

    key: str
    op: str
    name: str
    inputs: tuple[str, ...]
    output: TensorSpec
    weight: str | None = None
    bias: str | None = None
    parameters: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    macs: int = 0

    @property
    def out(self) -> str:
        """The tensor key of what it produces."""
        return f"{self.key}:out"


@dataclass(frozen=True)
class Graph:
    """Nodes in execution order; ``inputs`` and ``outputs`` are node keys."""

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @cached_property
    def by_key(self) -> Mapping[str, Node]:
        """Node of each key."""
        return {node.key: node for node in self.nodes}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """Nodes that read each node's output, in execution order."""
        readers: dict[str, list[Node]] = {node.key: [] for node in self.nodes}
        for node in self.nodes:
            for key in dict.fromkeys(node.inputs):
                readers[key].append(node)
        return {key: tuple(nodes) for key, nodes in readers.items()}

    @cached_property
    def digest(self) -> str:
        """Content digest: ops, wiring, attributes, shapes; not the weights' values."""
        return digest.of_data(
            [
                [
                    n.key,
                    n.op,
                    n.inputs,
                    n.weight,
                    n.bias,
                    n.parameters,
                    dict(n.attributes),
                    n.output.shape,
                    n.output.dtype,
                ]
                for n in self.nodes
            ]
            + [self.inputs, self.outputs]
        )
