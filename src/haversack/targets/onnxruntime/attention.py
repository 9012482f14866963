"""Attention in float as one operator: all that lies between what its layers give and what its last layer reads.

The operator is ONNX's own (Attention, opset 23). The dozen operators that it stands for mostly move numbers about and
make ready to: in a model of short rows they are a third of the calls of kernels. ONNX Runtime computes the same
products, softmax and sums in it; a mask of other numbers than 0 and the lowest may differ from before in the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from haversack.tools.graph.onnx.naming import key_of
from haversack.tools.graph.onnx.sheet import Sheet

if TYPE_CHECKING:
    import onnx_ir as ir

OPSET = 23
"""The first that has Attention."""
_HEADS_FIRST, _TURNED = [0, 2, 1, 3], [0, 2, 3, 1]
"""From [batch, length, heads, width] to [batch, heads, length, width], and to [batch, heads, width, length]."""
_EXCHANGED = [[0, 1, 3, 2], [0, 2, 1]]
"""Orders that exchange the last two of all four axes, or of three where batch and heads are one axis."""
_WHOLE = "scaled_dot_product_attention"
"""PyTorch's operator, which torch.onnx writes out: its keys are turned on a matrix of three axes."""
_LAST = (-1, 3)
Shape = tuple[str, ...]
"""Lengths of a tensor as the canonical graph tells them: numbers, or names of free ones."""
Shapes = Mapping["ir.Value", Shape]


@dataclass(frozen=True)
class _Scores:
    """What a softmax reads: the product of queries and keys (heads apart), its factor, and the mask added to it."""

    queries: ir.Value | None
    keys: ir.Value | None
    scale: float
    mask: ir.Value | None


@dataclass(frozen=True)
class _Heads:
    """A matrix cut into heads: float32 [batch, length, heads * width], and these four lengths."""

    whole: ir.Value
    batch: str
    length: str
    heads: int
    width: int


def write_attention(sheet: Sheet) -> None:
    """Write each attention whose inner tensors are float32 and read by nothing else as one operator.

    Tensors with codes have Q/DQ nodes between, and stay as they are. So does what takes its keys from fewer heads than
    its queries, has a mask that is spread over its rows, gives its weights out, or makes zeros of rows that see nothing
    (as torch.onnx writes PyTorch's own attention with a mask). See Attention in the ONNX operators.
    """
    outputs = {value: sheet.model.graph.by_key[key].output for key, value in sheet.floats.items()}
    shapes = {value: tuple(map(str, output.shape)) for value, output in outputs.items()}
    keys = {value: key for key, value in sheet.floats.items()}
    for softmax in [node for node in sheet.graph if node.op_type == "Softmax"]:
        scores = _scores(softmax)
        product = _reader(softmax.outputs[0], "MatMul")
        turned = _reader(product.outputs[0], "Transpose") if product is not None else None
        joined = _reader(turned.outputs[0], "Reshape") if turned is not None else None
        if scores is None or product is None or turned is None or joined is None or _order(turned) != _HEADS_FIRST:
            continue
        turning = ((scores.queries, _HEADS_FIRST), (scores.keys, _TURNED), (product.inputs[1], _HEADS_FIRST))
        found = [one for value, order in turning if (one := _heads(value, order, shapes)) is not None]
        old = joined.outputs[0]
        if len(found) < len(turning) or old not in keys or outputs[old].dtype != "float32":
            continue
        if not _fit(found[0], found[1], found[2], shapes[old]) or not _masks(scores.mask, found[0], found[1], shapes):
            continue
        read = [*(one.whole for one in found), *([scores.mask] if scores.mask is not None else [])]
        name, heads = f"{key_of(product.name or '')}/Attention", found[0].heads
        made = sheet.node("Attention", read, name, scale=scores.scale, q_num_heads=heads, kv_num_heads=heads)
        _put(sheet, keys[old], made)


def _put(sheet: Sheet, key: str, result: ir.Value) -> None:
    """Let an operator's result be the value of a key."""
    old = sheet.floats[key]
    sheet.replace(old, result)
    sheet.floats[key], sheet.opset = result, max(sheet.opset, OPSET)
    if not result.is_graph_output():
        result.name, old.name = f"{key}:out", f"{key}:out/before"


def _scores(softmax: ir.Node) -> _Scores | None:
    """Return what a softmax along the last axis reads, if it is scores of an attention."""
    axis = softmax.attributes.get("axis")
    if axis is None or axis.value not in _LAST or softmax.inputs[0] is None:
        return None
    value = softmax.inputs[0]
    added = value.producer()
    pairs: list[tuple[ir.Value | None, ir.Value | None]] = [(value, None)]
    if added is not None and added.op_type == "Add" and _alone(value):
        pairs = [(added.inputs[0], added.inputs[1]), (added.inputs[1], added.inputs[0])]
    for scaled, mask in pairs:
        found = _scaled(scaled)
        if found is not None:
            (queries, first), (keys, second) = map(_factored, found[0].inputs[:2])
            return _Scores(queries, keys, float(found[1] * (first * second)), mask)
    return None


