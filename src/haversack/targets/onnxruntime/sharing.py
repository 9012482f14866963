"""Weights that several layers read stand in the file once: a GRU's weight is read at every step.

What becomes float, and what MatMulNBits reads, is read by all of them as it is. But ONNX Runtime makes unsigned weights
of signed ones under names of its own, and refuses a file in which two integer layers read one initializer ("Attempt to
replace the existing tensor": 1.32 with ``session.x64quantprecision``). So each further integer layer reads a copy: a
Slice of all rows, which ONNX Runtime folds when it opens the file, as it folds what widens 4 bits. It makes equal nodes
one before that, so that each Slice ends elsewhere behind the last row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from haversack.base.encodings import Dynamic, Encodings
from haversack.base.graph import Node
from haversack.tools.graph.injection import differences
from haversack.tools.graph.onnx.foreign import constant
from haversack.tools.graph.onnx.sheet import Sheet

if TYPE_CHECKING:
    import onnx_ir as ir

LEAST_COPIED = 512
"""Bytes of codes below which each integer layer has its own: what makes a copy takes some 200 of names."""
ENDS = 1 << 40
"""Behind this row the first copy's Slice ends: behind every row, and before what stands for no end at all."""
_START = "copies/from"


def first(sheet: Sheet, node: Node, encodings: Encodings, way: str) -> str:
    """Return the tensor key of the first layer that holds the weight of this one in the same way, maybe its own.

    Args:
        sheet: the file; it remembers who holds what.
        node: reads the weight.
        encodings: of all tensors: only equal weights are one.
        way: in which the weight is held; different arrays need different ways.
    """
    holders = sheet.holders.setdefault((str(node.weight), way), [])
    own = f"{node.key}:weight"
    for other in holders:
        if other == own or _same(encodings, other, own):
            return other
    holders.append(own)
    return own


def codes(sheet: Sheet, node: Node, encodings: Encodings, *, turned: bool = False) -> ir.Value:
    """Return the integer codes of a layer's weight, one that no other integer layer reads.

    Args:
        sheet: the file.
        node: the layer.
        encodings: of all tensors.
        turned: whether the layer wants the columns of the weight as rows.
    """
    own = f"{node.key}:weight"
    apart = turned and _all_turned(sheet, node, encodings)
    encoding, integers = encodings.affine(own), encodings.integers[own]
    assert encoding is not None, "an integer layer has integers"
    small = integers.size * encoding.bits < LEAST_COPIED * 8
    key = own if small else first(sheet, node, encodings, "turned" if apart else "codes")
    value = widened(sheet, key, np.ascontiguousarray(integers.T) if apart else integers, encoding.bits)
    if key != own:
        value = _copied(sheet, value, own)
    return sheet.node("Transpose", [value], f"{own}/Turn", perm=[1, 0]) if turned and not apart else value


def widened(sheet: Sheet, key: str, integers: np.ndarray, bits: int) -> ir.Value:
    """Return the int8 value of codes, made once for all that read it.

    Args:
        sheet: the file.
        key: tensor key of the weight that stands for all that are equal.
        integers: its codes, in the shape the file has them in.
        bits: of a code.
    """
    if key not in sheet.made:
        sheet.made[key] = sheet.integers(key, integers, bits)
    return sheet.made[key]


def _all_turned(sheet: Sheet, node: Node, encodings: Encodings) -> bool:
    """Say whether all that hold a weight in integers want its columns as rows, as MatMulInteger does."""
    calls = (other.key for other in sheet.model.graph.nodes if other.weight == node.weight)
    held = (key for key in calls if f"{key}:weight" in encodings.tensors)
    return all(isinstance(encodings.tensors.get(f"{key}:in"), Dynamic) for key in held)


def _copied(sheet: Sheet, value: ir.Value, key: str) -> ir.Value:
    """Return a copy of a constant, made by a node that is equal to no other."""
    count = sheet.copies[value]
    sheet.copies[value] += 1
    start = sheet.constant(_START, np.array([0], np.int64))
    end = sheet.constant(f"copies/to/{count}", np.array([ENDS + count], np.int64))
    return sheet.node("Slice", [value, start, end], f"{key}/Copy")


def original(value: ir.Value | None) -> tuple[ir.Value | None, bool]:
    """Return what a value is a copy of, and whether it is turned; a value that is no copy as it is."""
    node = value.producer() if value is not None else None
    turned = node is not None and node.op_type == "Transpose" and _exchanges(node)
    if node is not None and turned:
        value = node.inputs[0]
        node = value.producer() if value is not None else None
    if node is None or node.op_type != "Slice":
        return value, turned
    ends = [constant(each) for each in node.inputs[1:]]
    whole = len(ends) == 2 and all(one is not None and one.dtype == np.int64 and one.shape == (1,) for one in ends)
    if not whole or int(ends[0][0]) != 0 or int(ends[1][0]) < ENDS:  # type: ignore[index]
        return value, turned
    return node.inputs[0], turned


def _exchanges(node: ir.Node) -> bool:
    """Say whether a Transpose exchanges the two axes of a matrix."""
    import onnx_ir as ir

    found = node.attributes.get("perm")
    known = found is not None and not found.is_ref() and found.type is ir.AttributeType.INTS
    return found is not None and known and list(found.as_ints()) == [1, 0]


def _same(encodings: Encodings, one: str, other: str) -> bool:
    """Say whether two weights are stored alike, number for number."""
    tensors, integers = encodings.tensors, encodings.integers
    if tensors[one] is tensors[other] and integers.get(one) is integers.get(other):
        return True
    held = [Encodings({one: tensors[key]}, {one: integers[key]} if key in integers else {}) for key in (one, other)]
    return not differences(*held)[1]
