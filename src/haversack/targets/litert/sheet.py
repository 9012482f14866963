"""One subgraph of a file while it is written: its tensors and operators, and what the values of the model are in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from haversack.base.encodings import Affine
from haversack.targets.litert import order as orders
from haversack.targets.litert.flat import Blocks, Operator, Quantization, Subgraph, Tensor, schema
from haversack.targets.litert.naming import ASKED, SCALE
from haversack.targets.litert.order import Order
from haversack.tools.numerics.packing import pack

OFFSET = 128
"""LiteRT computes in int8: a code of ours less this is a code of its, with the zero-point moved alike."""
_VERSIONS = {
    "FULLY_CONNECTED": 5,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "DEQUANTIZE": 2,
    "BROADCAST_TO": 2,
    "TRANSPOSE_CONV": 3,
}
"""Versions that say what we use (integers per channel, no bias); the others' first says enough."""


@dataclass(frozen=True)
class Value:
    """A tensor of the file as the model sees it.

    Attributes:
        tensor: its number.
        shape: in the model's axes.
        order: which axis of the model each axis of the file is.
        dtype: float32, int8 (codes), int64, bool …
        grid: what its codes mean, or None.
        asked: whether the model itself exchanged its axes, so that moving it is no detour.
    """

    tensor: int
    shape: tuple[int, ...]
    order: Order
    dtype: str = "float32"
    grid: Affine | None = None
    asked: bool = False


class Store:
    """The constants of a file: equal data are stored once, whatever subgraph reads them."""

    def __init__(self) -> None:
        self.buffers: list[bytes] = [b""]
        self.numbers: dict[bytes, int] = {b"": 0}

    def number(self, data: bytes) -> int:
        """Return the number of a buffer with these bytes."""
        if data not in self.numbers:
            self.numbers[data] = len(self.buffers)
            self.buffers.append(data)
        return self.numbers[data]


