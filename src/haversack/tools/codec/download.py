"""The form in which a file is downloaded: Zstandard, or segments with an entropy code each, whichever is smaller.

docs/spec/download.md is the format, precise enough for decoders in other languages.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

from haversack.base.errors import Refused
from haversack.base.stored import Stored
from haversack.tools.codec import body, zstd

MAGIC = b"HVDL"
VERSION = 2
HEADER = struct.Struct("<4sBBHQ32s")
_WHOLE, _SEGMENTS = 1, 2
_SURELY = 1 << 20
_PATIENCE = 1 << 26


def pack(content: bytes, tensors: Iterable[Stored] = ()) -> bytes:
    """Return a file's download form, the same for the same arguments and the same version of Zstandard.

    It is at most 48 bytes more than a frame of level 3, of level 12 and, wherever that may be smaller, of level 19.

    Args:
        content: the file.
        tensors: where it keeps tensors. They are hints: right ones make it smaller, and wrong ones only larger. What
            was packed without any is of version 1, for readers that know no other.
    """
    tensors = tuple(tensors)
    packed, form = body.pack(content, tensors), _SEGMENTS
    whole = _whole(content, len(packed))
    if len(whole) <= len(packed):
        packed, form = whole, _WHOLE
    version = VERSION if tensors else VERSION - 1
    return HEADER.pack(MAGIC, version, form, 0, len(content), hashlib.sha256(content).digest()) + packed


def unpack(data: bytes, *, limit: int) -> bytes:
    """Return the file of a download form, its sha256 checked.

    Args:
        data: what ``pack`` returned.
        limit: the most bytes that the file may have; what says more is refused before anything is allocated.

    Raises:
        Refused: it is not a whole download form of this version and nothing else, or says more than ``limit`` bytes.
    """
    if len(data) < HEADER.size:
        raise Refused(f"a header of {HEADER.size} bytes ends after {len(data)}", where="byte 0 (header)")
    magic, version, form, reserved, size, digest = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise Refused("no download form begins like this", where="byte 0 (magic)")
    if version not in {VERSION - 1, VERSION}:
        known = f"version {version} is unknown here, which reads {VERSION - 1} and {VERSION}"
        raise Refused(known, where="byte 4 (version)")
    if form not in {_WHOLE, _SEGMENTS} or reserved:
        raise Refused(f"form {form} and reserved {reserved} are unknown in version {version}", where="byte 5 (form)")
    if size > limit:
        raise Refused(f"the file has {size} bytes, and {limit} are allowed", where="byte 8 (length)")
    rest = memoryview(data)[HEADER.size :]
    content = body.unpack(rest, size, HEADER.size, version) if form == _SEGMENTS else _content(rest, size)
    if hashlib.sha256(content).digest() != digest:
        raise Refused("the content has another sha256", where="byte 16 (sha256)")
    return content


def _content(frame: bytes | memoryview, size: int) -> bytes:
    try:
        return zstd.decompress(frame, size)
    except ValueError as error:
        raise Refused(str(error), where=f"byte {HEADER.size} (Zstandard frame)") from error


def _whole(content: bytes, rival: int) -> bytes:
    """Return the content as one frame: the smallest of the levels that are worth their time against ``rival`` bytes.

    Level 19 takes a second for five megabytes. Where level 12 finds no more than level 3, and both lose, there are no
    repetitions for it to find; files of up to a mebibyte are not left to that argument.
    """
    quick, deep = zstd.compress(content, zstd.QUICK), zstd.compress(content, zstd.DEEP)
    best = min(quick, deep, key=len)
    hopeless = len(deep) > 0.99 * len(quick) and rival < 0.995 * len(best)
    if len(content) > _PATIENCE or (hopeless and len(content) > _SURELY):
        return best
    return min(best, zstd.compress(content, zstd.BEST), key=len)
