"""Units that run in integers, written so that ONNX Runtime fuses each into one kernel.

A layer, an add or a mean stands between DequantizeLinear and QuantizeLinear; what only moves values (reshape, pad,
pool by maximum, concatenation) works on the uint8 codes themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from haversack.base.encodings import Affine, Encodings
from haversack.base.errors import ConversionError
from haversack.base.graph import Node
from haversack.targets.onnxruntime import sharing
from haversack.tools.graph.onnx.naming import CODES, SCALE, VALUE, ZERO_POINT
from haversack.tools.graph.onnx.sheet import Sheet
from haversack.tools.graph.roles import Role, Unit, clamp_bounds, role
from haversack.tools.numerics import affine

if TYPE_CHECKING:
    import onnx_ir as ir

MOVES = frozenset(
    "Reshape Flatten Squeeze Unsqueeze Transpose Identity Slice Gather Expand MaxPool Pad Concat DepthToSpace".split()
)
"""Operators that take uint8 and only move values."""
_READS_SHAPE = frozenset({"Shape", "Size"})


class Codes:
    """The encoded activations of a sheet: their codes, and the float values of these for whoever needs them.

    Attributes:
        codes: node key -> uint8 value.
        values: node key -> its dequantized float value; every reader shares it.
    """

    def __init__(self, sheet: Sheet, encodings: Encodings) -> None:
        self.sheet = sheet
        self.encodings = encodings
        self.codes: dict[str, ir.Value] = {}
        self.values: dict[str, ir.Value] = {}

    def parameters(self, key: str, encoding: Affine) -> tuple[ir.Value, ir.Value]:
        """Return scale and zero-point of an activation as initializers."""
        scale = self.sheet.constant(f"{key}:out{SCALE}", encoding.scale.astype(np.float32))
        return scale, self.sheet.constant(f"{key}:out{ZERO_POINT}", encoding.zero_point.astype(np.uint8))

    def quantized(
        self, key: str, encoding: Affine, source: ir.Value, bounds: tuple[float, float] | None = None
    ) -> ir.Value:
        """Return the codes of a float value, limited to a clamp that the grid does not do by itself.

        Args:
            key: node key whose output it is.
            encoding: of that output.
            source: float32; the value itself, or what stands before the clamp.
            bounds: of the clamp, in real values.
        """
        made = self.sheet.node("QuantizeLinear", [source, *self.parameters(key, encoding)], f"{key}/QuantizeLinear")
        if bounds is None:
            return made
        low, high = (int(code) for code in affine.quantize(np.array(bounds, np.float32), encoding))
        if (low, high) == (encoding.low, encoding.high):
            return made
        ends = [
            self.sheet.constant(f"{key}/{end}", np.array(code, np.uint8))
            for end, code in (("low", low), ("high", high))
        ]
        return self.sheet.node("Clip", [made, *ends], f"{key}/ClampCodes")

    def adopt(self, key: str, encoding: Affine, codes: ir.Value) -> None:
        """Take codes as the value of ``key``: all who read its float value now read what its codes mean."""
        old = self.sheet.floats[key]
        own = {f"{key}/QuantizeLinear", f"{key}/DequantizeLinear"}
        value = self.sheet.node(
            "DequantizeLinear", [codes, *self.parameters(key, encoding)], f"{key}/DequantizeLinear", f"{key}:out{VALUE}"
        )
        self.sheet.replace(old, value, but=own)
        codes.name = f"{key}:out{CODES}"
        codes.type = codes.shape = None
        self.codes[key], self.values[key] = codes, value

    def by_channel(self, key: str, reader: str) -> ir.Value:
        """Return the float value of an activation for one reader, its scale told once for each channel (axis 1)."""
        encoding = self.encodings.affine(f"{key}:out")
        channels = self.sheet.model.graph.by_key[key].output.shape[1]
        assert encoding is not None, "only codes are told by channel"
        assert isinstance(channels, int), "a layer's input has a channel axis"
        parameters = [
            self.sheet.constant(f"{key}:out{name}/{channels}", np.full(channels, value))
            for name, value in ((SCALE, encoding.scale), (ZERO_POINT, encoding.zero_point.astype(np.uint8)))
        ]
        name = f"{reader}/DequantizeChannels"
        return self.sheet.node("DequantizeLinear", [self.codes[key], *parameters], name, axis=1)

    def share(self, key: str, source: str) -> None:
        """Let a key that left the graph have the codes of another."""
        self.codes[key], self.values[key] = self.codes[source], self.values[source]

    def weight(self, node: Node) -> ir.Value:
        """Return the float value of a layer's integer weight: initializer and DequantizeLinear."""
        key = f"{node.key}:weight"
        encoding = self.encodings.affine(key)
        assert encoding is not None, "a layer runs in integers only if its weight is Affine"
        codes = sharing.codes(self.sheet, node, self.encodings)
        holder = sharing.first(self.sheet, node, self.encodings, "scale")
        scale = self.sheet.constant(f"{holder}{SCALE}", encoding.scale.astype(np.float32))
        axis = {} if encoding.axis is None else {"axis": encoding.axis}
        # Left out, or shared by layers of one width, they would mean the same; but ONNX Runtime's rewrite of int8 to
        # uint8 fails without an initializer of full length for each weight.
        zeros = self.sheet.constant(f"{key}{ZERO_POINT}", np.zeros(encoding.scale.shape, np.int8))
        return self.sheet.node(
            "DequantizeLinear", [codes, scale, zeros], f"{key}/DequantizeLinear", f"{key}{VALUE}", **axis
        )

    def bias(self, node: Node, source: Affine) -> ir.Value | None:
        """Return the float value of a layer's derived int32 bias, or None if it has none."""
        if node.bias is None:
            return None
        key = f"{node.key}:bias"
        weight = self.encodings.affine(f"{node.key}:weight")
        assert weight is not None, "a layer runs in integers only if its weight is Affine"
        try:
            derived = affine.bias_codes(self.sheet.model.weights[node.bias], source.scale, weight.scale)
        except ValueError as error:
            raise ConversionError(str(error), where=node.key, next_step="encode the model again") from error
        codes = self.sheet.constant(f"{key}{CODES}", derived)
        scale = self.sheet.constant(f"{key}{SCALE}", affine.bias_scale(source.scale, weight.scale))
        axis = {} if weight.axis is None else {"axis": 0}
        return self.sheet.node("DequantizeLinear", [codes, scale], f"{key}/DequantizeLinear", f"{key}{VALUE}", **axis)


