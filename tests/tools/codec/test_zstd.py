"""Zstandard frames: one, whole, of the size that was said."""

from __future__ import annotations

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from haversack.tools.codec import zstd


@given(st.binary(max_size=300))
def test_round_trip(content):
    for level in (zstd.QUICK, zstd.DEEP, zstd.BEST):
        frame = zstd.compress(content, level)
        assert zstd.decompress(frame, len(content)) == content
        assert bool(frame) == bool(content)


FRAME = zstd.compress(b"abc" * 100, zstd.QUICK)


@pytest.mark.parametrize(
    "frame, size, told",
    [
        (FRAME, 299, "300 bytes where 299"),
        (FRAME, 0, "300 bytes where 0"),
        (b"", 300, "content size"),
        (FRAME[:-1], 300, "full frame"),
        (FRAME[:5], 300, "content size"),
        (FRAME + b"x", 300, "unused data"),
        (FRAME + FRAME, 300, "unused data"),
        (b"\x50\x2a\x4d\x18\x00\x00\x00\x00", 300, "where 300"),
        (zstandard.ZstdCompressor(write_content_size=False).compress(b"abc" * 100), 300, "no size"),
        (FRAME[:4] + b"\xff" * 20, 300, "content size"),
    ],
)
def test_what_is_no_frame(frame, size, told):
    with pytest.raises(ValueError, match=told):
        zstd.decompress(frame, size)


def test_sizes_of_blocks_say_where_bytes_repeat():
    noise = bytes(range(256))
    first, second, rest = zstd.block_sizes(noise + bytes(256) + b"ab", 256, zstd.QUICK)
    assert 256 <= first <= 266
    assert second < 16
    assert rest < 10
    assert zstd.block_sizes(b"", 256, zstd.QUICK) == []


def test_blocks_that_repeat_what_is_before_add_little():
    noise = np.random.default_rng(0).bytes(1 << 12)
    sizes = zstd.block_sizes(noise + noise, 1 << 10, zstd.QUICK)
    assert len(sizes) == 8
    assert min(sizes[:4]) >= 1 << 10
    assert max(sizes[4:]) < 32


def test_what_blocks_add_is_what_the_frame_has():
    content = b"".join(b"row %d; " % (index * index % 97) for index in range(2000))
    sizes = zstd.block_sizes(content, 1 << 10, zstd.BEST)
    assert 0.9 * len(zstd.compress(content, zstd.BEST)) < sum(sizes) < 2 * len(zstd.compress(content, zstd.BEST))


def unlike():
    """Return parts whose bytes are distributed differently, with the same runs in all of them."""
    drawn = np.random.default_rng(1)
    shifts = (drawn.binomial(30, 0.5, 4000) * 8, drawn.geometric(0.4, 4000) + 100, drawn.binomial(6, 0.4, 4000) + 200)
    return [bytes(20) + part.astype(np.uint8).tobytes() + bytes([9] * 30) for part in shifts]


def test_parts_that_are_unlike_are_shorter_apart():
    parts = unlike()
    content = b"".join(parts)
    frame = zstd.compress_parts(parts, zstd.BEST)
    assert zstd.decompress(frame, len(content)) == content
    assert len(frame) < sum(len(zstd.compress(part, zstd.BEST)) for part in parts)
    assert len(frame) < 0.98 * len(zstd.compress(content, zstd.BEST))
    assert frame == zstd.compress_parts(iter([b"", *parts]), zstd.BEST)


def test_a_decoder_of_its_own_reads_a_frame_of_parts():
    frame = zstd.compress_parts(unlike(), zstd.BEST)
    stream = zstandard.ZstdDecompressor().decompressobj()
    assert b"".join(stream.decompress(frame[at : at + 7]) for at in range(0, len(frame), 7)) == b"".join(unlike())
    assert stream.eof


@given(st.lists(st.lists(st.sampled_from([0, 0, 1, 7, 255]), max_size=400).map(bytes), max_size=5))
def test_parts_are_one_frame_whatever_they_are(parts):
    content = b"".join(parts)
    frame = zstd.compress_parts(parts, zstd.BEST)
    assert zstd.decompress(frame, len(content)) == content
    assert len(frame) <= len(zstd.compress(content, zstd.BEST))


def test_a_part_of_many_blocks():
    parts = [bytes(300_000), np.random.default_rng(0).bytes(300_000), b"ab" * 200_000]
    frame = zstd.compress_parts(parts, zstd.QUICK)
    assert zstd.decompress(frame, 1_000_000) == b"".join(parts)
    assert len(frame) <= len(zstd.compress(b"".join(parts), zstd.QUICK))


def test_parts_without_bytes():
    assert zstd.compress_parts([], zstd.BEST) == zstd.compress_parts([b"", b""], zstd.BEST) == b""
    assert zstd.compress_parts([b"", b"abc"], zstd.BEST) == zstd.compress(b"abc", zstd.BEST)
