"""One op at the place where it is written: its inputs as blobs, its attributes, and what it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from haversack.base.errors import ConversionError
from haversack.base.graph import Graph, Node
from haversack.targets.ncnn.blobs import Array
from haversack.targets.ncnn.sheet import Sheet, Value
from haversack.targets.ncnn.text import Setting

Pads = tuple[int, int, int, int]
"""Left, right, top, bottom."""
MOST_AXES = 3
"""Axes of a blob, without the batch."""


@dataclass
class Site:
    """What a writer of an op needs.

    Attributes:
        sheet: the files.
        node: the op.
        inputs: its tensors that flow in, as blobs: float values, or whole numbers where codes are moved.
        weights: parameter name -> array.
        shape: of the output, without the batch.
        name: of the blob that the op makes.
        bounds: of a clamp that the layer may do as well; ``fused`` says that it does.
        pads: zeros that a pad before the layer adds, which the layer does as well.
    """

    sheet: Sheet
    node: Node
    inputs: Sequence[Value]
    weights: Mapping[str, np.ndarray]
    shape: tuple[int, ...]
    name: str
    bounds: tuple[float, float] | None = None
    fused: bool = field(default=False)
    pads: Pads = (0, 0, 0, 0)

    @property
    def input(self) -> Value:
        """The only input."""
        if len(self.inputs) != 1:
            raise self.refused(f"it reads {len(self.inputs)} tensors")
        return self.inputs[0]

    def attribute(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - any argument of an op
        """Return an argument of the op."""
        return self.node.attributes.get(name, default)

    def pair(self, name: str, default: int = 0) -> tuple[int, int]:
        """Return an argument of two numbers, height first; one number stands for both.

        Raises:
            ConversionError: it is something else.
        """
        found = self.attribute(name)
        values = [default] if found is None or found == [] else found if isinstance(found, list) else [found]
        if len(values) not in (1, 2) or not all(isinstance(value, int) for value in values):
            raise self.refused(f"{name} is {found}")
        return int(values[0]), int(values[-1])

    def parameter(self, name: str | None) -> np.ndarray | None:
        """Return a parameter's values, float32."""
        return None if name is None else np.asarray(self.weights[name], np.float32)

    def refused(self, cause: str) -> ConversionError:
        """Return the error that tells of this op."""
        return ConversionError(f"{self.node.op}: {cause}", where=self.node.key)

    def emit(
        self,
        kind: str,
        inputs: Sequence[Value],
        settings: Mapping[int, Setting] | None = None,
        arrays: Sequence[Array] = (),
        *,
        shape: Sequence[int] | None = None,
        part: str = "",
    ) -> Value:
        """Add a layer and return what it makes: the op's output, or with ``part`` something on the way to it."""
        name = f"{self.node.key}:out/{part}" if part else self.name
        layer = f"{self.node.key}/{part}" if part else self.node.key
        made = Value(name, tuple(self.shape if shape is None else shape))
        return self.sheet.layer(kind, layer, inputs, made, settings, arrays)


def rows(graph: Graph, node: Node) -> str:
    """Return why a tensor has no form in ncnn, whose blobs have no batch axis; empty when it has one."""
    shape = node.output.shape
    batch = {graph.by_key[key].output.shape[:1] for key in graph.inputs}
    if shape[:1] not in batch or len(batch) != 1:
        return "its first axis is not the batch, which ncnn leaves out"
    if not all(isinstance(size, int) for size in shape[1:]):
        return f"its lengths {list(shape[1:])} are not fixed"
    if not 1 <= len(shape) - 1 <= MOST_AXES:
        return f"a tensor of {len(shape) - 1} axes behind the batch: ncnn has 1 to {MOST_AXES}"
    return "" if node.output.dtype == "float32" else f"a tensor of {node.output.dtype}: ncnn computes in float32"
