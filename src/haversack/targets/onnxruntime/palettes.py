"""Palettes: a weight as indices into a few values, looked up in float.

ONNX Runtime folds the look-up of a layer's weight when it opens the file: the kernel that runs is the float one, and
only the file is smaller. A table of embeddings stays indices, and only the rows that are read become float.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from haversack.base.encodings import Codebook
from haversack.base.graph import Node
from haversack.tools.graph.onnx.foreign import Foreign, constant
from haversack.tools.graph.onnx.foreign import axis as axis_of
from haversack.tools.graph.onnx.naming import CODES
from haversack.tools.graph.onnx.sheet import Sheet
from haversack.tools.graph.roles import Role, role

if TYPE_CHECKING:
    import onnx_ir as ir

PALETTE = "/palette"
HALF = 4
"""Bits of an index up to which two share a byte, but in a table of embeddings."""
BYTES = "bytes"
"""How a weight is held whose indices have a byte each."""
_INDICES = frozenset({"uint4", "uint8"})


def palette_fault(node: Node, book: Codebook) -> str:
    """Say why a palette has no place in a file, or nothing."""
    table = role(node) is Role.EMBEDDING
    return "a table of embeddings has one palette, not one for each group of rows" if table and book.group else ""


def write_palette(sheet: Sheet, key: str, book: Codebook, indices: np.ndarray, holder: str) -> ir.Value:
    """Return a weight's float32 value, looked up: with groups of rows, each row of indices in a palette of its own.

    Args:
        sheet: the file.
        key: tensor key of the weight.
        book: its palette.
        indices: int32, the weight's shape.
        holder: tensor key of the weight that stands for all that are equal.
    """
    entries = sheet.constant(f"{holder}{PALETTE}", book.entries)
    if not book.group:
        return sheet.node("Gather", [entries, sheet.indices(holder, indices, book.bits)], f"{key}/Gather", axis=0)
    wide = sheet.indices(holder, indices.reshape(len(book.entries), -1), book.bits)
    found = sheet.node("GatherElements", [entries, wide], f"{key}/GatherElements", axis=1)
    shape = sheet.constant(f"{key}/shape", np.array(indices.shape, np.int64))
    return sheet.node("Reshape", [found, shape], f"{key}/Reshape")


def write_rows(sheet: Sheet, node: Node, book: Codebook, indices: np.ndarray, rows: ir.Value, key: str) -> ir.Value:
    """Write an embedding that looks up rows of indices, a byte each, and then their values.

    Args:
        sheet: the file.
        node: the embedding.
        book: its palette.
        indices: int32 [rows, width].
        rows: which are looked up.
        key: tensor key of the weight that stands for all that are equal.
    """
    import onnx_ir as ir

    table = sheet.constant(f"{key}{CODES}", indices.astype(np.uint8))
    found = sheet.node("Gather", [table, rows], f"{node.key}/Gather")
    wide = sheet.node("Cast", [found], f"{node.key}/Cast", to=int(ir.DataType.INT32))
    return sheet.node("Gather", [sheet.constant(f"{key}{PALETTE}", book.entries), wide], node.key, axis=0)


def read_palette(node: ir.Node) -> tuple[Codebook, np.ndarray] | None:
    """Return the palette and the int32 indices of a weight that a node looks up; None where it looks up nothing stored.

    Args:
        node: the Gather of one palette, or the Reshape behind the GatherElements of several.

    Raises:
        ValueError: it is not as we write it.
    """
    lookup, shape = node, None
    if node.op_type == "Reshape":
        maker = node.inputs[0].producer() if node.inputs[0] is not None else None
        if maker is None or maker.op_type != "GatherElements":
            return None
        lookup, shape = maker, constant(node.inputs[1])
    widened = lookup.inputs[1].producer() if lookup.inputs[1] is not None else None
    entries = constant(lookup.inputs[0])
    codes = constant(widened.inputs[0]) if widened is not None and widened.op_type == "Cast" else None
    if entries is None or codes is None or str(codes.dtype) not in _INDICES:
        return None
    if shape is None:
        return _book(entries, 0), codes.astype(np.int32)
    if axis_of(lookup) != 1 or shape.ndim != 1 or codes.ndim != 2 or int(np.prod(shape)) != codes.size:
        raise Foreign(f"{node.name}: palettes of groups that are not looked up row by row")
    group, left = divmod(int(shape[0]), len(entries))
    if left or not group:
        raise Foreign(f"{node.name}: {len(entries)} palettes for {shape[0]} rows")
    return _book(entries, group), codes.astype(np.int32).reshape(tuple(shape))


def read_rows(table: np.ndarray, cast: ir.Node) -> tuple[Codebook, np.ndarray] | None:
    """Return the palette and the indices of a table of embeddings, or None where no palette is read behind it.

    Args:
        table: what rows are looked up in.
        cast: what widens them.
    """
    lookups = [use.node for use in cast.outputs[0].uses() if use.node.op_type == "Gather" and use.idx == 1]
    entries = constant(lookups[0].inputs[0]) if len(lookups) == 1 else None
    if entries is None or table.dtype != np.uint8:
        return None
    return _book(entries, 0), table.astype(np.int32)


def _book(entries: np.ndarray, group: int) -> Codebook:
    """Return entries as a palette.

    Raises:
        Foreign: they are not float32, or not a power of two of them.
    """
    bits = (entries.shape[-1] if entries.ndim else 0).bit_length() - 1
    if entries.dtype != np.float32 or bits < 1:
        raise Foreign(f"a palette of {entries.shape} values of {entries.dtype}")
    try:
        return Codebook(bits, entries, group)
    except ValueError as error:
        raise Foreign(str(error)) from error
