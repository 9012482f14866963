"""Where the tensors of a .gguf file are: key-value pairs, then a list of tensors, then their bytes, aligned.

The format is https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import struct
from math import prod

from haversack.base.errors import Refused
from haversack.base.stored import Stored
from haversack.tools.formats.placed import MOST_TENSORS, placed, stored

MAGIC = b"GGUF"
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
"""Type of a value -> its letter in ``struct``; 8 is a string, 9 an array."""
_STRING, _ARRAY = 8, 9
_DEEPEST = 4
_MOST_AXES = 8
_DTYPES = {0: "float32", 1: "float16", 24: "int8", 25: "int16", 26: "int32", 27: "int64", 28: "float64", 30: "bfloat16"}
_WORDS = {"float32": 4, "float16": 2, "int8": 1, "int16": 2, "int32": 4, "int64": 8, "float64": 8, "bfloat16": 2}
_BLOCKS = {2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84)}
_BLOCKS |= {11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66)}
_BLOCKS |= {17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82)}
_BLOCKS |= {23: (256, 136), 29: (256, 56), 34: (256, 54), 35: (256, 66)}
"""Type of a quantized tensor -> weights of a block and its bytes."""
_ALIGNMENT = "general.alignment"
_LARGEST_ALIGNMENT = 1 << 20


class _Reader:
    """Reads values one after the other, none beyond the end."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = len(MAGIC)

    def number(self, letter: str) -> float:
        size = struct.calcsize(f"<{letter}")
        if self.at + size > len(self.data):
            raise Refused("the file ends within its header", where=f"byte {self.at}")
        found: float = struct.unpack_from(f"<{letter}", self.data, self.at)[0]
        self.at += size
        return found

    def integer(self, letter: str) -> int:
        return int(self.number(letter))

    def skip(self, size: int) -> None:
        if size > len(self.data) - self.at:
            raise Refused(f"{size} bytes lead out of the file", where=f"byte {self.at}")
        self.at += size

    def text(self) -> str:
        start, size = self.at + 8, self.integer("Q")
        self.skip(size)
        return bytes(self.data[start : self.at]).decode("utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> float | None:
        """Read a value; only numbers are returned."""
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            self.skip(self.integer("Q"))
        elif kind == _ARRAY and depth < _DEEPEST:
            inner, count = self.integer("I"), self.integer("Q")
            if inner in _SCALARS:
                self.skip(count * struct.calcsize(f"<{_SCALARS[inner]}"))
            else:
                self.counted(count, 8)
                for _ in range(count):
                    self.value(inner, depth + 1)
        else:
            raise Refused(f"a value of type {kind} at depth {depth} is unknown", where=f"byte {self.at}")
        return None

    def counted(self, count: int, least: int) -> None:
        """Refuse more values than the rest of the file can hold."""
        if count * least > len(self.data) - self.at:
            raise Refused(f"{count} values lead out of the file", where=f"byte {self.at}")


def matches(data: bytes | memoryview) -> bool:
    """Say whether bytes begin as such a file does."""
    return bytes(data[:4]) == MAGIC


def index(data: bytes | memoryview) -> tuple[Stored, ...]:
    """Return where the tensors are, in the order of the file; those of unknown types are left out.

    Raises:
        Refused: the header is not one, or of a version that is not read.
    """
    view = memoryview(data)
    if not matches(view):
        raise Refused("no .gguf file begins like this", where="byte 0 (magic)")
    reader = _Reader(view)
    if (version := reader.integer("I")) not in (2, 3):
        raise Refused(f"version {version} is not read here", where="byte 4 (version)")
    tensors, pairs = reader.integer("Q"), reader.integer("Q")
    reader.counted(pairs, 13)
    alignment = 32
    for _ in range(pairs):
        key = reader.text()
        value: object = reader.value(reader.integer("I"))
        if key == _ALIGNMENT and isinstance(value, int):
            alignment = value
    if not 0 < alignment <= _LARGEST_ALIGNMENT:
        raise Refused(f"an alignment of {alignment} bytes", where=_ALIGNMENT)
    reader.counted(tensors, 24)
    if tensors > MOST_TENSORS:
        raise Refused(f"{tensors} tensors are too many", where="byte 8 (tensors)")
    listed = [_listed(reader) for _ in range(tensors)]
    base = -(-reader.at // alignment) * alignment
    return placed([one for name, shape, kind, at in listed for one in _stored(name, shape, kind, base + at)], len(view))


def _listed(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    name, axes = reader.text(), reader.integer("I")
    if axes > _MOST_AXES:
        raise Refused(f"a tensor of {axes} axes", where=f"byte {reader.at}")
    shape = tuple(reader.integer("Q") for _ in range(axes))
    return name, shape, reader.integer("I"), reader.integer("Q")


def _stored(name: str, shape: tuple[int, ...], kind: int, start: int) -> list[Stored]:
    count = prod(shape)
    if kind in _DTYPES:
        dtype = _DTYPES[kind]
        return [stored(name, start, count * _WORDS[dtype], dtype, shape[::-1])]
    if kind in _BLOCKS and count % _BLOCKS[kind][0] == 0:
        weights, size = _BLOCKS[kind]
        return [stored(name, start, count // weights * size, "blocks", shape[::-1])]
    return []
