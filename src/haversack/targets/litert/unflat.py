"""From the bytes of a file back to its parts, for whoever checks, copies or times it.

A file may have been spoiled by anybody: what does not hold together is told as ``Foreign``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from haversack.base.errors import VerificationError
from haversack.targets.litert.flat import IDENTIFIER, VERSION, Blocks, Operator, Quantization, Subgraph, Tensor, schema
from haversack.tools.numerics.packing import packed_bytes, unpack

Read = TypeVar("Read")
_SIZES = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT8": np.int8, "INT32": np.int32, "INT64": np.int64}
_MOST = 1 << 17
"""Tensors and operators and buffers: more no file of ours has."""
_AXES = 8
_LINKS = 1 << 12
"""Tensors of one operator, bytes of a name: more no file of ours has."""


class Foreign(ValueError):
    """Not as we write a file."""


class File:
    """A file's parts.

    Args:
        data: its bytes.

    Attributes:
        subgraphs: as they were packed.
        buffers: their constants' data.

    Raises:
        Foreign: it is no LiteRT file, or its parts do not hold together.
    """

    def __init__(self, data: bytes) -> None:
        self.classes = schema()
        self._parts = 0
        if len(data) < 16 or data[4:8] != IDENTIFIER:
            raise Foreign("it does not begin as a LiteRT file")
        try:
            self._unpack(data)
        except (struct.error, IndexError, ValueError, AttributeError, TypeError, OverflowError) as error:
            raise Foreign(f"{type(error).__name__}: {error}") from error
        self._check()

    def _unpack(self, data: bytes) -> None:
        model = self.classes.Model.GetRootAs(data, 0)
        if model.Version() != VERSION:
            raise Foreign(f"version {model.Version()} of the schema")
        self.buffers, total = [], 0
        for index in self._count(model.BuffersLength()):
            self.buffers.append(_data(model.Buffers(index)))
            total += len(self.buffers[-1])
            if total > len(data):
                raise Foreign("its buffers hold more data than the file: they overlap")
        self.codes = []
        for index in self._count(model.OperatorCodesLength()):
            code = model.OperatorCodes(index)
            self.codes.append((max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), code.Version()))
        self.subgraphs = [self._subgraph(model.Subgraphs(index)) for index in self._count(model.SubgraphsLength())]
        for index in self._count(model.SignatureDefsLength()):
            signature = model.SignatureDefs(index)
            graph = self.subgraphs[signature.SubgraphIndex()]
            graph.name = signature.SignatureKey().decode()
            graph.inputs = [_port(signature.Inputs(at)) for at in self._count(signature.InputsLength())]
            graph.outputs = [_port(signature.Outputs(at)) for at in self._count(signature.OutputsLength())]

    def _count(self, found: int) -> range:
        """Return the numbers of some parts; all of a file together are not many, however often it names one."""
        self._parts += found
        if self._parts > _MOST:
            raise Foreign(f"more than {_MOST} parts")
        return range(found)

    def _subgraph(self, found: Any) -> Subgraph:  # noqa: ANN401 - a table of the schema
        graph = Subgraph(_text(found.Name()))
        graph.tensors = [_tensor(found.Tensors(index)) for index in self._count(found.TensorsLength())]
        graph.operators = [self._operator(found.Operators(index)) for index in self._count(found.OperatorsLength())]
        return graph

    def _operator(self, found: Any) -> Operator:  # noqa: ANN401 - a table of the schema
        if max(found.InputsLength(), found.OutputsLength()) > _LINKS:
            raise Foreign(f"an operator of more than {_LINKS} tensors")
        code, version = self.codes[found.OpcodeIndex()]
        kind = found.BuiltinOptionsType()
        options = self.classes.BuiltinOptionsCreator(kind, found.BuiltinOptions()) if kind else None
        inputs, outputs = (tuple(int(n) for n in each) for each in (found.InputsAsNumpy(), found.OutputsAsNumpy()))
        return Operator(code, inputs, outputs, kind, options, version)

    def _check(self) -> None:
        """See that numbers lead somewhere, and that each tensor is made before it is read."""
        if not self.subgraphs:
            raise Foreign("no subgraph")
        for graph in self.subgraphs:
            count = len(graph.tensors)
            ends = [number for _, number in (*graph.inputs, *graph.outputs)]
            used = [number for one in graph.operators for number in (*one.inputs, *one.outputs)]
            ends += [tensor.blocks.scales for tensor in graph.tensors if tensor.blocks is not None]
            if any(not -1 <= number < count for number in (*ends, *used)) or -1 in ends:
                raise Foreign("an operator, a signature or a block names a tensor that is not there")
            if any(not 0 <= tensor.buffer < len(self.buffers) for tensor in graph.tensors):
                raise Foreign("a tensor names a buffer that is not there")
            if len({tensor.name for tensor in graph.tensors}) < count:
                raise Foreign("two tensors have one name")
            made = {number for _, number in graph.inputs}
            made |= {number for number, tensor in enumerate(graph.tensors) if tensor.buffer}
            for one in graph.operators:
                if not one.inputs or not one.outputs or one.inputs[0] < 0 or min(one.outputs) < 0:
                    raise Foreign(f"{self.name(one)} reads nothing, or makes nothing")
                if not made.isdisjoint(one.outputs):
                    raise Foreign(f"{self.name(one)} makes what is there already")
                if any(number not in made for number in one.inputs if number >= 0):
                    raise Foreign(f"{self.name(one)} reads what is made only later")
                made |= set(one.outputs)

    def name(self, operator: Operator) -> str:
        """Return the builtin name of an operator."""
        return _names(self.classes.BuiltinOperator).get(operator.code, str(operator.code))

    def dtype(self, tensor: Tensor) -> str:
        """Return the name of a tensor's type, in capitals."""
        return _names(self.classes.TensorType).get(tensor.type, str(tensor.type))

    def numbers(self, tensor: Tensor) -> np.ndarray | None:
        """Return a copy of a constant's numbers, in the tensor's dtype (int8 for 4 bits) and shape, or None.

        Raises:
            Foreign: its bytes are not of its dtype and shape.
        """
        data = self.buffers[tensor.buffer] if tensor.buffer else b""
        kind = self.dtype(tensor)
        count = math.prod(tensor.shape)
        if not tensor.buffer:
            return None
        if kind == "INT4":
            if len(data) != packed_bytes(count, 4):
                raise Foreign(f"{tensor.name}: {len(data)} bytes are not {count} codes of 4 bits")
            return unpack(np.frombuffer(data, np.uint8), 4, count, signed=True).astype(np.int8).reshape(tensor.shape)
        if kind not in _SIZES:
            return None
        dtype = np.dtype(_SIZES[kind])
        if len(data) != count * dtype.itemsize:
            raise Foreign(f"{tensor.name}: {len(data)} bytes are not {count} numbers of {dtype}")
        return np.frombuffer(data, dtype).reshape(tensor.shape).copy()


