"""One op of the graph at the place where it is written: its arguments as values of the program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from haversack.base.encodings import Encodings
from haversack.base.errors import ConversionError
from haversack.base.graph import Node
from haversack.targets.coreml.sheet import Sheet, Value, short
from haversack.tools.graph.program import Constant, Flow, Program


@dataclass
class Values:
    """What is written so far: values by node key, and the pieces of what gives several."""

    made: dict[str, Value] = field(default_factory=dict)
    pieces: dict[str, list[Value]] = field(default_factory=dict)


@dataclass
class Site:
    """What a writer of an op needs.

    Attributes:
        sheet: the program.
        values: of other nodes.
        program: the model at fixed lengths.
        encodings: of the model.
        node: the op.
        arguments: by the names of its schema.
        floats: ``fp16`` or ``fp32``: what this op computes in.
    """

    sheet: Sheet
    values: Values
    program: Program
    encodings: Encodings
    node: Node
    arguments: dict[str, Any]
    floats: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the output."""
        return self.program.shape(self.node)

    @property
    def dtype(self) -> str:
        """Type of the output."""
        return short(self.node.output.dtype, self.floats)

    def value(self, *names: str) -> Value:
        """Return the first of these arguments that is there, as a value."""
        return self.read(next(self.arguments[name] for name in names if name in self.arguments))

    def read(self, found: Any, dtype: str = "") -> Value:  # noqa: ANN401 - any argument
        """Return what an argument is in the program; floats as this op computes in, or anything in a type.

        Raises:
            ConversionError: it is no tensor and no number.
        """
        if isinstance(found, Flow):
            value = self.values.made[found.key]
            kind = self.floats if value.dtype in ("fp16", "fp32") else value.dtype
            return self.sheet.cast(value, dtype or kind)
        if isinstance(found, Constant):
            return self.sheet.constant(
                f"{self.node.key}_c", found.array, dtype or short(str(found.array.dtype), self.floats)
            )
        if isinstance(found, bool | int | float):
            return self.sheet.constant(f"{self.node.key}_c", np.array(found), dtype or self.dtype)
        raise self.refused(f"an argument is {type(found).__name__}")

    def refused(self, cause: str) -> ConversionError:
        """Return the error that tells of this node."""
        return ConversionError(f"{self.node.op}: {cause}", where=self.node.key)

    def emit(self, op: str, shape: Sequence[int], dtype: str = "", /, **inputs: Any) -> Value:  # noqa: ANN401 - values
        """Add an operation; floats as this op computes in, unless a type is given."""
        return self.sheet.emit(op, self.node.key, shape, dtype or self.floats, **inputs)

    def number(self, value: float, dtype: str = "") -> Value:
        """Return a constant number, in floats unless a type is given."""
        return self.sheet.constant(f"{self.node.key}_c", np.array(value), dtype or self.floats)

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """Return a value under another shape of as many elements."""
        if value.shape == tuple(shape):
            return value
        wanted = np.array(shape, np.int32)
        return self.emit(
            "reshape", shape, value.dtype, x=value, shape=self.sheet.constant(f"{self.node.key}_shape", wanted, "int32")
        )
