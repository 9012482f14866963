"""Layers that run in float, or on an input quantized at run time, with a weight that is stored in fewer bits.

ONNX Runtime folds what depends on constants only (a cast, a scale) when it opens the file, so a stored weight costs
nothing per call; an embedding's table stays in its integers, and only the rows that are read become float.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from haversack.base.encodings import Affine, BlockAffine, Codebook, Dynamic, Encodings
from haversack.base.graph import Node
from haversack.targets.onnxruntime.grouped import write_grouped
from haversack.targets.onnxruntime.palettes import BYTES, HALF, write_palette, write_rows
from haversack.targets.onnxruntime.sharing import codes as integer_codes
from haversack.targets.onnxruntime.sharing import first, widened
from haversack.tools.graph.onnx.naming import SCALE
from haversack.tools.graph.onnx.sheet import Sheet
from haversack.tools.graph.roles import Role, role
from haversack.tools.numerics.granularity import along

if TYPE_CHECKING:
    import onnx_ir as ir


def write_layer(sheet: Sheet, node: Node, encodings: Encodings, x: ir.Value) -> None:
    """Write a layer or an embedding with its encoded weight, reading ``x`` (float32, or indices)."""
    encoding = encodings.tensors[f"{node.key}:weight"]
    integers = encodings.integers.get(f"{node.key}:weight")
    dynamic = isinstance(encodings.tensors.get(f"{node.key}:in"), Dynamic)
    if role(node) is Role.EMBEDDING and isinstance(encoding, Codebook) and integers is not None:
        result = write_rows(sheet, node, encoding, integers, x, first(sheet, node, encodings, BYTES))
    elif role(node) is Role.EMBEDDING:
        result = _rows(sheet, node, encodings, x)
    elif isinstance(encoding, BlockAffine) and integers is not None:
        holder = first(sheet, node, encodings, "groups")
        result = write_grouped(sheet, node, encoding, integers, x, holder)
        if (bias := _bias(sheet, node)) is not None:
            result = sheet.node("Add", [result, bias], node.key)
    elif dynamic and isinstance(encoding, Affine) and integers is not None:
        result = _dynamic(sheet, node, encodings, x)
    elif node.op == "linear":
        result = _linear(sheet, node, _weight(sheet, node, encodings), x)
    else:
        sheet.only(node.key, "Conv").replace_input_with(1, _weight(sheet, node, encodings))
        return
    old = sheet.floats[node.key]
    sheet.replace(old, result)
    sheet.floats[node.key] = result
    if not result.is_graph_output():
        result.name, old.name = f"{node.key}:out", f"{node.key}:out/before"


def _weight(sheet: Sheet, node: Node, encodings: Encodings) -> ir.Value:
    """Return a weight's float32 value, one for all that read it in float."""
    key = first(sheet, node, encodings, "float")
    if f"{key}/float" not in sheet.made:
        sheet.made[f"{key}/float"] = _floating(sheet, node, encodings)
    return sheet.made[f"{key}/float"]


def _floating(sheet: Sheet, node: Node, encodings: Encodings) -> ir.Value:
    """Write a weight's float32 value: its integers times their scale, its palette's values, or its float16 numbers."""
    key = f"{node.key}:weight"
    encoding, integers = encodings.tensors[key], encodings.integers.get(key)
    if isinstance(encoding, Codebook) and integers is not None:
        wide = encoding.bits > HALF and not encoding.group
        holder = first(sheet, node, encodings, BYTES if wide else "halves")
        return write_palette(sheet, key, encoding, integers, holder)
    if not isinstance(encoding, Affine) or integers is None:
        half = _half(sheet, node, encodings)
        return sheet.node("Cast", [half], f"{key}/Cast", to=_float32())
    codes = widened(sheet, first(sheet, node, encodings, "codes"), integers, encoding.bits)
    scale = _column(sheet, node, encodings, encoding)
    return sheet.node("Mul", [sheet.node("Cast", [codes], f"{key}/Cast", to=_float32()), scale], f"{key}/Mul")


