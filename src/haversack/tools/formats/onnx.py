"""Where the tensors of an .onnx file are, read from the protobuf wire format within bounds.

Messages and field numbers are those of onnx.proto; the wire format is https://protobuf.dev/programming-guides/encoding.
Initializers and constants of nodes count, also those of graphs inside nodes and of functions. Data in other files are
not followed.
"""

from __future__ import annotations

from collections.abc import Iterator

from haversack.base.errors import Refused
from haversack.base.stored import Stored
from haversack.tools.formats import wire
from haversack.tools.formats.placed import MOST_TENSORS, placed, stored

_DEEPEST = 24
_MOST_AXES = 16
_DTYPES = {1: "float32", 2: "uint8", 3: "int8", 4: "int16", 5: "int16", 6: "int32", 7: "int64", 9: "uint8"}
_DTYPES |= {10: "float16", 11: "float64", 12: "int32", 13: "int64", 16: "bfloat16", 17: "uint8", 18: "uint8"}
_DTYPES |= {19: "uint8", 20: "uint8", 21: "int4", 22: "int4"}
_TENSOR, _SPARSE = "tensor", "sparse"
_INSIDE = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: _TENSOR, 15: _SPARSE},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
}
"""Message -> field number -> message inside it, as far as tensors are there."""


def matches(data: bytes | memoryview) -> bool:
    """Say whether bytes begin as a model does: with ``ir_version``, a small number, which writers put first."""
    return len(data) > 2 and data[0] == 0x08 and data[1] < 0x80


def index(data: bytes | memoryview) -> tuple[Stored, ...]:
    """Return where the tensors are, in the order of the file.

    Raises:
        Refused: the bytes are no model's.
    """
    view = memoryview(data)
    found: list[Stored] = []
    node = ""
    pending = [("model", 0, len(view), 0, node)]
    while pending:
        message, start, end, depth, name = pending.pop()
        if depth > _DEEPEST:
            raise Refused(f"messages are nested deeper than {_DEEPEST}", where=f"byte {start}")
        if message == _TENSOR:
            found += _tensor(view, start, end, name)
            if len(found) > MOST_TENSORS:
                raise Refused(f"more than {MOST_TENSORS} tensors", where=f"byte {start}")
            continue
        inside = _INSIDE[message]
        for field in wire.fields(view, start, end):
            if message == "node" and field.number == 2 and field.wire == wire.BYTES:
                name = _text(view, field)
            elif field.number in inside and field.wire == wire.BYTES:
                pending.append((inside[field.number], field.start, field.end, depth + 1, name))
    return placed(sorted(found, key=lambda one: one.start), len(view))


def _text(view: memoryview, field: wire.Field) -> str:
    return bytes(view[field.start : min(field.end, field.start + 1024)]).decode("utf-8", "replace")


def _tensor(view: memoryview, start: int, end: int, owner: str) -> Iterator[Stored]:
    """Yield the bytes of a tensor: raw ones, else packed floats; other ways to write numbers are no words.

    Args:
        view: the file.
        start, end: of the message.
        owner: names a tensor that has no name: the output of its node.
    """
    name, kind, shape = owner, 0, list[int]()
    data: list[tuple[str, wire.Field]] = []
    for field in wire.fields(view, start, end):
        if field.number == 1 and len(shape) <= _MOST_AXES:
            shape += _dims(view, field)
        elif field.number == 2 and field.wire == wire.VARINT:
            kind = field.value
        elif field.wire == wire.BYTES and field.number == 8:
            name = _text(view, field) or owner
        elif field.wire == wire.BYTES and field.number in _PACKED:
            data.append((_PACKED[field.number], field))
    for dtype, field in data:
        words = dtype or _DTYPES.get(kind, "")
        if words:
            yield stored(name, field.start, field.end - field.start, words, tuple(shape))


_PACKED = {9: "", 4: "float32", 10: "float64"}
"""Field that holds words -> their dtype; raw data have the one that the tensor states."""


def _dims(view: memoryview, field: wire.Field) -> list[int]:
    if field.wire == wire.VARINT:
        return [field.value]
    found, at = list[int](), field.start
    while field.wire == wire.BYTES and at < field.end and len(found) <= _MOST_AXES:
        value, at = wire.varint(view, at, field.end)
        found.append(value)
    return found
