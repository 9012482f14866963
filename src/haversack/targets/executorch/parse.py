"""What a .pte file holds, as plain data: the program, its delegates' XNNPACK graphs and their constants.

Read by slots of ``program.fbs`` and XNNPACK's ``schema.fbs`` (ExecuTorch 1.x), without torch and without ExecuTorch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from haversack.base.errors import VerificationError
from haversack.targets.executorch.calls import Calls, calls
from haversack.tools.formats.flat import Spoiled, Table, root

ABOUT = "haversack"
"""Name of the constant method whose string tells the interface and the owners of nodes."""
NOWHERE = 0xFFFFFFFF
_DIGITS, _HEAD = 20, 64
_BACKEND = "XnnpackBackend"
_STRING = 6
_TENSOR, _PER_TENSOR, _PER_CHANNEL, _DYNAMIC, _PER_GROUP = 1, 2, 1, 3, 4
OFFSET_IS_NAMED = (1 << 64) - 1
FLOAT32, QINT8, QCINT8, QCINT32, QINT32, QCINT4, QDINT8, QBINT4 = 1, 3, 6, 7, 5, 8, 9, 10
KINDS = (
    "", "Add", "FullyConnected", "Softmax", "Sigmoid", "StaticTranspose", "Clamp", "Conv2d", "Div",
    "StaticResizeBilinear2D", "StaticConstantPad", "AvgPooling2d", "Minimum", "DepthwiseConv2d", "MaxPooling2d",
    "Multiply", "Subtract", "Floor", "Convert", "GlobalAvgPooling2d", "StaticReshape", "ArgMaxPooling2d", "SquareRoot",
    "Ceiling", "Hardswish", "LeakyReLU", "Maximum", "Negate", "Square", "ELU", "Abs", "PReLU", "Concatenate2",
    "Concatenate3", "Concatenate4", "StaticSlice", "ScaledDotProductAttention", "BatchMatrixMultiply", "Concatenate5",
    "ConvTranspose2d", "ReciprocalSquareRoot", "Log", "Gelu", "Tanh", "Exp", "Sin", "Copy", "Cos",
)  # fmt: skip
"""Names of nodes, by their number in the schema's union."""
_FIRST = {"Conv2d": 15, "DepthwiseConv2d": 15, "ConvTranspose2d": 15, "FullyConnected": 0}
"""Kind -> slot of its input; filter, bias and output follow."""
_BINARY = frozenset("Add Div Minimum Multiply Subtract Maximum PReLU BatchMatrixMultiply".split())
_OUTPUTS = {
    "StaticTranspose": 3, "StaticConstantPad": 4, "MaxPooling2d": 11, "AvgPooling2d": 11, "StaticReshape": 3,
    "StaticSlice": 4, "StaticResizeBilinear2D": 3, "ArgMaxPooling2d": 7, "LeakyReLU": 2, "ELU": 2,
    "ScaledDotProductAttention": 5,
}  # fmt: skip
"""Kind -> slot of its output, where the input's stands just before it; 1 where it is not told here."""


@dataclass(frozen=True)
class Value:
    """A tensor of an XNNPACK graph.

    Attributes:
        datatype: as numbered in the schema.
        dims: its shape as XNNPACK has it.
        constant: index of its numbers, 0 for none.
        scale: float32 [] or [channels], or None; of groups, uint16 bits of bfloat16 [rows * groups in a row].
        zero_point: of a per-tensor scale.
        axis: of a per-channel scale.
        group: how many numbers of a row share a scale, or 0.
    """

    datatype: int
    dims: tuple[int, ...]
    constant: int
    scale: np.ndarray | None = None
    zero_point: int = 0
    axis: int | None = None
    group: int = 0


