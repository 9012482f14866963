"""Zstandard frames (RFC 8878) whose content has a known size, which is checked before anything is decoded."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator

BEST = 19
DEEP = 12
QUICK = 3

_HEADER, _REPEATED_BYTE = 3, 1
"""Bytes of a block's header, and its type where it is one byte, so many times as its size says."""


def compress(data: bytes, level: int) -> bytes:
    """Return one frame that says how long its content is and has no checksum; no bytes for no bytes."""
    if not data:
        return b""
    import zstandard

    return bytes(zstandard.ZstdCompressor(level=level, write_checksum=False).compress(data))


def compress_parts(parts: Iterable[bytes], level: int) -> bytes:
    """Return one frame of parts that are unlike each other, without gaps; no bytes for no bytes.

    With each part Zstandard begins anew, as its threads do where they share a frame: it learns the prices of the part's
    own symbols, and neither repeats an offset nor a table from before. It does so only in frames that do not say how
    long their content is; so the blocks are put into one that does (RFC 8878, 3.1.1). What is no shorter is left.
    """
    import zstandard

    given = [part for part in parts if part]
    content = b"".join(given)
    whole = compress(content, level)
    if len(given) < 2:
        return whole
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=len(content), threads=1, write_content_size=0, write_checksum=0
    )
    out = io.BytesIO()
    with zstandard.ZstdCompressor(compression_params=parameters).stream_writer(out, closefd=False) as stream:
        for part in given:
            stream.write(part)
            stream.flush(zstandard.FLUSH_BLOCK)
    blocks = [block for block in _blocks(out.getvalue()) if len(block) > _HEADER]  # the last one is empty
    last = [False] * (len(blocks) - 1) + [True]
    marked = [bytes([block[0] & ~1 | end]) + block[1:] for block, end in zip(blocks, last, strict=True)]
    frame = b"".join([whole[: zstandard.frame_header_size(whole)], *marked])
    if len(frame) >= len(whole):
        return whole
    assert decompress(frame, len(content)) == content, "blocks of a part use nothing of another's"
    return frame


def _blocks(frame: bytes) -> Iterator[bytes]:
    """Yield the blocks of a frame without a checksum, with their headers."""
    import zstandard

    at = zstandard.frame_header_size(frame)
    while at < len(frame):
        header = int.from_bytes(frame[at : at + _HEADER], "little")
        end = at + _HEADER + (1 if header >> 1 & 3 == _REPEATED_BYTE else header >> 3)
        yield frame[at:end]
        at = end


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
