"""BSDIFF40: what bsdiff4 makes is applied as it applies it, and what strangers make within bounds."""

from __future__ import annotations

import bz2
import struct
import tracemalloc

import bsdiff4
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.errors import Refused
from haversack.tools.codec import bsdiff

OLD = b"a file of some bytes, and of some more; " * 30


def signed(value):
    return struct.pack("<Q", value if value >= 0 else -value | 1 << 63)


def patch(triples, mixed, extra, size=None):
    """Return a patch written by hand."""
    made = sum(one[0] + one[1] for one in triples) if size is None else size
    packed = [bz2.compress(b"".join(signed(number) for one in triples for number in one)), bz2.compress(mixed)]
    return struct.pack("<8sQQQ", b"BSDIFF40", *map(len, packed), made) + b"".join(packed) + bz2.compress(extra)


@given(st.binary(max_size=200), st.binary(max_size=200), st.integers(0, 200))
def test_patches_are_applied_as_their_own_package_does(one, two, cut):
    old, new = one * 3 + two, two + one[:cut] + one * 2
    made = bsdiff.make(old, new)
    assert bsdiff.apply(old, made, limit=len(new)) == bsdiff4.patch(old, made) == new


def test_a_patch_by_hand_that_goes_back_and_beyond_the_old_file():
    made = patch([(4, 2, -6), (5, 0, 2), (3, 0, 0)], bytes([1] * 12), b"xy")
    assert bsdiff.apply(b"abcdef", made, limit=14) == bsdiff4.patch(b"abcdef", made)[:6] + bytes(
        [1, 1, 98, 99, 100, 103, 1, 1]
    )


@pytest.mark.parametrize(
    ("made", "match"),
    [
        (b"", "begins"),
        (b"BSDIFF41" + bytes(24), "begins"),
        (patch([(1, 0, 0)], b"\0", b"", size=11), "are allowed"),
        (struct.pack("<8sQQQ", b"BSDIFF40", 1 << 62, 0, 5), "sizes"),
        (struct.pack("<8sQQQ", b"BSDIFF40", 4, 4, 5) + bytes(8), "bzip2"),
        (patch([(3, 0, 0)], b"\0\0", b""), "fewer"),
        (patch([(3, 0, 0)], b"\0\0\0", b"", size=4), "does not make"),
        (patch([(-3, 6, 0)], b"", b"123456"), "does not make"),
        (patch([(3, 1, 0)], b"\0\0\0", b"ab"), "at most"),
        (patch([(3, 0, 0)], b"\0\0\0", b"") + b"x", "at most"),
    ],
)
def test_malformed_patches(made, match):
    with pytest.raises(Refused, match=match):
        bsdiff.apply(OLD, made, limit=10)


def test_a_stream_that_unpacks_to_gigabytes_stays_small():
    bomb = bz2.compress(bytes(200 << 20))
    made = struct.pack("<8sQQQ", b"BSDIFF40", len(bomb), 0, 8) + bomb + bz2.compress(b"")
    tracemalloc.start()
    with pytest.raises(Refused):
        bsdiff.apply(OLD, made, limit=10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_makes_as_many_bytes(at, flip):
    new = OLD[50:] + b"and an end" + OLD[:70]
    made = bytearray(bsdiff.make(OLD, new))
    made[at % len(made)] ^= flip
    try:
        assert len(bsdiff.apply(OLD, bytes(made), limit=len(new))) <= len(new)
    except Refused as error:
        assert error.where
