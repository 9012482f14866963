"""Linear layers with 4-bit weights in groups: ONNX Runtime's own operator MatMulNBits (domain com.microsoft).

Its kernel quantizes the input at run time to 8 bits, a scale for each group of each row (``accuracy_level`` 4), as a
DequantizeLinear by blocks before a MatMul does too, which it is fused from; written out, nothing hangs on a fusion.
Specification: ``docs/ContribOperators.md`` of ONNX Runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from haversack.base.encodings import BlockAffine
from haversack.base.graph import Node
from haversack.tools.graph.onnx.foreign import Foreign, constant, whole
from haversack.tools.graph.onnx.naming import CODES, SCALE
from haversack.tools.graph.onnx.sheet import Sheet
from haversack.tools.numerics import blocks, packing

if TYPE_CHECKING:
    import onnx_ir as ir

OP, DOMAIN = "MatMulNBits", "com.microsoft"
_BITS = 4
_MIDDLE = 8
"""The code of 0: what is stored is unsigned."""
_INT8 = 4
"""The accuracy level at which the input is quantized to 8 bits."""


def write_grouped(
    sheet: Sheet, node: Node, encoding: BlockAffine, integers: np.ndarray, x: ir.Value, key: str
) -> ir.Value:
    """Return the float32 output of a linear layer, its bias left out.

    Args:
        sheet: the graph that is written.
        node: the layer.
        encoding: of its weight: symmetric, 4 bits.
        integers: int32 [rows, length].
        x: float32 [..., length].
        key: tensor key of the weight that stands for all that are equal.
    """
    import onnx_ir as ir

    rows, length = integers.shape
    packed = packing.pack(integers + _MIDDLE, _BITS).reshape(rows, length // encoding.block, encoding.block // 2)
    half = sheet.constant(f"{key}{SCALE}", blocks.to_float16(encoding.scale))
    if f"{key}/wide" not in sheet.made:  # folded when the file is opened
        sheet.made[f"{key}/wide"] = sheet.node("Cast", [half], f"{key}/CastScale", to=int(ir.DataType.FLOAT))
    scale = sheet.made[f"{key}/wide"]
    name = node.key if node.bias is None else f"{node.key}/{OP}"
    settings = {"K": length, "N": rows, "bits": _BITS, "block_size": encoding.block, "accuracy_level": _INT8}
    return sheet.own(OP, DOMAIN, [x, sheet.constant(f"{key}{CODES}", packed), scale], name, **settings)


def read_grouped(node: ir.Node) -> tuple[BlockAffine, np.ndarray]:
    """Return what a MatMulNBits holds: the encoding of its weight, and its integers, int32 [rows, length].

    Raises:
        Foreign: it is not one that we have written.
        ValueError: its scales are none.
    """
    length, rows, bits, group, level = (
        whole(node, name) for name in ("K", "N", "bits", "block_size", "accuracy_level")
    )
    packed, cast = constant(node.inputs[1]), node.inputs[2].producer() if node.inputs[2] is not None else None
    scale = constant(cast.inputs[0]) if cast is not None and cast.op_type == "Cast" else None
    if (bits, level, len(node.inputs), node.domain) != (_BITS, _INT8, 3, DOMAIN):
        raise Foreign(f"{node.name}: {bits} bits at accuracy level {level} with {len(node.inputs)} inputs")
    if packed is None or scale is None or packed.dtype != np.uint8 or scale.dtype != np.float16:
        raise Foreign(f"{node.name}: its codes or the scales of its groups are not constants as we write them")
    if group < 2 or length % group or scale.shape != (rows, length // group):
        raise Foreign(f"{node.name}: scales of shape {scale.shape} for {rows} rows of {length} in groups of {group}")
    if packed.shape != (rows, length // group, group // 2):
        raise Foreign(f"{node.name}: codes of shape {packed.shape} for {rows} rows of {length} in groups of {group}")
    codes = packing.unpack(packed.reshape(-1), _BITS, rows * length).reshape(rows, length) - _MIDDLE
    return BlockAffine(group, _BITS, scale.astype(np.float32)), codes