def _half(sheet: Sheet, node: Node, encodings: Encodings) -> ir.Value:
    """Return a weight's float16 numbers."""
    holder = first(sheet, node, encodings, "float16")
    return sheet.constant(f"{holder}/float16", sheet.model.weights[str(node.weight)].astype(np.float16))


def _column(sheet: Sheet, node: Node, encodings: Encodings, encoding: Affine) -> ir.Value:
    """Return a weight's scales along its rows; only layers that compute with them in float read these."""
    holder = first(sheet, node, encodings, "column")
    rank = sheet.model.weights[str(node.weight)].ndim
    return sheet.constant(f"{holder}{SCALE}", along(encoding.scale, encoding.axis, rank))


def _linear(sheet: Sheet, node: Node, weight: ir.Value, x: ir.Value) -> ir.Value:
    bias = _bias(sheet, node)
    if len(node.output.shape) == 2:
        return sheet.node("Gemm", [x, weight, bias][: 3 if bias is not None else 2], node.key, transB=1)
    turned = sheet.node("Transpose", [weight], f"{node.key}/Transpose", perm=[1, 0])
    if bias is None:
        return sheet.node("MatMul", [x, turned], node.key)
    return sheet.node("Add", [sheet.node("MatMul", [x, turned], f"{node.key}/MatMul"), bias], node.key)


def _dynamic(sheet: Sheet, node: Node, encodings: Encodings, x: ir.Value) -> ir.Value:
    """Write DynamicQuantizeLinear, MatMulInteger, one scale and the bias: the form that fuses into one kernel.

    Layers that read the same tensor share its quantization.
    """
    encoding = encodings.affine(f"{node.key}:weight")
    assert encoding is not None, "a layer of this kind has integers"
    shared = next((u.node for u in x.uses() if u.node.op_type == "DynamicQuantizeLinear"), None)
    if shared is None:
        name = f"{node.key}/DynamicQuantizeLinear"
        sheet.node("DynamicQuantizeLinear", [x], name, [f"{name}/{part}" for part in ("codes", "scale", "zero_point")])
        shared = next(u.node for u in x.uses() if u.node.name == name)
    quantized, x_scale, x_zero = shared.outputs
    codes = integer_codes(sheet, node, encodings, turned=True)
    total = sheet.node("MatMulInteger", [quantized, codes, x_zero], f"{node.key}/MatMulInteger")
    real = sheet.node("Cast", [total], f"{node.key}/Cast", to=_float32())
    holder = first(sheet, node, encodings, "scale")
    own = sheet.constant(f"{holder}{SCALE}", encoding.scale.astype(np.float32))
    scale = sheet.node("Mul", [x_scale, own], f"{node.key}/Scale")
    bias = _bias(sheet, node)
    scaled = sheet.node("Mul", [real, scale], node.key if bias is None else f"{node.key}/Mul")
    return scaled if bias is None else sheet.node("Add", [scaled, bias], node.key)


def _rows(sheet: Sheet, node: Node, encodings: Encodings, indices: ir.Value) -> ir.Value:
    """Write an embedding that looks up integers (or float16 numbers) and turns only what it found into float32."""
    key = f"{node.key}:weight"
    encoding, integers = encodings.tensors[key], encodings.integers.get(key)
    if not isinstance(encoding, Affine) or integers is None:
        found = sheet.node("Gather", [_half(sheet, node, encodings), indices], f"{node.key}/Gather")
        return sheet.node("Cast", [found], node.key, to=_float32())
    codes = widened(sheet, first(sheet, node, encodings, "codes"), integers, encoding.bits)
    found = sheet.node("Gather", [codes, indices], f"{node.key}/Gather")
    scale = _column(sheet, node, encodings, encoding)
    if encoding.axis is not None:
        scale = sheet.node("Gather", [scale, indices], f"{node.key}/GatherScale")
    return sheet.node("Mul", [sheet.node("Cast", [found], f"{node.key}/Cast", to=_float32()), scale], node.key)


def _bias(sheet: Sheet, node: Node) -> ir.Value | None:
    return None if node.bias is None else sheet.parameters[node.bias]


def _float32() -> int:
    import onnx_ir as ir

    return int(ir.DataType.FLOAT)
