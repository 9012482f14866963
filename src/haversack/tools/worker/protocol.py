"""Frames: a JSON header and raw NumPy buffers over any byte stream; bounded, and never pickled.

A frame is, in this order::

    "HVW1"                        4 bytes
    length of the header          uint32, little-endian
    header                        JSON in UTF-8: {"data": {...}, "arrays": [[name, dtype, shape], ...]}
    one buffer for each array     C order, little-endian, in the order of the header

Nothing is believed before it is checked: sizes are bounded before a byte is allocated, dtypes are a closed list.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

import numpy as np

MAGIC = b"HVW1"
VERSION = 1
_PREFIX = struct.Struct("<4sI")
_DTYPES = frozenset(
    np.dtype(name).newbyteorder("<").str
    for name in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
)
_MAX_DIMENSIONS = 32


class BadFrame(ValueError):
    """Bytes that are no frame: truncated, oversized, foreign or lying about their content."""


class Source(Protocol):
    """What frames are read from: a raw binary file, a socket file, ``io.BytesIO``."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill a part of ``buffer``; return the number of bytes, 0 at the end of the stream."""


class Drain(Protocol):
    """What frames are written to."""

    def write(self, data: memoryview, /) -> int | None:
        """Write a part of ``data``; return the number of bytes."""


@dataclass(frozen=True)
class Bounds:
    """The largest frame that is written or believed.

    Attributes:
        header_bytes: of the JSON header.
        buffer_bytes: of all arrays together.
        arrays: how many arrays.
    """

    header_bytes: int = 16 << 20
    buffer_bytes: int = 8 << 30
    arrays: int = 4096


DEFAULT_BOUNDS = Bounds()


@dataclass(frozen=True, eq=False)
class Frame:
    """One message: JSON-able ``data``, and named arrays of booleans, integers or floats of any shape."""

    data: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


def encode(frame: Frame, bounds: Bounds = DEFAULT_BOUNDS) -> list[memoryview]:
    """Return the byte pieces of a frame; arrays in C order and little-endian are not copied.

    Raises:
        TypeError: ``data`` is not JSON-able, or an array has a dtype that does not travel.
        ValueError: ``data`` holds NaN or an infinity.
        BadFrame: the frame is over ``bounds``.
    """
    entries, buffers = [], []
    for name, array in frame.arrays.items():
        little = np.asarray(array)
        little = little.astype(little.dtype.newbyteorder("<"), copy=False)
        if little.dtype.str not in _DTYPES:
            message = f"{name}: arrays of dtype {array.dtype} do not travel"
            raise TypeError(message)
        entries.append([name, little.dtype.str, list(little.shape)])
        if little.size:
            buffers.append(np.ascontiguousarray(little).reshape(-1).view(np.uint8).data)
    text = json.dumps({"data": frame.data, "arrays": entries}, allow_nan=False, separators=(",", ":")).encode()
    if len(text) > bounds.header_bytes:
        _refuse(f"a header of {len(text)} bytes is over the bound of {bounds.header_bytes}")
    _check_sizes(len(entries), sum(len(buffer) for buffer in buffers), bounds)
    return [memoryview(_PREFIX.pack(MAGIC, len(text)) + text), *buffers]


def send(drain: Drain, pieces: list[memoryview]) -> None:
    """Write the pieces of an encoded frame, however small the steps are in which the stream takes them.

    Raises:
        OSError: the other end is gone.
    """
    for piece in pieces:
        rest = piece
        while len(rest):
            rest = rest[drain.write(rest) or 0 :]


def read_frame(source: Source, bounds: Bounds = DEFAULT_BOUNDS) -> Frame | None:
    """Read one frame; None when the stream ends before its first byte. Arrays are new, writable and in C order.

    Raises:
        BadFrame: it is not a frame, is over ``bounds``, or ends early.
        OSError: the stream cannot be read.
    """
    prefix = bytearray(_PREFIX.size)
    got = _fill(source, memoryview(prefix))
    if got == 0:
        return None
    if got < len(prefix):
        _refuse(f"the stream ends after {got} bytes of a frame")
    magic, length = _PREFIX.unpack(prefix)
    if magic != MAGIC:
        _refuse(f"a frame begins with {MAGIC!r}, not with {bytes(magic)!r}")
    if length > bounds.header_bytes:
        _refuse(f"a header of {length} bytes is over the bound of {bounds.header_bytes}")
    header = bytearray(length)
    _fill_whole(source, memoryview(header), "the header")
    data, entries = _parse(bytes(header))
    specs = list(_specs(entries, bounds))
    _check_sizes(len(specs), sum(math.prod(shape) * dtype.itemsize for _, dtype, shape in specs), bounds)
    arrays: dict[str, np.ndarray] = {}
    for name, dtype, shape in specs:
        array = np.empty(shape, dtype)
        if array.size:
            _fill_whole(source, array.reshape(-1).view(np.uint8).data, f"the array {name!r}")
        arrays[name] = array
    return Frame(data, arrays)


def _fill(source: Source, buffer: memoryview) -> int:
    got = 0
    while got < len(buffer):
        step = source.readinto(buffer[got:])
        if not step:
            break
        got += step
    return got


def _fill_whole(source: Source, buffer: memoryview, what: str) -> None:
    got = _fill(source, buffer)
    if got < len(buffer):
        _refuse(f"the stream ends after {got} of the {len(buffer)} bytes of {what}")


def _parse(header: bytes) -> tuple[dict[str, Any], list[Any]]:
    try:
        parsed = json.loads(header.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        message = f"the header is not JSON: {error}"
        raise BadFrame(message) from error
    if not isinstance(parsed, dict) or set(parsed) != {"data", "arrays"}:
        _refuse("the header is not an object of data and arrays")
    data, entries = parsed["data"], parsed["arrays"]
    if not isinstance(data, dict) or not isinstance(entries, list):
        _refuse("the header's data is not an object, or its arrays are not a list")
    return data, entries


def _specs(entries: list[Any], bounds: Bounds) -> Iterator[tuple[str, np.dtype[Any], tuple[int, ...]]]:
    seen = set()
    for entry in entries:
        if not (isinstance(entry, list) and len(entry) == 3):
            _refuse("an array is not [name, dtype, shape]")
        name, dtype, shape = entry
        if not isinstance(name, str) or name in seen:
            _refuse(f"an array's name is no text, or given twice: {name!r:.80}")
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            _refuse(f"arrays of dtype {dtype!r:.80} do not travel")
        if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS:
            _refuse(f"the shape of {name!r:.80} is not a list of at most {_MAX_DIMENSIONS} sizes")
        if not all(type(size) is int and 0 <= size <= bounds.buffer_bytes for size in shape):
            _refuse(f"the shape of {name!r:.80} has a size that is none, or over the bound")
        # NumPy refuses a shape whose non-zero sizes alone overflow, even when the array is empty.
        if math.prod(size or 1 for size in shape) > bounds.buffer_bytes:
            _refuse(f"the shape of {name!r:.80} is over the bound of {bounds.buffer_bytes} bytes")
        seen.add(name)
        yield name, np.dtype(dtype), tuple(shape)


def _check_sizes(arrays: int, size: int, bounds: Bounds) -> None:
    if arrays > bounds.arrays:
        _refuse(f"{arrays} arrays are over the bound of {bounds.arrays}")
    if size > bounds.buffer_bytes:
        _refuse(f"buffers of {size} bytes are over the bound of {bounds.buffer_bytes}")


def _no_constant(name: str) -> NoReturn:
    _refuse(f"{name} is no number of a header")


def _refuse(message: str) -> NoReturn:
    raise BadFrame(message)
