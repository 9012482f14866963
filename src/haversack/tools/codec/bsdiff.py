"""BSDIFF40 patches (C. Percival, "Naive differences of executable code", 2003): made by bsdiff4, applied within bounds.

A patch is a header, then three bzip2 streams: control, differences, extra bytes. The control is triples of integers:
bytes of the old file that differences are added to, extra bytes, and how far the old file goes on from there.
"""

from __future__ import annotations

import bz2
import struct
from collections.abc import Iterator

import numpy as np

from haversack.base.errors import MissingExtra, Refused

MAGIC = b"BSDIFF40"
HEADER = struct.Struct("<8sQQQ")
"""Magic, bytes of the packed control and of the packed differences, bytes of the new file; signs in the top bit."""
_TRIPLE = 24
_SIGN = 1 << 63


def make(old: bytes, new: bytes) -> bytes:
    """Return a patch.

    Raises:
        MissingExtra: the package bsdiff4 is not installed.
    """
    try:
        import bsdiff4
    except ImportError as error:
        raise MissingExtra("bsdiff4", "pack", purpose="a delta of two files") from error
    return bytes(bsdiff4.diff(old, new))


def control(patch: bytes, *, limit: int) -> tuple[list[tuple[int, int, int]], int]:
    """Return the triples of a patch, and where its differences begin.

    Args:
        patch: the whole of it.
        limit: the most bytes that the new file may have.

    Raises:
        Refused: it is no patch, says more than ``limit``, or its triples do not make what it says.
    """
    if len(patch) < HEADER.size or patch[:8] != MAGIC:
        raise Refused("no BSDIFF40 patch begins like this", where="byte 0 (magic)")
    _, packed, differences, size = HEADER.unpack_from(patch)
    if size > limit:
        raise Refused(f"the new file has {size} bytes, and {limit} are allowed", where="byte 24 (length)")
    if packed + differences > len(patch) - HEADER.size:
        raise Refused("the sizes say more than there is", where="byte 8 (sizes)")
    # A triple that makes nothing moves the place in the old file only: as many as there are bytes serve any purpose.
    at = HEADER.size + packed
    content = _unpacked(patch[HEADER.size : at], _TRIPLE * (size + 1), "control")
    if len(content) % _TRIPLE:
        raise Refused(f"a control of {len(content)} bytes", where="control")
    numbers = np.frombuffer(content, "<u8")
    magnitudes = (numbers & np.uint64(_SIGN - 1)).astype(np.int64)
    signed = np.where(numbers >> np.uint64(63), -magnitudes, magnitudes).reshape(-1, 3).tolist()
    if any(mixed < 0 or extra < 0 for mixed, extra, _ in signed) or sum(one[0] + one[1] for one in signed) != size:
        raise Refused(f"the control does not make {size} bytes", where="control")
    return [(mixed, extra, seek) for mixed, extra, seek in signed], at


def apply(old: bytes | memoryview, patch: bytes, *, limit: int) -> bytes:
    """Return the new file.

    Args:
        old: the file that the patch was made for; any other gives other bytes.
        patch: the whole of it.
        limit: the most bytes that the new file may have; what says more is refused before anything is unpacked.

    Raises:
        Refused: the patch is malformed, or says more than ``limit``.
    """
    triples, at = control(patch, limit=limit)
    differences = HEADER.unpack_from(patch)[2]
    mixed = _unpacked(patch[at : at + differences], sum(one[0] for one in triples), "differences")
    extra = _unpacked(patch[at + differences :], sum(one[1] for one in triples), "extra bytes")
    if len(mixed) != sum(one[0] for one in triples) or len(extra) != sum(one[1] for one in triples):
        raise Refused("fewer bytes are there than the control takes", where="differences")
    return b"".join(_pieces(np.frombuffer(old, np.uint8), triples, mixed, extra))


def _pieces(old: np.ndarray, triples: list[tuple[int, int, int]], mixed: bytes, extra: bytes) -> Iterator[bytes]:
    place = added = taken = 0
    for length, more, seek in triples:
        piece = np.frombuffer(mixed, np.uint8, length, added).copy()
        low, high = max(place, 0), min(place + length, len(old))  # bytes outside of the old file count as 0
        if low < high:
            piece[low - place : high - place] += old[low:high]
        yield piece.tobytes()
        yield extra[taken : taken + more]
        place, added, taken = place + length + seek, added + length, taken + more


def _unpacked(data: bytes, most: int, what: str) -> bytes:
    """Return the content of a bzip2 stream of at most so many bytes."""
    reader = bz2.BZ2Decompressor()
    try:
        content = reader.decompress(data, most + 1)
    except (OSError, EOFError) as error:
        raise Refused(f"no bzip2 stream: {error}", where=what) from error
    if len(content) > most or not reader.eof or reader.unused_data:
        raise Refused(f"a stream of other than {most} bytes at most", where=what)
    return content
