"""Zstandard frames (RFC 8878) whose content has a known size, which is checked before anything is decoded."""

from __future__ import annotations

import io
import itertools

BEST = 19
DEEP = 12
QUICK = 3


def compress(data: bytes, level: int) -> bytes:
    """Return one frame that says how long its content is and has no checksum; no bytes for no bytes."""
    if not data:
        return b""
    import zstandard

    return bytes(zstandard.ZstdCompressor(level=level, write_checksum=False).compress(data))


def block_sizes(data: bytes, block: int, level: int) -> list[int]:
    """Return the bytes that each ``block`` bytes of ``data`` add to a frame of all, which repeats what is before."""
    import zstandard

    out = io.BytesIO()
    packer = zstandard.ZstdCompressor(level=level, write_checksum=False)
    ends = [0]
    with packer.stream_writer(out, size=len(data), closefd=False) as stream:
        stream.flush(zstandard.FLUSH_BLOCK)
        ends[0] = out.tell()  # the frame's own bytes
        for low in range(0, len(data), block):
            stream.write(data[low : low + block])
            stream.flush(zstandard.FLUSH_BLOCK)
            ends.append(out.tell())
    return [end - start for start, end in itertools.pairwise(ends)]


def decompress(frame: bytes | memoryview, size: int) -> bytes:
    """Return the ``size`` bytes of a frame.

    Raises:
        ValueError: it is not one whole frame and nothing after it, or its content has another size.
    """
    if not frame and not size:
        return b""
    import zstandard

    try:
        stated = zstandard.frame_content_size(frame)
        if stated != size or not size:
            said = "no size" if stated < 0 else f"{stated} bytes"
            message = f"the frame says {said} where {size} bytes belong"
            raise ValueError(message)
        # It allocates what the frame states, which is compared above: max_output_size would not bound that.
        content = bytes(zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False))
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    if len(content) != size:
        message = f"the frame has {len(content)} bytes where {size} belong"
        raise ValueError(message)
    return content
