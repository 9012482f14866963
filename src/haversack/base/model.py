"""A model as it travels: the canonical graph, its exported program, and its current weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from haversack.base import digest
from haversack.base.graph import Graph, TensorSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Sample = tuple[np.ndarray, ...]
"""One batch of inputs, NumPy arrays in the order of the model's inputs, batch first."""


@dataclass(frozen=True)
class Port:
    """A named input or output of the model; shape dimensions are ints, or names where the length is free."""

    name: str
    spec: TensorSpec


@dataclass(frozen=True)
class Model:
    """What every stage of the workshop takes.

    Attributes:
        name: the model's name in reports.
        graph: the canonical graph.
        program: the same graph as torch.export made it (structure only: read values from ``weights``).
        weights: parameter and buffer name -> float array; these values count, not those inside ``program``.
        inputs, outputs: the model's interface.
        notes: what preparation did, one line each, in order.
    """

    name: str
    graph: Graph
    program: ExportedProgram
    weights: Mapping[str, np.ndarray]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    notes: tuple[str, ...] = field(default=())

    def with_weights(self, changed: Mapping[str, np.ndarray], note: str = "") -> Model:
        """Return the model with some weights replaced.

        Raises:
            KeyError: a name is not a parameter of the model.
            ValueError: a new value has another shape.
        """
        for name, value in changed.items():
            if value.shape != self.weights[name].shape:
                message = f"{name}: shape {value.shape} does not fit {self.weights[name].shape}"
                raise ValueError(message)
        notes = (*self.notes, note) if note else self.notes
        return replace(self, weights={**self.weights, **changed}, notes=notes)

    @cached_property
    def digest(self) -> str:
        """Content digest of graph, interface and weights."""
        ports: list[Any] = [[p.name, p.spec.shape, p.spec.dtype] for p in (*self.inputs, *self.outputs)]
        return digest.of_data([self.graph.digest, digest.of_arrays(self.weights), ports])

    @property
    def free_lengths(self) -> tuple[str, ...]:
        """Names of the free dimensions of the inputs, the batch (axis 0 of an input) left out."""
        shapes = [port.spec.shape for port in self.inputs]
        batch = {shape[0] for shape in shapes if shape}
        return tuple(sorted({size for shape in shapes for size in shape if isinstance(size, str)} - batch))

    @property
    def parameter_count(self) -> int:
        """Number of weight elements that some node reads."""
        read = {name for node in self.graph.nodes for name in node.parameters}
        return sum(self.weights[name].size for name in read)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one sample."""
        return sum(node.macs for node in self.graph.nodes)