def write_unit(codes: Codes, unit: Unit) -> None:
    """Write a unit of which the law says that it runs in integers.

    Raises:
        ConversionError: it was exported in a form that has no integer kernel.
    """
    kind = role(unit.head)
    out = codes.encodings.affine(unit.out)
    assert out is not None, "the law demands an Affine output"
    bounds = clamp_bounds(unit.clamp) if unit.clamp is not None else None
    if kind in (Role.SAME, Role.CONCAT):
        _move(codes, unit.head, out)
    elif unit.head.op == "linear":
        _linear(codes, unit, out, bounds)
    elif kind is Role.LAYER:
        conv = codes.sheet.only(unit.head.key, "Conv")
        source = codes.encodings.affine(f"{unit.head.inputs[0]}:out")
        assert source is not None, "the law demands an Affine input"
        conv.replace_input_with(1, codes.weight(unit.head))
        bias = codes.bias(unit.head, source)
        if bias is not None:
            conv.replace_input_with(2, bias)
        codes.adopt(unit.last.key, out, codes.quantized(unit.last.key, out, conv.outputs[0], bounds))
    elif kind is Role.ADD:
        added = codes.sheet.only(unit.head.key, "Add").outputs[0]
        codes.adopt(unit.last.key, out, codes.quantized(unit.last.key, out, added, bounds))
    else:
        _mean(codes, unit, out, bounds)


