"""From the parts of a file to its bytes: a flatbuffer in which equal vectors are stored once.

The schema is TensorFlow Lite's (``tensorflow/compiler/mlir/lite/schema/schema.fbs``, version 3), by the classes that
ai_edge_litert ships. Their own packer writes every vector of every table anew and aligns no data; half of a small
int8 file would be zero-points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from haversack.base.errors import MissingExtra

if TYPE_CHECKING:
    from types import ModuleType

VERSION = 3
IDENTIFIER = b"TFL3"
ALIGNMENT = 16
"""Bytes: what the schema demands of the data of a buffer."""


@dataclass(frozen=True, eq=False)
class Quantization:
    """What integers mean: ``scale * (q - zero_point)``.

    Attributes:
        scale: float32 [channels], or [1].
        zero_point: int64, the shape of ``scale``.
        axis: of the tensor in the file, that ``scale`` goes along.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int = 0


@dataclass(frozen=True)
class Blocks:
    """What the integers of a matrix mean that has a scale for each ``size`` neighbours of a row: ``scale * q``.

    Attributes:
        scales: number of the tensor that holds them, float16 [rows, blocks].
        size: of a block.
        zeros: number of the tensor of their zero-points, or -1 for none.
    """

    scales: int
    size: int
    zeros: int = -1


@dataclass
class Tensor:
    """One tensor of a subgraph.

    Attributes:
        name: unique in its subgraph.
        shape: as the file has it.
        type: the schema's number.
        buffer: number of its data; 0 for none.
        quantization: of its codes.
        blocks: of its codes, where they have a scale for each block.
        free: of an input or output, the axes on which shorter arrays are filled up.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    buffer: int = 0
    quantization: Quantization | None = None
    free: tuple[int, ...] = ()
    blocks: Blocks | None = None


@dataclass(frozen=True)
class Operator:
    """One operator: its builtin code and version, numbers of its tensors (-1: absent), its options' type and object."""

    code: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options_type: int = 0
    options: Any = None
    version: int = 1


@dataclass
class Subgraph:
    """Tensors (shapes as in the file) and operators of one signature; inputs and outputs are (port, tensor number)."""

    name: str
    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    inputs: list[tuple[str, int]] = field(default_factory=list)
    outputs: list[tuple[str, int]] = field(default_factory=list)


