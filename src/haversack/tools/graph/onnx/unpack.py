"""Weights of widths that ONNX has no type for: packed in planes, and unpacked by a function that the file brings.

ONNX Runtime inlines the function when it opens the file, and folds what it makes of constants, before it looks for
what it fuses: so the integer kernels are those of int8 weights, and nothing is unpacked per call. The arithmetic is
that of ``numerics.planes``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from haversack.tools.graph.onnx.naming import CODES
from haversack.tools.numerics import planes

if TYPE_CHECKING:
    import onnx_ir as ir

OP, DOMAIN = "Unpack", "haversack"
_INPUTS = 4
_LEGENDS = {1: "signs", 2: "trits"}
_SHARED = "unpack "
"""Begins the names of what all weights of a width share; no name of an interface has a space."""


def constants(key: str, codes: np.ndarray, bits: int) -> dict[str, np.ndarray]:
    """Return the inputs of the function, in its order: name of the initializer -> array.

    Args:
        key: tensor key of the weight.
        codes: its integers, in the shape the file has them in.
        bits: of a code.
    """
    packed = planes.pack(codes, bits)
    return {
        f"{key}{CODES}": packed.words,
        f"{_SHARED}{_LEGENDS.get(bits, 'bits')}": packed.table,
        f"{_SHARED}powers {len(packed.words)}": packed.powers,
        f"{key}/shape": np.array(codes.shape, np.int64),
    }


def meaning(*inputs: np.ndarray | None) -> tuple[np.ndarray, int]:
    """Return what inputs of the function say: codes, int32, and their bits.

    Raises:
        ValueError: they are not what ``constants`` returns for any codes.
    """
    found = [array for array in inputs if array is not None]
    if len(found) != len(inputs) or len(found) != _INPUTS:
        raise ValueError("packed codes are not constants")
    words, table, powers, shape = found
    bits = planes.width(table, powers)
    sizes = [int(size) for size in shape.reshape(-1)]
    if words.dtype != np.uint8 or shape.dtype != np.int64 or shape.ndim != 1 or not all(size > 0 for size in sizes):
        raise ValueError(f"packed codes of shape {sizes} in {words.dtype}")
    if words.shape != (powers.shape[1], -(-math.prod(sizes) // table.shape[1])):
        raise ValueError(f"words of shape {words.shape} for codes of {bits} bits and shape {sizes}")
    return planes.unpack(planes.Planes(words, table, powers), tuple(sizes)), bits


def function(opset: int) -> ir.Function:
    """Return the function: (words, table, powers, shape) -> int8 codes; of the same opset as the file that gets it.

    Args:
        opset: version of the ONNX operators, at least 13.
    """
    import onnx_ir as ir
    from onnx import NodeProto, TensorProto, helper, numpy_helper

    def whole(name: str, *numbers: int) -> NodeProto:
        value = numpy_helper.from_array(np.array(numbers, np.int64))
        return helper.make_node("Constant", [], [name], value=value)

    nodes = [
        whole("first", 0),
        whole("by_plane", 0, -1),
        whole("along", 1),
        helper.make_node("Cast", ["words"], ["indices"], to=TensorProto.INT32),
        helper.make_node("Gather", ["table", "indices"], ["digits"]),
        helper.make_node("Reshape", ["digits", "by_plane"], ["planes"]),
        helper.make_node("MatMulInteger", ["powers", "planes"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["padded"], to=TensorProto.INT8),
        helper.make_node("ReduceProd", ["shape"], ["count"]),
        helper.make_node("Slice", ["padded", "first", "count", "along"], ["row"]),
        helper.make_node("Reshape", ["row", "shape"], ["codes"]),
    ]
    names = ["words", "table", "powers", "shape"]
    made = helper.make_function(DOMAIN, OP, names, ["codes"], nodes, [helper.make_opsetid("", opset)])
    return ir.serde.deserialize_function(made)


def is_ours(found: ir.Function) -> bool:
    """Say whether a function of a file is this one, node by node."""
    import onnx_ir as ir

    same = function(found.opset_imports.get("", 0))
    return bool(ir.to_proto(found) == ir.to_proto(same))
