"""Weights of widths that ONNX has no type for: packed in planes, and unpacked by a function that the file brings.

ONNX Runtime inlines the function when it opens the file, and folds what it makes of constants, before it looks for
what it fuses: so the integer kernels are those of int8 weights, and nothing is unpacked per call. Until all is folded
it keeps what each node of the function gave: the fewer and smaller these are, the less memory opening takes. The
arithmetic is that of ``numerics.planes``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from haversack.tools.graph.onnx.naming import CODES
from haversack.tools.numerics import planes

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

DOMAIN = "haversack"
_NAME = re.compile(r"Unpack([1-7])(Cut)?")
"""The name of a function: the bits of a code, and whether the last digits are none of the codes'."""
_FUNCTION = {1: (2262, 450), 2: (1429, 510), 3: (3455, 930), 5: (2350, 500), 6: (1324, 590), 7: (3551, 960)}
_CUT = (188, 100)
"""Bits of a code -> bytes that its function takes in a file, and as a download; what cutting the last digits adds."""
NAMES_DOWNLOADED = 30
"""What a weight's names take as a download: those that repeat weigh next to nothing compressed."""


def name_of(count: int, bits: int) -> str:
    """Return the name of the function that unpacks so many codes."""
    return f"Unpack{bits}{'Cut' if count % planes.digits(bits) else ''}"


def function_bytes(name: str) -> tuple[int, int]:
    """Return what a function takes in a file that brings it, and as a download: measured, once for all its uses."""
    size, download = _FUNCTION[bits_of(name)]
    return (size + _CUT[0], download + _CUT[1]) if name.endswith("Cut") else (size, download)


def use_bytes(key: str, bits: int) -> tuple[int, int]:
    """Return what a use of a function takes beside its planes, in a file and as a download: names, mostly.

    Args:
        key: tensor key of the weight, which stands in the names.
        bits: of a code.
    """
    count = len(planes.tables(bits))
    return 75 + 29 * count + (2 * count + 3) * len(key), NAMES_DOWNLOADED


def cast_bytes(key: str) -> int:
    """Return what widens codes of 4 bits takes in a file beside them: one node and its names.

    Args:
        key: tensor key of the weight, which stands in the names.
    """
    return 46 + 3 * len(key)


def bits_of(name: str) -> int:
    """Return the bits of the codes that a function unpacks, by its name; 0 where no function has it."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match and int(match[1]) in planes.WIDTHS else 0


def inputs(key: str, codes: np.ndarray, bits: int) -> dict[str, np.ndarray]:
    """Return the inputs of the function, in its order: name of the initializer -> array.

    Args:
        key: tensor key of the weight.
        codes: its integers, in the shape the file has them in.
        bits: of a code.
    """
    import ml_dtypes

    packed = [
        plane.astype(ml_dtypes.uint4) if table is None else plane
        for plane, table in zip(planes.pack(codes, bits), planes.tables(bits), strict=True)
    ]
    named = {f"{key}{CODES}{index or ''}": plane for index, plane in enumerate(packed)}
    return {**named, f"{key}/shape": np.array(codes.shape, np.int64)}


def meaning(name: str, arrays: Sequence[np.ndarray | None]) -> tuple[np.ndarray, int]:
    """Return what the inputs of a function say: codes, int32, and their bits.

    Args:
        name: of the function.
        arrays: its inputs; None for what is no constant.

    Raises:
        ValueError: they are not what ``inputs`` returns for any codes.
    """
    bits = bits_of(name)
    found = [array for array in arrays if array is not None]
    if not bits or len(found) != len(arrays) or len(found) != len(planes.tables(bits)) + 1:
        raise ValueError(f"{name} of {len(found)} constants")
    *packed, shape = found
    types = ["uint4" if table is None else "uint8" for table in planes.tables(bits)]
    if [str(plane.dtype) for plane in packed] != types or shape.dtype != np.int64 or shape.ndim != 1:
        raise ValueError(f"{name} of {', '.join(str(array.dtype) for array in found)}")
    if not (shape > 0).all() or float(np.prod(shape, dtype=np.float64)) > packed[0].size * planes.digits(bits):
        raise ValueError(f"{name} of shape {shape.tolist()}")
    codes = planes.unpack([plane.astype(np.uint8) for plane in packed], bits, tuple(shape.tolist()))
    if name != name_of(codes.size, bits):
        raise ValueError(f"{name} for {codes.size} codes")
    return codes, bits


def function(name: str, opset: int) -> ir.Function:
    """Return a function: (planes, the lowest first; shape) -> int8 codes.

    Args:
        name: as ``name_of`` returns it.
        opset: version of the ONNX operators, that of the file which gets it.
    """
    import onnx_ir as ir
    from onnx import TensorProto, helper

    nodes, parts, names = [], [], []
    for index, table in enumerate(planes.tables(bits_of(name))):
        plane, part = f"plane{index}", f"part{index}"
        names.append(plane)
        parts.append(part)
        if table is None:
            nodes.append(helper.make_node("Cast", [plane], [part], to=TensorProto.INT8))
            continue
        nodes += [
            _constant(f"table{index}", table),
            helper.make_node("Cast", [plane], [f"bytes{index}"], to=TensorProto.INT32),
            helper.make_node("Gather", [f"table{index}", f"bytes{index}"], [part]),
        ]
    joined = parts[0]
    for part in parts[1:]:
        nodes.append(helper.make_node("BitwiseOr", [joined, part], [f"{joined}{part}"]))
        joined = f"{joined}{part}"
    if name.endswith("Cut"):
        nodes += [
            _constant("row", np.array([-1], np.int64)),
            _constant("first", np.array([0], np.int64)),
            helper.make_node("ReduceProd", ["shape"], ["count"]),
            helper.make_node("Reshape", [joined, "row"], ["digits"]),
            helper.make_node("Slice", ["digits", "first", "count"], ["cut"]),
        ]
        joined = "cut"
    nodes.append(helper.make_node("Reshape", [joined, "shape"], ["codes"]))
    made = helper.make_function(DOMAIN, name, [*names, "shape"], ["codes"], nodes, [helper.make_opsetid("", opset)])
    return ir.serde.deserialize_function(made)


def is_ours(found: ir.Function) -> bool:
    """Say whether a function of a file is the one that we write under its name, node by node."""
    import onnx_ir as ir

    if found.domain != DOMAIN or not bits_of(found.name):
        return False
    same = function(found.name, found.opset_imports.get("", 0))
    return bool(ir.to_proto(found) == ir.to_proto(same))


def _constant(name: str, array: np.ndarray) -> onnx.NodeProto:
    from onnx import helper, numpy_helper

    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
