"""One unit of the graph at the place where it is written: its arguments as values of the file, and what it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from haversack.base.encodings import Affine, Dynamic, Encodings
from haversack.base.errors import ConversionError
from haversack.base.graph import Node
from haversack.targets.litert import order as orders
from haversack.targets.litert.naming import VALUE
from haversack.targets.litert.order import Order
from haversack.targets.litert.sheet import Sheet, Value
from haversack.tools.graph.program import Constant, Flow, Program


@dataclass
class Values:
    """The values of one subgraph by node key: floats, and the codes of what is encoded."""

    sheet: Sheet
    floats: dict[str, Value] = field(default_factory=dict)
    codes: dict[str, Value] = field(default_factory=dict)
    several: dict[str, list[Value]] = field(default_factory=dict)

    def floating(self, key: str) -> Value:
        """Return a value as whoever computes in float reads it: of the codes, where it is encoded."""
        if key in self.codes and key not in self.floats:
            self.floats[key] = self.sheet.dequantized(self.codes[key], f"{key}:out{VALUE}")
        return self.floats[key]


@dataclass
class Site:
    """What a writer of an op needs.

    Attributes:
        values: of the subgraph.
        program: the model at fixed lengths.
        encodings: of the model.
        node: the op.
        arguments: by the names of its schema.
        grid: of the output, where the unit runs in integers; None in float.
        activation: name of the activation that the operator may do as well; ``fused`` says that it does.
    """

    values: Values
    program: Program
    encodings: Encodings
    node: Node
    arguments: dict[str, Any]
    grid: Affine | None = None
    activation: str = "NONE"
    fused: bool = False

    @property
    def sheet(self) -> Sheet:
        """The subgraph."""
        return self.values.sheet

    @property
    def key(self) -> str:
        """The node's key."""
        return self.node.key

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the output, in the model's axes."""
        return self.program.shape(self.node)

    def value(self, name: str) -> Value:
        """Return a tensor argument as a value: codes where the unit runs in integers."""
        return self.read(self.arguments[name])

    def read(self, found: Any) -> Value:  # noqa: ANN401 - any argument
        """Return what an argument is in the file.

        Raises:
            ConversionError: it is no tensor and no number.
        """
        if isinstance(found, Flow):
            if self.grid is not None:
                return self.values.codes[found.key]
            return self.values.floating(found.key)
        if isinstance(found, Constant):
            return self.sheet.number(f"{self.key}/constant", found.array)
        if isinstance(found, int | float):
            return self.sheet.number(f"{self.key}/constant", np.array(found, self.node.output.dtype))
        raise self.refused(f"an argument is {type(found).__name__}")

    def refused(self, cause: str) -> ConversionError:
        """Return the error that tells of this node."""
        return ConversionError(f"{self.node.op}: {cause}", where=self.key)

    def fuse(self) -> int:
        """Return the number of the activation, which the operator that is now written does as well."""
        self.fused = True
        return self.sheet.options("ActivationFunctionType")[self.activation]

    def emit(
        self,
        op: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        order: Order | None = None,
        options: str = "",
        *,
        dtype: str = "float32",
        **settings: object,
    ) -> Value:
        """Add an operator and return what it makes: codes where the unit runs in integers and floats are meant."""
        order = orders.plain(len(shape)) if order is None else order
        grid = self.grid if dtype == "float32" else None
        made = self.sheet.value(f"{self.key}/{op}", shape, order, dtype, grid)
        self.sheet.operator(op, inputs, [made.tensor], options, **settings)
        return made

    def ordered(self, value: Value, order: Order | None = None) -> Value:
        """Return a value in an order; the model's own without one."""
        return self.sheet.ordered(value, orders.plain(len(value.shape)) if order is None else order, self.key)

    def reshape(self, value: Value, shape: Sequence[int], order: Order | None = None) -> Value:
        """Return a value's data, as it lies in the file, under another shape and order."""
        order = orders.plain(len(shape)) if order is None else order
        if orders.filed(value.shape, value.order) == orders.filed(shape, order):
            return Value(value.tensor, tuple(shape), order, value.dtype, value.grid)
        return self.sheet.reshaped(value, shape, order, self.key)

    def constant(self, name: str, array: np.ndarray) -> int:
        """Return the number of a constant tensor, any shape and dtype."""
        return self.sheet.constant(f"{self.key}/{name}", array)

    @property
    def dynamic(self) -> bool:
        """Whether the input is quantized at run time."""
        return isinstance(self.encodings.tensors.get(f"{self.key}:in"), Dynamic)
