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