class Sheet:
    """One subgraph, being written.

    Args:
        store: of the file.
        name: of the signature.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.graph = Subgraph(name)
        self.classes = schema()
        self.counts: Counter[str] = Counter()
        self.constants: dict[Any, int] = {}
        self.moved: dict[tuple[int, Order], Value] = {}

    def tensor(self, name: str, shape: Sequence[int], dtype: str, quantization: Quantization | None = None) -> int:
        """Return the number of a new tensor, its shape as the file has it."""
        count = self.counts[name]
        self.counts[name] += 1
        unique = f"{name}.{count}" if count else name
        self.graph.tensors.append(
            Tensor(unique, tuple(int(n) for n in shape), self.type(dtype), quantization=quantization)
        )
        return len(self.graph.tensors) - 1

    def type(self, dtype: str) -> int:
        """Return the schema's number of a dtype."""
        return int(getattr(self.classes.TensorType, dtype.upper()))

    def constant(
        self, name: str, array: np.ndarray, quantization: Quantization | None = None, *, dtype: str = ""
    ) -> int:
        """Return the number of a tensor with these numbers, any shape; without quantization equal ones are one.

        ``dtype`` is the array's unless given; ``int4`` packs two codes a byte, the first in the lower half.
        """
        dtype = dtype or ("bool" if array.dtype == bool else str(array.dtype))
        packed = pack(array, 4, signed=True) if dtype == "int4" else np.ascontiguousarray(array)
        data = packed.tobytes()
        key = (data, dtype, array.shape)
        if quantization is None and key in self.constants:
            return self.constants[key]
        number = self.tensor(name, array.shape, dtype, quantization)
        self.graph.tensors[number].buffer = self.store.number(data)
        if quantization is None:
            self.constants[key] = number
        return number

    def blocks(self, name: str, codes: np.ndarray, scales: np.ndarray, size: int) -> int:
        """Return the number of a matrix of 4-bit codes with a scale for each ``size`` neighbours of a row.

        Args:
            name: of the tensor.
            codes: integers [rows, length].
            scales: float16 [rows, length / size].
            size: of a block.
        """
        number = self.tensor(name, codes.shape, "int4")
        self.graph.tensors[number].buffer = self.store.number(pack(codes, 4, signed=True).tobytes())
        self.graph.tensors[number].blocks = Blocks(self.constant(f"{name}{SCALE}", scales), size)
        return number

    def operator(
        self, op: str, inputs: Sequence[int], outputs: Sequence[int], options: str = "", **settings: object
    ) -> None:
        """Add an operator by its builtin name, with options by the name of their class and its fields."""
        code = int(getattr(self.classes.BuiltinOperator, op))
        made, kind = None, 0
        if options:
            made = getattr(self.classes, f"{options}T")()
            kind = int(getattr(self.classes.BuiltinOptions, options))
            for field, value in settings.items():
                setattr(made, field, value)
        version = _VERSIONS.get(op, 1)
        if op in (
            "ADD",
            "SUB",
            "MUL",
            "PAD",
            "PADV2",
            "MEAN",
            "CONCATENATION",
            "TRANSPOSE",
            "MAX_POOL_2D",
            "RESHAPE",
        ) and any(self.graph.tensors[number].type == self.type("int8") for number in inputs):
            version = 1 if op == "RESHAPE" else 2
        self.graph.operators.append(Operator(code, tuple(inputs), tuple(outputs), kind, made, version))

    def value(
        self, name: str, shape: Sequence[int], order: Order, dtype: str = "float32", grid: Affine | None = None
    ) -> Value:
        """Return a new value; with a grid it is int8 codes."""
        meaning = None if grid is None else quantization(grid)
        dtype = dtype if grid is None else "int8"
        number = self.tensor(name, orders.filed(shape, order), dtype, meaning)
        return Value(number, tuple(shape), order, dtype, grid)

    def number(self, name: str, array: np.ndarray) -> Value:
        """Return a constant as a value, any shape and dtype, in the model's own order."""
        number = self.constant(name, array)
        return Value(number, array.shape, orders.plain(array.ndim), self.dtype(number))

    def dtype(self, number: int) -> str:
        """Return the dtype of a tensor."""
        kinds = vars(self.classes.TensorType)
        found = self.graph.tensors[number].type
        return next(str(name).lower() for name, value in kinds.items() if value == found and name.isupper())

    def ordered(self, value: Value, order: Order, name: str) -> Value:
        """Return a value in another order: the same tensor, a reshaped one, or a transposed one; each is made once."""
        if value.order == order:
            return value
        key = (value.tensor, tuple(orders.steps(value.order, order)))
        if key in self.moved:
            return replace(self.moved[key], shape=value.shape, order=order)
        old, new = (orders.filed(value.shape, each) for each in (value.order, order))
        if orders.same_data(value.shape, value.order, order):
            made = value if old == new else self.reshaped(value, value.shape, order, name)
            made = replace(made, order=order)
        else:
            made = self.value(
                f"{name}/{ASKED if value.asked else 'TRANSPOSE'}", value.shape, order, value.dtype, value.grid
            )
            steps = np.array(orders.steps(value.order, order), np.int32)
            inputs = [value.tensor, self.constant(f"{name}/permutation", steps)]
            self.operator("TRANSPOSE", inputs, [made.tensor], "TransposeOptions")
        self.moved[key] = made
        return made

    def reshaped(self, value: Value, shape: Sequence[int], order: Order, name: str) -> Value:
        """Return the same data under another shape (of the model's axes) and order."""
        made = self.value(f"{name}/RESHAPE", shape, order, value.dtype, value.grid)
        wanted = np.array(orders.filed(shape, order), np.int32)
        inputs = [value.tensor, self.constant(f"{name}/shape", wanted)]
        self.operator("RESHAPE", inputs, [made.tensor], "ReshapeOptions", newShape=[int(size) for size in wanted])
        return made

    def quantized(self, value: Value, grid: Affine, name: str) -> Value:
        """Return the codes of a float value."""
        made = self.value(name, value.shape, value.order, grid=grid)
        self.operator("QUANTIZE", [value.tensor], [made.tensor], "QuantizeOptions")
        return made

    def dequantized(self, value: Value, name: str) -> Value:
        """Return the float value of codes."""
        made = self.value(name, value.shape, value.order)
        self.operator("DEQUANTIZE", [value.tensor], [made.tensor], "DequantizeOptions")
        return made

    def rename(self, number: int, name: str) -> None:
        """Give a tensor the name that tells what it is."""
        self.graph.tensors[number].name = name

    def options(self, of: str) -> Mapping[str, int]:
        """Return the values of an enumeration of the schema by name."""
        return {name: value for name, value in vars(getattr(self.classes, of)).items() if not name.startswith("_")}


def quantization(grid: Affine, axis: int = 0) -> Quantization:
    """Return what LiteRT is to know of an encoding: uint8 is moved to int8, signed codes stay."""
    shift = 0 if grid.signed else OFFSET
    return Quantization(grid.scale.reshape(-1), (grid.zero_point.reshape(-1) - shift).astype(np.int64), axis)