def _linear(codes: Codes, unit: Unit, out: Affine, bounds: tuple[float, float] | None) -> None:
    """Write a linear layer as Gemm on a matrix, the one form that fuses; further axes are folded into the rows."""
    node, sheet = unit.head, codes.sheet
    source_key = node.inputs[0]
    source = codes.encodings.affine(f"{source_key}:out")
    assert source is not None, "the law demands an Affine input"
    x = codes.values[source_key]
    rank = len(node.output.shape)
    if rank != 2:
        inner = int(sheet.model.weights[str(node.weight)].shape[1])
        rows = sheet.constant(f"{node.key}/rows", np.array([-1, inner], np.int64))
        flat = sheet.node("Reshape", [codes.codes[source_key], rows], f"{node.key}/Reshape")
        x = sheet.node("DequantizeLinear", [flat, *codes.parameters(source_key, source)], f"{node.key}/Rows")
    product = sheet.node(
        "Gemm", [x, codes.weight(node), codes.bias(node, source)][: 3 if node.bias else 2], node.key, transB=1
    )
    made = codes.quantized(unit.last.key, out, product, bounds)
    if rank != 2:
        width = int(sheet.model.weights[str(node.weight)].shape[0])
        made = sheet.node(
            "Reshape", [made, _shape_like(sheet, node.key, codes.codes[source_key], width)], f"{node.key}/Back"
        )
    codes.adopt(unit.last.key, out, made)


def _shape_like(sheet: Sheet, key: str, like: ir.Value, width: int) -> ir.Value:
    """Return the shape of ``like`` with its last length replaced by ``width``."""
    shape = sheet.node("Shape", [like], f"{key}/Shape", end=-1)
    last = sheet.constant(f"{key}/width", np.array([width], np.int64))
    return sheet.node("Concat", [shape, last], f"{key}/Concat", axis=0)


def _mean(codes: Codes, unit: Unit, out: Affine, bounds: tuple[float, float] | None) -> None:
    """Write a spatial mean as GlobalAveragePool; where it drops the axes of length one, the codes drop them."""
    key, sheet = unit.last.key, codes.sheet
    pooled = sheet.only(unit.head.key, "GlobalAveragePool").outputs[0]
    squeezed = [node for node in sheet.nodes[unit.head.key] if node.op_type == "Squeeze"]
    made = codes.quantized(key, out, pooled, bounds)
    if squeezed:
        made = sheet.node("Squeeze", [made, squeezed[0].inputs[1]], f"{key}/SqueezeCodes")
    codes.adopt(key, out, made)


def _move(codes: Codes, node: Node, out: Affine) -> None:
    """Let a node's operators work on codes where all of them can; otherwise on float values, to the same effect."""
    moving = {codes.values[key]: codes.codes[key] for key in node.inputs}
    path = _path(codes.sheet.nodes.get(node.key, []), set(moving))
    result = codes.sheet.floats[node.key]
    if path is None or result.producer() not in path:
        codes.adopt(node.key, out, codes.quantized(node.key, out, result))
        return
    for each in path:
        for index, value in enumerate(each.inputs):
            if value in moving:
                each.replace_input_with(index, moving[value])
        if each.op_type == "Pad":
            each.resize_inputs(max(3, len(each.inputs)))
            each.replace_input_with(2, codes.parameters(node.key, out)[1])
    codes.adopt(node.key, out, result)


def _path(nodes: list[ir.Node], moving: set[ir.Value]) -> list[ir.Node] | None:
    """Return the nodes through which values move, or None if one of them does more than move."""
    path = []
    for node in nodes:
        read = {index for index, value in enumerate(node.inputs) if value in moving}
        if not read or node.op_type in _READS_SHAPE:
            continue
        if node.op_type not in MOVES or (node.op_type != "Concat" and read != {0}) or len(node.outputs) > 1:
            return None
        moving |= {node.outputs[0]}
        path.append(node)
    return path or None
