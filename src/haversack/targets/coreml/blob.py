"""The weights file of a Core ML package: arrays at offsets, each behind 64 bytes that say what it is.

The layout is MILBlob's storage format, version 2 (apple/coremltools, mlmodel/src/MILBlob/Blob/StorageFormat.hpp): a
header of 64 bytes with the number of blobs; before each blob 64 bytes with a sentinel, its dtype, its size in bytes and
the offset of its data; everything aligned to 64 bytes, little endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

ALIGNMENT = 64
_HEADER = struct.Struct("<II56x")
_METADATA = struct.Struct("<IIQQ40x")
_SENTINEL = 0xDEADBEEF
_VERSION = 2
_DTYPES = {"float16": 1, "float32": 2, "uint8": 3, "int8": 4}
_NAMES = {number: name for name, number in _DTYPES.items()}


class BadBlob(ValueError):
    """Not a weights file, or no blob of it at that offset."""


@dataclass
class BlobWriter:
    """A weights file being written; equal arrays are stored once."""

    data: bytearray = field(default_factory=lambda: bytearray(ALIGNMENT))
    known: dict[tuple[str, bytes], int] = field(default_factory=dict)

    def add(self, array: np.ndarray) -> int:
        """Store an array (float16, float32, uint8 or int8, any shape) and return the offset of its metadata."""
        raw = np.ascontiguousarray(array).tobytes()
        key = (str(array.dtype), raw)
        if key not in self.known:
            offset = len(self.data)
            self.data += _METADATA.pack(_SENTINEL, _DTYPES[str(array.dtype)], len(raw), offset + ALIGNMENT)
            self.data += raw + bytes(-len(raw) % ALIGNMENT)
            self.known[key] = offset
        return self.known[key]

    def finish(self) -> bytes:
        """Return the file."""
        _HEADER.pack_into(self.data, 0, len(self.known), _VERSION)
        return bytes(self.data)


@dataclass(frozen=True)
class BlobReader:
    """A weights file that anybody may have spoiled.

    Raises:
        BadBlob: it has no header of ours.
    """

    data: bytes

    def __post_init__(self) -> None:
        if len(self.data) < ALIGNMENT or _HEADER.unpack_from(self.data)[1] != _VERSION:
            raise BadBlob("the weights file has no header of version 2")

    def read(self, offset: int, dtype: str, elements: int) -> np.ndarray:
        """Return the flat array whose metadata lies at an offset.

        Args:
            offset: as the program tells it.
            dtype: that the program says it has.
            elements: how many values the program says it has.

        Raises:
            BadBlob: there is no such blob, it lies outside the file, or it is of another dtype or size.
        """
        if offset % ALIGNMENT or not ALIGNMENT <= offset <= len(self.data) - ALIGNMENT:
            raise BadBlob(f"no blob can lie at byte {offset} of {len(self.data)}")
        sentinel, kind, size, start = _METADATA.unpack_from(self.data, offset)
        if sentinel != _SENTINEL:
            raise BadBlob(f"no blob lies at byte {offset}")
        wanted = elements * np.dtype(dtype).itemsize
        if _NAMES.get(kind) != dtype or size != wanted:
            found = _NAMES.get(kind, f"of kind {kind}")
            raise BadBlob(f"the blob at byte {offset} is {size} bytes {found}, not {wanted} bytes {dtype}")
        if start != offset + ALIGNMENT or start + size > len(self.data):
            raise BadBlob(f"the blob at byte {offset} leaves the file")
        return np.frombuffer(self.data, np.dtype(dtype).newbyteorder("<"), elements, start).astype(dtype)
