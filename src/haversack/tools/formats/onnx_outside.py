"""Which other files an .onnx file refers to: ONNX calls them external data, and a path in it may lead anywhere.

Field numbers are those of onnx.proto. Every place counts in which a tensor may stand: graphs, graphs inside nodes,
functions, training, sparse tensors.
"""

from __future__ import annotations

from haversack.base.errors import Refused
from haversack.tools.formats import wire

_TENSOR, _SPARSE, _GRAPH = "tensor", "sparse", "graph"
_INSIDE = {
    "model": {7: _GRAPH, 20: "training", 25: "function"},
    "training": {1: _GRAPH, 2: _GRAPH},
    _GRAPH: {1: "node", 5: _TENSOR, 15: _SPARSE},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
}
"""Message -> field number -> message inside it, as far as tensors are there."""
_EXTERNAL_DATA, _DATA_LOCATION, _EXTERNAL = 13, 14, 1
_DEEPEST = 24
_MOST_FIELDS = 4_000_000
_LONGEST = 256


def outside(data: bytes | memoryview) -> frozenset[str]:
    """Return the locations that the tensors of a model name, as they stand there.

    Raises:
        Refused: the bytes are no model's, a tensor is said to lie outside and no place is named, or there is more in it
            than anybody writes.
    """
    view = memoryview(data)
    found: set[str] = set()
    graphs = seen = 0
    pending = [("model", 0, len(view), 0)]
    while pending:
        message, start, end, depth = pending.pop()
        if depth > _DEEPEST:
            raise Refused(f"messages are nested deeper than {_DEEPEST}", where=f"byte {start}")
        if message == _TENSOR:
            found |= _locations(view, start, end)
            continue
        inside = _INSIDE[message]
        for field in wire.fields(view, start, end):
            seen += 1
            if field.number in inside and field.wire == wire.BYTES:
                graphs += message == "model" and inside[field.number] == _GRAPH
                pending.append((inside[field.number], field.start, field.end, depth + 1))
        if seen > _MOST_FIELDS:
            raise Refused(f"it has more than {_MOST_FIELDS} fields", where=f"byte {start}")
    if not graphs:
        raise Refused("it is no ONNX model: there is no graph in it", where="byte 0")
    return frozenset(found)


def _locations(view: memoryview, start: int, end: int) -> set[str]:
    found, external = set[str](), False
    for field in wire.fields(view, start, end):
        if field.number == _DATA_LOCATION and field.wire == wire.VARINT:
            external = field.value == _EXTERNAL
        elif field.number == _EXTERNAL_DATA and field.wire == wire.BYTES:
            parts = {one.number: one for one in wire.fields(view, field.start, field.end) if one.wire == wire.BYTES}
            key, value = (_text(view, parts.get(number)) for number in (1, 2))
            if key == "location":
                found.add(value)
    if external and not found:
        raise Refused("a tensor lies in another file, and none is named", where=f"byte {start}")
    return found


def _text(view: memoryview, field: wire.Field | None) -> str:
    return "" if field is None else bytes(view[field.start : min(field.end, field.start + _LONGEST)]).decode("latin-1")
