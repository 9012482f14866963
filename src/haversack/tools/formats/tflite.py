"""Where the tensors of a .tflite file are: buffers of the FlatBuffer, and the scales and zero-points of its tables.

Slots are those of TensorFlow Lite's schema.fbs. A buffer is named for the first tensor that reads it; equal vectors may
be stored once for many tensors.
"""

from __future__ import annotations

from collections.abc import Iterator

from haversack.base.errors import Refused
from haversack.base.stored import Stored
from haversack.tools.formats.flat import Spoiled, Table, root
from haversack.tools.formats.placed import MOST_TENSORS, placed, stored

IDENTIFIER = b"TFL3"
_DTYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "uint8", 7: "int16", 8: "float32"}
_DTYPES |= {9: "int8", 10: "float64", 11: "float64", 12: "int64", 15: "int32", 16: "int16", 17: "int4"}
_DTYPES |= {18: "bfloat16"}
_QUANTIZED = (("min", 0, "float32", 4), ("max", 1, "float32", 4), ("scale", 2, "float32", 4), ("zero", 3, "int64", 8))
"""Vectors of a tensor's quantization: name, slot, dtype, bytes of a word."""


def matches(data: bytes | memoryview) -> bool:
    """Say whether bytes begin as such a file does."""
    return bytes(data[4:8]) == IDENTIFIER


def index(data: bytes | memoryview) -> tuple[Stored, ...]:
    """Return where the tensors are, in the order of the file.

    Raises:
        Refused: an offset or a length leads out of the file.
    """
    view = memoryview(data)
    try:
        return placed(_tensors(root(view, IDENTIFIER)), len(view))
    except Spoiled as error:
        raise Refused(str(error), where=".tflite") from error


def _tensors(model: Table) -> Iterator[Stored]:
    buffers = [_buffer(one) for one in model.tables(4)]
    seen: set[int] = set()
    for subgraph in model.tables(2):
        if subgraph.at in seen:
            continue
        seen.add(subgraph.at)
        for tensor in subgraph.tables(0):
            if tensor.at in seen:
                continue
            seen.add(tensor.at)
            if len(seen) > MOST_TENSORS:
                raise Spoiled(f"more than {MOST_TENSORS} tensors")
            yield from _tensor(tensor, buffers)
    for number, (start, length) in enumerate(buffers):  # metadata, and what no tensor reads
        yield stored(f"buffer {number}", start, length, "uint8", ())


def _buffer(table: Table) -> tuple[int, int]:
    """Return where a buffer's bytes begin and how many there are: in the FlatBuffer, or behind it in a large file."""
    start, length = table.span(0, 1)
    return (start, length) if length else (table.integer(1, "Q"), table.integer(2, "Q"))


def _tensor(tensor: Table, buffers: list[tuple[int, int]]) -> Iterator[Stored]:
    name, number = tensor.text(3), tensor.integer(2)
    dtype = _DTYPES.get(tensor.integer(1, "b"), "uint8")
    shape = tensor.numbers(0, "i")
    if number < len(buffers):
        start, length = buffers[number]
        yield stored(name, start, length, dtype, shape)
    quantization = tensor.table(4)
    if quantization is not None:
        for suffix, slot, words, width in _QUANTIZED:
            start, count = quantization.span(slot, width)
            yield stored(f"{name}/{suffix}", start, count * width, words, ())