def schema() -> ModuleType:
    """Return the module with the schema's classes.

    Raises:
        MissingExtra: ai_edge_litert is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise MissingExtra("ai-edge-litert", "pack", purpose="writing a LiteRT file") from error
    return schema_py_generated  # type: ignore[no-any-return]  # the package ships no types


def pack(subgraphs: Sequence[Subgraph], buffers: Sequence[bytes]) -> bytes:
    """Return the bytes of a file.

    Args:
        subgraphs: each is a signature of its name.
        buffers: the constants' data, numbers from 0; buffer 0 is empty.

    Raises:
        MissingExtra: ai_edge_litert is not installed.
    """
    return _Packer(schema()).model(subgraphs, buffers)


class _Packer:
    """One file, being packed from its leaves to its root."""

    def __init__(self, classes: ModuleType) -> None:
        import flatbuffers

        self.classes = classes
        self.builder = flatbuffers.Builder(1 << 16)
        self.made: dict[Any, int] = {}

    def model(self, subgraphs: Sequence[Subgraph], buffers: Sequence[bytes]) -> bytes:
        kinds = sorted({(one.code, one.version) for graph in subgraphs for one in graph.operators})
        numbers = {kind: index for index, kind in enumerate(kinds)}
        data = self.tables([self.buffer(each) for each in buffers])
        codes = self.tables([self.code(*kind) for kind in kinds])
        graphs = self.tables([self.subgraph(graph, numbers) for graph in subgraphs])
        signatures = self.tables([self.signature(graph, index) for index, graph in enumerate(subgraphs)])
        root = self.table(
            "Model",
            {
                "Version": VERSION,
                "OperatorCodes": codes,
                "Subgraphs": graphs,
                "Buffers": data,
                "SignatureDefs": signatures,
            },
        )
        self.builder.Finish(root, file_identifier=IDENTIFIER)
        return bytes(self.builder.Output())

    def table(self, name: str, fields: Mapping[str, Any]) -> int:
        """Write a table; equal ones are written once (their fields are numbers and offsets)."""

        def write() -> int:
            getattr(self.classes, f"{name}Start")(self.builder)
            for key, value in fields.items():
                if value is not None:
                    getattr(self.classes, f"{name}Add{key}")(self.builder, value)
            return int(getattr(self.classes, f"{name}End")(self.builder))

        return self.once((name, tuple(fields.items())), write)

    def once(self, key: Any, write: Callable[[], int]) -> int:  # noqa: ANN401 - whatever tells things apart
        if key not in self.made:
            self.made[key] = write()
        return self.made[key]

    def text(self, value: str) -> int:
        return self.once(("text", value), lambda: int(self.builder.CreateString(value)))

    def numbers(self, values: Sequence[int] | np.ndarray, dtype: Any) -> int:  # noqa: ANN401 - any NumPy dtype
        array = np.asarray(values, dtype)
        key = ("numbers", array.dtype.str, array.tobytes())

        def write() -> int:
            if not array.size:
                self.builder.StartVector(array.itemsize, 0, array.itemsize)
                return int(self.builder.EndVector())
            return int(self.builder.CreateNumpyVector(array))

        return self.once(key, write)

    def tables(self, offsets: Sequence[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def buffer(self, data: bytes) -> int:
        if not data:
            return self.table("Buffer", {})
        self.builder.StartVector(1, len(data), ALIGNMENT)
        head = self.builder.head = self.builder.Head() - len(data)
        self.builder.Bytes[head : head + len(data)] = data
        return self.table("Buffer", {"Data": int(self.builder.EndVector())})

    def code(self, code: int, version: int) -> int:
        old = min(code, int(self.classes.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES))
        return self.table("OperatorCode", {"DeprecatedBuiltinCode": old, "Version": version, "BuiltinCode": code})

    def subgraph(self, graph: Subgraph, numbers: Mapping[tuple[int, int], int]) -> int:
        return self.table(
            "SubGraph",
            {
                "Tensors": self.tables([self.tensor(one) for one in graph.tensors]),
                "Inputs": self.numbers([number for _, number in graph.inputs], np.int32),
                "Outputs": self.numbers([number for _, number in graph.outputs], np.int32),
                "Operators": self.tables([self.operator(one, numbers) for one in graph.operators]),
                "Name": self.text(graph.name),
            },
        )

    def tensor(self, tensor: Tensor) -> int:
        signature = [-1 if axis in tensor.free else size for axis, size in enumerate(tensor.shape)]
        meaning = None if tensor.quantization is None else self.quantization(tensor.quantization)
        return self.table(
            "Tensor",
            {
                "Shape": self.numbers(tensor.shape, np.int32),
                "Type": tensor.type,
                "Buffer": tensor.buffer,
                "Name": self.text(tensor.name),
                "Quantization": meaning if tensor.blocks is None else self.blocks(tensor.blocks),
                "ShapeSignature": self.numbers(signature, np.int32) if tensor.free else None,
                "HasRank": True,
            },
        )

    def quantization(self, found: Quantization) -> int:
        fields = {
            "Scale": self.numbers(found.scale, np.float32),
            "ZeroPoint": self.numbers(found.zero_point, np.int64),
            "QuantizedDimension": found.axis,
        }
        return self.table("QuantizationParameters", fields)

    def blocks(self, found: Blocks) -> int:
        fields = {"Scales": found.scales, "ZeroPoints": found.zeros, "BlockSize": found.size}
        details = self.table("BlockwiseQuantization", fields)
        kind = int(self.classes.QuantizationDetails.BlockwiseQuantization)
        return self.table("QuantizationParameters", {"DetailsType": kind, "Details": details})

    def operator(self, operator: Operator, numbers: Mapping[tuple[int, int], int]) -> int:
        options = None
        if operator.options is not None:
            settings = {name: _plain(value) for name, value in vars(operator.options).items()}
            key = ("options", operator.options_type, tuple(settings.items()))
            options = self.once(key, lambda: int(operator.options.Pack(self.builder)))
        return self.table(
            "Operator",
            {
                "OpcodeIndex": numbers[operator.code, operator.version],
                "Inputs": self.numbers(operator.inputs, np.int32),
                "Outputs": self.numbers(operator.outputs, np.int32),
                "BuiltinOptionsType": operator.options_type,
                "BuiltinOptions": options,
            },
        )

    def signature(self, graph: Subgraph, index: int) -> int:
        sides = {}
        for side, ports in (("Inputs", graph.inputs), ("Outputs", graph.outputs)):
            maps = [self.table("TensorMap", {"Name": self.text(name), "TensorIndex": tensor}) for name, tensor in ports]
            sides[side] = self.tables(maps)
        return self.table("SignatureDef", {**sides, "SignatureKey": self.text(graph.name), "SubgraphIndex": index})


def _plain(value: Any) -> Any:  # noqa: ANN401 - numbers, and lists of them
    return tuple(value) if isinstance(value, list | np.ndarray) else value
