"""Opening a file that anybody may have spoiled: what reading relies on is checked first, in one place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from haversack.base.errors import VerificationError
from haversack.tools.graph.onnx import mapped, unpack

if TYPE_CHECKING:
    import onnx_ir as ir

_INPUTS = {
    "QuantizeLinear": 2,
    "DequantizeLinear": 2,
    "DynamicQuantizeLinear": 1,
    "Conv": 2,
    "Gemm": 2,
    "MatMul": 2,
    "MatMulInteger": 2,
    "Gather": 2,
    "GatherElements": 2,
    "Reshape": 2,
    "Mul": 2,
    "Cast": 1,
    "Transpose": 1,
    "MatMulNBits": 3,
}
"""Operator that is read -> how many inputs it has at least."""
Read = TypeVar("Read")


class Foreign(ValueError):
    """Not as we write a file: text that is none, a node without its inputs, an order that is none, spoiled numbers."""


def guarded(path: Path, read: Callable[[ir.Graph], Read]) -> Read:
    """Open an ONNX file and return what ``read`` makes of its graph.

    Raises:
        VerificationError: it is no ONNX file, or not one that we have written.
        OSError: it cannot be read.
    """
    import onnx_ir as ir
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
    from onnx_ir.serde import SerdeError

    try:
        model = ir.load(path)
        if not all(map(unpack.is_ours, model.functions.values())):
            raise Foreign("it brings functions that are not ours")
        _check(model.graph)
        return read(model.graph)
    except (DecodeError, SerdeError, Foreign) as error:
        cause = f"not an ONNX file that we have written: {type(error).__name__}: {error}"
        raise VerificationError(cause, where=str(path)) from error


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Return a copy of an initializer's numbers, or None where a value is none.

    Raises:
        Foreign: its bytes are not of its dtype and shape, or are not held as we write them.
    """
    import onnx_ir as ir

    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    found = value.const_value
    if isinstance(found, ir.ExternalTensor):
        try:
            mapped.check(found)
            return np.array(found.numpy())
        except ValueError as error:
            raise Foreign(str(error)) from error
    if not isinstance(found, ir.TensorProtoTensor) or not found.raw.HasField("raw_data"):
        raise Foreign(f"{value.name}: its numbers are not raw bytes in this file")
    try:
        return np.array(found.numpy())
    except ValueError as error:
        raise Foreign(f"{value.name}: {error}") from error


def axis(node: ir.Node) -> int | None:
    """Return the attribute ``axis`` of a node, or None where it has none.

    Raises:
        Foreign: it is no integer.
    """
    import onnx_ir as ir

    found = node.attributes.get("axis")
    if found is None:
        return None
    if found.is_ref() or found.type is not ir.AttributeType.INT:
        raise Foreign(f"{node.name}: its axis is no integer")
    return found.as_int()


def whole(node: ir.Node, name: str) -> int:
    """Return a whole number that stands among a node's attributes.

    Raises:
        Foreign: it has none of this name, or it is no integer.
    """
    import onnx_ir as ir

    found = node.attributes.get(name)
    if found is None or found.is_ref() or found.type is not ir.AttributeType.INT:
        raise Foreign(f"{node.name}: its {name} is no integer")
    return found.as_int()


def _check(graph: ir.Graph) -> None:
    """See that names are text, that operators have their inputs, and that each is made before it is read."""
    made: set[ir.Node] = set()
    for node in graph:
        names: list[object] = [value.name for value in (*node.inputs, *node.outputs) if value is not None]
        if any(isinstance(text, bytes) for text in (*names, node.name, node.op_type)):  # what is not UTF-8
            raise Foreign(f"a name is no text: {node.op_type!r} {node.name!r} of {names}")
        wanted = _INPUTS.get(node.op_type, 0)
        if None in node.inputs[:wanted] or len(node.inputs) < wanted or not node.outputs:
            raise Foreign(f"{node.name}: {node.op_type} without its inputs or its output")
        for value in node.inputs:
            maker = value.producer() if value is not None else None
            if maker is not None and maker not in made:
                raise Foreign(f"{node.name} reads what {maker.name} makes only later")
        made.add(node)