@dataclass(frozen=True)
class Step:
    """A node of an XNNPACK graph: its kind (empty where it is none that we look at) and the values it joins.

    ``limits`` are the real bounds of an activation inside it, or None.
    """

    kind: str
    output: int = NOWHERE
    inputs: tuple[int, ...] = ()
    filter: int = NOWHERE
    bias: int = NOWHERE
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Delegate:
    """One XNNPACK graph and the bytes of its constants."""

    values: tuple[Value, ...]
    steps: tuple[Step, ...]
    constants: tuple[memoryview, ...] = field(repr=False, default=())

    def integers(self, value: Value) -> np.ndarray:
        """Return a constant's int8 or int32 numbers in the shape of the value.

        Raises:
            Spoiled: there are not as many as the shape says.
        """
        kind = np.int32 if value.datatype in (QCINT32, QINT32) else np.int8
        data = self.constants[value.constant]
        count = prod(value.dims)
        if value.datatype in (QCINT4, QBINT4):
            packed = np.frombuffer(data, np.uint8)
            found = np.stack([packed & 15, packed >> 4], -1).reshape(-1).astype(np.int32) - 8
            rows = value.dims[0] if value.dims else 0
            if rows == 0 or found.size % rows or found.size < count:
                raise Spoiled(f"{len(data)} bytes for 4-bit numbers of shape {value.dims}")
            return found.reshape(rows, -1)[:, : count // rows].reshape(value.dims)
        if len(data) < count * np.dtype(kind).itemsize:
            raise Spoiled(f"{len(data)} bytes for a constant of shape {value.dims}")
        return np.frombuffer(data, kind, count).reshape(value.dims).astype(np.int32)


@dataclass(frozen=True)
class Program:
    """A .pte file: what it says about itself, its delegates, and the operators and calls outside of them."""

    about: Mapping[str, Any]
    delegates: tuple[Delegate, ...]
    portable: tuple[str, ...]
    calls: Calls = field(default_factory=Calls, repr=False)


def parse(path: Path) -> Program:
    """Return what a .pte file holds.

    Raises:
        VerificationError: it is no .pte file, or not one that we have written.
        OSError: it cannot be read.
    """
    try:
        return _program(path.read_bytes())
    except Spoiled as error:
        raise VerificationError(f"not a .pte file that we have written: {error}", where=str(path)) from error


def about(path: Path) -> Mapping[str, Any]:
    """Return what a .pte file says about itself, of which nothing else is read: neither graphs nor numbers.

    Raises:
        VerificationError: it is no .pte file, or says nothing.
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            head, size = stream.read(_HEAD), os.fstat(stream.fileno()).st_size
            base = int.from_bytes(head[24:32], "little") if head[8:12] == b"eh00" else 0  # where the numbers begin
            program = root(head + stream.read(max(min(base or size, size) - len(head), 0)), b"ET12")
        return _about({plan.text(0): plan for plan in program.tables(1)})
    except Spoiled as error:
        raise VerificationError(f"not a .pte file that we have written: {error}", where=str(path)) from error


def _program(data: bytes) -> Program:
    view = memoryview(data)  # nothing is copied: parts of a spoiled file may overlap
    program = root(view, b"ET12")
    base = int.from_bytes(data[24:32], "little") if data[8:12] == b"eh00" else 0
    segments = [(base + s.integer(0, "Q"), s.integer(1, "Q")) for s in program.tables(4)]

    def segment(index: int) -> memoryview:
        if index >= len(segments) or sum(segments[index]) > len(data):
            raise Spoiled(f"there is no segment {index}")
        start, size = segments[index]
        return view[start : start + size]

    named = {entry.text(0): entry.integer(1) for entry in program.tables(7)}
    inline = [memoryview(table.octets(0)) for table in program.tables(3)]
    plans = {plan.text(0): plan for plan in program.tables(1)}
    if "forward" not in plans:
        raise Spoiled("it has no method forward")
    plan = plans["forward"]
    delegates, read = [], 0
    for delegate in plan.tables(7):
        reference = delegate.table(1)
        if delegate.text(0) != _BACKEND or reference is None:
            raise Spoiled(f"a delegate of {delegate.text(0)!r}")
        index = reference.integer(1)
        if not reference.integer(0, "b") and index >= len(inline):
            raise Spoiled(f"there is no delegate data {index}")
        blob = segment(index) if reference.integer(0, "b") else inline[index]
        read += len(blob)
        if read > len(data):
            raise Spoiled("its delegates overlap")
        delegates.append(_delegate(blob, lambda key: segment(named.get(key, len(segments)))))
    return Program(_about(plans), tuple(delegates), _portable(plan), calls(program, plan, segment))


def _about(plans: Mapping[str, Table]) -> Mapping[str, Any]:
    for value in plans[ABOUT].tables(2) if ABOUT in plans else ():
        text = value.table(1)
        if value.integer(0, "B") == _STRING and text is not None:
            return told(text.text(0))
    raise Spoiled("it says nothing about itself")


def told(text: str) -> Mapping[str, Any]:
    """Return what a file says about itself; its ``layers``, if it tells them, are place -> node key.

    Raises:
        Spoiled: it is not JSON as we write it.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:  # no JSON, a number too long, lists too deep
        raise Spoiled(f"what it says about itself is no JSON: {error}") from error
    layers = found.get("layers", {}) if isinstance(found, dict) else None
    if not isinstance(layers, dict) or not all(isinstance(key, str) for key in layers.values()):
        raise Spoiled("what it says about itself does not tell its layers as we write them")
    return dict(found)


def place(name: object) -> tuple[int, int]:
    """Return (delegate, value or node) of a name ``delegate/index``.

    Raises:
        Spoiled: it is no such name.
    """
    number, _, index = str(name).partition("/")
    if not (number.isdecimal() and index.isdecimal()) or len(number + index) > _DIGITS:
        raise Spoiled(f"{str(name)[:_DIGITS]!r} is no place in the file")
    return int(number), int(index)


def _portable(plan: Table) -> tuple[str, ...]:
    """Return the names of the operators that are called outside of delegates."""
    return tuple(operator.text(0) for operator in plan.tables(6))


def _delegate(blob: memoryview, named: Any) -> Delegate:  # noqa: ANN401 - str -> memoryview
    if bytes(blob[4:8]) != b"XH00" or len(blob) < 30:
        raise Spoiled("a delegate without XNNPACK's header")
    start, size = (int.from_bytes(blob[at : at + 4], "little") for at in (10, 14))
    constants_at = int.from_bytes(blob[18:22], "little")
    graph = root(blob[start : start + size], b"XN01")
    constants = [memoryview(b"")]
    for entry in graph.tables(8)[1:]:
        offset = entry.integer(0, "Q")
        if offset == OFFSET_IS_NAMED:
            constants.append(named(entry.text(2)))
        else:
            constants.append(blob[constants_at + offset : constants_at + offset + entry.integer(1, "Q")])
    values = tuple(_value(value, constants) for value in graph.tables(2))
    steps = tuple(_step(node, len(values)) for node in graph.tables(1))
    return Delegate(values, steps, tuple(constants))


def _value(value: Table, constants: list[memoryview]) -> Value:
    kind, tensor = value.integer(0, "B"), value.table(1)
    quantized = tensor if kind != _TENSOR else None
    tensor = quantized.table(0) if quantized is not None else tensor
    if tensor is None:
        raise Spoiled("a value without a tensor")
    datatype, dims, constant = tensor.integer(0, "h"), tensor.numbers(2, "I"), tensor.integer(3)
    if constant >= len(constants):
        raise Spoiled(f"there is no constant {constant}")
    parameters = quantized.table(2) if quantized is not None else None
    how = quantized.integer(1, "B") if quantized is not None else 0
    if parameters is None or how == _DYNAMIC:
        return Value(datatype, dims, constant)
    if how == _PER_TENSOR:
        scale = np.array(parameters.number(0, "f"), np.float32)
        return Value(datatype, dims, constant, scale, parameters.integer(1, "i"))
    if how == _PER_GROUP:
        index, count = parameters.integer(4), parameters.integer(5)
        if not count or index >= len(constants) or len(constants[index]) < 2 * count:
            raise Spoiled("a scale for each group that is not stored as we write it")
        bits, group = np.frombuffer(constants[index], np.uint16, count), parameters.integer(2, "i")
        return Value(datatype, dims, constant, bits, 0, parameters.integer(1, "i"), group)
    index, count = parameters.integer(2), parameters.integer(3)
    if how != _PER_CHANNEL or index >= len(constants) or len(constants[index]) < 4 * count:
        raise Spoiled("a scale for each channel that is not stored as we write it")
    scale = np.frombuffer(constants[index], np.float32, count)  # no copy: many values may name the same bytes
    return Value(datatype, dims, constant, scale, 0, parameters.integer(1, "i"))


def _step(node: Table, count: int) -> Step:
    number, union = node.integer(0, "B"), node.table(1)
    if union is None or not 0 < number < len(KINDS):
        raise Spoiled(f"a node of an unknown kind {number}")
    kind, limits = KINDS[number], node.table(3)
    bounds = None if limits is None else (limits.number(0, "f"), limits.number(1, "f"))
    if kind in _FIRST:
        first = _FIRST[kind]
        source, weight, bias, output = (union.integer(first + step) for step in range(4))
        found = Step(kind, output, (source,), weight, bias, bounds)
    elif kind in _BINARY:
        found = Step(kind, union.integer(2), (union.integer(0), union.integer(1)), limits=bounds)
    elif kind.startswith("Concatenate"):
        slots = (1, 2, 3, 4, 7)[: int(kind[-1])]
        found = Step(kind, union.integer(5), tuple(union.integer(slot) for slot in slots), limits=bounds)
    else:
        output = _OUTPUTS.get(kind, 1)
        found = Step(kind, union.integer(output), (union.integer(output - 1),), limits=bounds)
    needed = (found.output, *found.inputs, *((found.filter,) if kind in _FIRST else ()))
    for index in (*needed, found.bias):
        if index >= count and (index in needed or index != NOWHERE):
            raise Spoiled(f"there is no value {index}")
    return found