def _scaled(value: ir.Value | None) -> tuple[ir.Node, np.float32] | None:
    """Return (the product of matrices, its factor) that a value is, if it is one and nothing else reads it."""
    inner, factor = _factored(value)
    node = inner.producer() if inner is not None and _alone(inner) else None
    if value is None or not _alone(value) or node is None or node.op_type != "MatMul":
        return None
    return node, factor


def _factored(value: ir.Value | None) -> tuple[ir.Value | None, np.float32]:
    """Return (what is multiplied, or divided, by one number; the factor), or (the value itself, 1)."""
    node = value.producer() if value is not None else None
    for index, other in {"Mul": [(0, 1), (1, 0)], "Div": [(0, 1)]}.get(node.op_type, []) if node is not None else []:
        factor = _number(node.inputs[other]) if node is not None else None
        if node is not None and factor:
            return node.inputs[index], np.float32(1) / factor if node.op_type == "Div" else factor
    return value, np.float32(1)


def _heads(value: ir.Value | None, order: list[int], shapes: Shapes) -> _Heads | None:
    """Return the matrix whose heads a value is, in an order of axes, or None."""
    inner = _exchanged(value) if order == _TURNED else None
    if inner is not None:
        return _heads(inner, _HEADS_FIRST, shapes)
    turned = value.producer() if value is not None else None
    cut = turned.inputs[0] if turned is not None and turned.op_type == "Transpose" else None
    node = cut.producer() if cut is not None else None
    if turned is None or cut is None or node is None or node.op_type != "Reshape" or _order(turned) != order:
        return None
    whole, (batch, length, heads, width) = node.inputs[0], shapes.get(cut, ("", "", "", ""))
    if whole is None or not heads.isdecimal() or not width.isdecimal():
        return None
    found = _Heads(whole, batch, length, int(heads), int(width))
    return found if shapes.get(whole) == (batch, length, str(found.heads * found.width)) else None


def _exchanged(value: ir.Value | None) -> ir.Value | None:
    """Return the value whose last two axes were exchanged to give a value, or None."""
    node = value.producer() if value is not None else None
    flat = node is not None and node.op_type == "Reshape" and f":{_WHOLE}#" in key_of(node.name or "")
    turned = node.inputs[0].producer() if node is not None and flat and node.inputs[0] is not None else node
    if turned is None or turned.op_type != "Transpose" or _order(turned) != _EXCHANGED[flat]:
        return None
    inner = turned.inputs[0]
    cut = inner.producer() if inner is not None and flat else None
    return inner if not flat else cut.inputs[0] if cut is not None and cut.op_type == "Reshape" else None


def _fit(queries: _Heads, keys: _Heads, values: _Heads, out: Shape) -> bool:
    """Say whether three matrices make an attention with an output of this shape."""
    same = {(one.batch, one.heads) for one in (queries, keys, values)}
    return (
        len(same) == 1
        and (queries.width, keys.length) == (keys.width, values.length)
        and out == (queries.batch, queries.length, str(values.heads * values.width))
    )


def _masks(mask: ir.Value | None, queries: _Heads, keys: _Heads, shapes: Shapes) -> bool:
    """Say whether the operator takes a mask: four axes, and a number for each pair of places."""
    if mask is None:
        return True
    shape = shapes.get(mask, ())
    return (
        shape[2:] == (queries.length, keys.length)
        and shape[0] in ("1", queries.batch)
        and shape[1] in ("1", str(queries.heads))
    )


def _alone(value: ir.Value) -> bool:
    """Say whether one node reads a value and nobody else does."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def _reader(value: ir.Value, op: str) -> ir.Node | None:
    """Return the one node that reads a value, as the first of its inputs, if it has this operator."""
    use = next(iter(value.uses())) if _alone(value) else None
    return use.node if use is not None and use.idx == 0 and use.node.op_type == op else None


def _order(transpose: ir.Node) -> list[int] | None:
    found = transpose.attributes.get("perm")
    return None if found is None else list(found.as_ints())


def _number(value: ir.Value | None) -> np.float32 | None:
    """Return the one float32 number that an initializer holds, or None."""
    found = value.const_value.numpy() if value is not None and value.const_value is not None else None
    return None if found is None or found.size != 1 or found.dtype != np.float32 else np.float32(found.reshape(()))