def guarded(path: Path, read: Callable[[File], Read]) -> Read:
    """Open a LiteRT file and return what ``read`` makes of its parts.

    Raises:
        VerificationError: it is no LiteRT file, or not one that we have written.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    try:
        return read(File(data))
    except Foreign as error:
        raise VerificationError(f"not a LiteRT file that we have written: {error}", where=str(path)) from error


def _names(of: Any) -> dict[int, str]:  # noqa: ANN401 - an enumeration of the schema
    return {value: name for name, value in vars(of).items() if isinstance(value, int) and not name.startswith("_")}


def _data(buffer: Any) -> bytes:  # noqa: ANN401 - a table of the schema
    if buffer is None or buffer.DataIsNone():
        return b""
    return bytes(buffer.DataAsNumpy())


def _tensor(found: Any) -> Tensor:  # noqa: ANN401 - a table of the schema
    if max(found.ShapeLength(), found.ShapeSignatureLength()) > _AXES:
        raise Foreign(f"a tensor of more than {_AXES} axes")
    shape = () if found.ShapeIsNone() else tuple(int(size) for size in found.ShapeAsNumpy())
    if any(size < 0 for size in shape):
        raise Foreign("a length below 0")
    signature = () if found.ShapeSignatureIsNone() else found.ShapeSignatureAsNumpy()
    free = tuple(axis for axis, size in enumerate(signature) if size == -1)
    meaning, blocks = _quantization(found), _blocks(found)
    return Tensor(_text(found.Name()), shape, found.Type(), found.Buffer(), meaning, free, blocks)


def _quantization(found: Any) -> Quantization | None:  # noqa: ANN401 - a table of the schema
    meaning = found.Quantization()
    if meaning is None or meaning.ScaleIsNone() or not meaning.ScaleLength():
        return None
    scale = np.asarray(meaning.ScaleAsNumpy(), np.float32)  # a view: many tensors may share one vector
    zeros = np.zeros(0, np.int64) if meaning.ZeroPointIsNone() else np.asarray(meaning.ZeroPointAsNumpy(), np.int64)
    return Quantization(scale, zeros, meaning.QuantizedDimension())


def _blocks(found: Any) -> Blocks | None:  # noqa: ANN401 - a table of the schema
    meaning, classes = found.Quantization(), schema()
    if meaning is None or meaning.DetailsType() != classes.QuantizationDetails.BlockwiseQuantization:
        return None
    details = classes.BlockwiseQuantization()
    table = meaning.Details()
    details.Init(table.Bytes, table.Pos)
    return Blocks(details.Scales(), details.BlockSize(), details.ZeroPoints())


def _port(found: Any) -> tuple[str, int]:  # noqa: ANN401 - a table of the schema
    return _text(found.Name()), found.TensorIndex()


def _text(found: bytes | None) -> str:
    if found is not None and len(found) > _LINKS:
        raise Foreign(f"a name of more than {_LINKS} bytes")
    return (found or b"").decode()


def reading(graph: Subgraph) -> Iterator[tuple[Operator, int]]:
    """Yield (operator, number of a tensor that it reads)."""
    for operator in graph.operators:
        for number in operator.inputs:
            if number >= 0:
                yield operator, number
