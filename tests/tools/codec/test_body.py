"""The segmented form: every model in one file, and each part that may be malformed, refused with its place."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.errors import Refused
from haversack.tools.codec import body, plan, rans, zstd


@given(st.binary(max_size=2000))
def test_round_trip(content):
    assert body.unpack(body.pack(content), len(content), 48) == content


def test_a_models_file(model_file):
    packed = body.pack(model_file)
    assert packed == body.pack(model_file)
    assert body.unpack(packed, len(model_file), 48) == model_file
    tables, lanes, segments, _, _, matched = body.SIZES.unpack_from(packed)
    assert 4 <= tables <= 12
    assert lanes == 16
    assert segments > 5
    assert 0 < matched < 1000


def test_round_trip_with_tensors(layers):
    content, tensors = layers
    packed = body.pack(content, tensors)
    assert packed == body.pack(content, tensors[::-1])
    assert body.unpack(packed, len(content), 48, 2) == content
    with pytest.raises(Refused, match="too many for"):
        body.unpack(packed, len(content), 48, 1)


@pytest.mark.parametrize("at_once", [1, 100, 1 << 20])
def test_however_much_at_once(layers, monkeypatch, at_once):
    content, tensors = layers
    content, tensors = content[:13_000], [each for each in tensors if each.end <= 13_000]
    packed = body.pack(content, tensors)
    monkeypatch.setattr(body, "_AT_ONCE", at_once)
    assert body.pack(content, tensors) == packed
    assert body.unpack(packed, len(content), 48, 2) == content


def made(tables=0, lanes=0, segments=0, *, levels=b"", directory=b"", rest=b"", packed=b""):
    """Return a body of parts, whatever they say."""
    plan = zstd.compress(levels + directory, zstd.QUICK)
    return body.SIZES.pack(tables, lanes, segments, len(directory), len(plan), len(packed)) + plan + packed + rest


LEVELS = bytes([0] * 65 + [9, 9] + [0] * 189)
CODED = bytes([4, 1, 2])
STATE = struct.pack("<I", 65536)


def test_by_hand():
    # A and B have 8192 of 16384 each: a symbol is a bit of the state, and so few of them fill no word.
    state = 65536
    for symbol in b"ABAB"[::-1]:
        state = (state // 8192) * 16384 + state % 8192 + (symbol - 65) * 8192
    rest = struct.pack("<I", state)
    directory = bytes([4, 1, 2])
    assert body.unpack(made(1, 1, 1, levels=LEVELS, directory=directory, rest=rest), 4, 0) == b"ABAB"


@pytest.mark.parametrize(
    "given_body, size, told",
    [
        (b"", 0, "byte 48 (sizes): 24 bytes of sizes end after 0"),
        (bytes(23), 0, "byte 48 (sizes): 24 bytes of sizes end after 23"),
        (made(257), 0, "byte 48 (sizes): 257 tables, 0 lanes and 0 segments are too many"),
        (made(0, 4097), 0, "byte 48 (sizes): 0 tables, 4097 lanes"),
        (made(0, 0, 65537), 0, "byte 48 (sizes): 0 tables, 0 lanes and 65537 segments"),
        (made(directory=b"abc"), 0, "byte 48 (sizes): 3 bytes of directory are too many for 0 segments"),
        (made(0, 1), 0, "byte 48 (sizes): the sizes say more than the 24 bytes"),
        (body.SIZES.pack(0, 0, 0, 0, 0, 1 << 60), 0, "byte 48 (sizes): the sizes say more"),
        (made(1), 0, "byte 72 (plan): error when determining content size"),
        (made(1, levels=bytes(256)), 0, "byte 72 (plan): table 0 has no symbol"),
        (made(1, levels=bytes([200] * 256)), 0, "byte 72 (plan): a level is 200"),
        (made(0, 0, 1, directory=bytes([4, 1, 2]), rest=b"abcd"), 4, "(plan): a segment has model 2"),
        (made(0, 0, 1, directory=bytes([4, 1, 0]), rest=b"abc"), 4, "(stored bytes): 3 bytes are there of 4"),
        (made(0, 0, 1, directory=bytes([4, 1, 0]), rest=b"abcde"), 4, "(states and words): 0 coded runs have 0"),
        (made(0, 0, 1, directory=bytes([4, 1, 1])), 4, "(packed bytes): error when determining content size"),
        (
            made(0, 0, 1, directory=bytes([4, 1, 1]), packed=zstd.compress(b"abc", 3)),
            4,
            "(packed bytes): the frame says 3 bytes where 4",
        ),
        (made(1, 0, 1, levels=LEVELS, directory=CODED), 4, "(states and words): 1 coded runs have 0 lanes"),
        (made(1, 1, 1, levels=LEVELS, directory=CODED, rest=STATE + b"a"), 4, "5 bytes are no 1 states"),
        (made(1, 1, 1, levels=LEVELS, directory=CODED, rest=bytes(4)), 4, "a state is below 2^16"),
        (made(1, 1, 1, levels=LEVELS, directory=CODED, rest=STATE), 4, "the words end at symbol 0"),
        (made(1, 1, 1, levels=LEVELS, directory=CODED, rest=STATE + bytes(20)), 4, "words are left over"),
        (made(1, 1, 1, levels=LEVELS, directory=CODED, rest=b"\xff" * 4), 4, "the last states are not 2^16"),
    ],
)
def test_malformed(given_body, size, told):
    with pytest.raises(Refused) as caught:
        body.unpack(given_body, size, 48)
    assert told in str(caught.value)
    assert caught.value.where.startswith("byte ")


def product_of(words, factor):
    """Return a body of some stored words and their product."""
    directory = b"".join(plan.write([(plan.Run(0, 8, 1, 0),), plan.Product(8, 16, 0, factor)]))
    return made(0, 0, 2, directory=directory, rest=struct.pack("<2I", *words))


def test_a_product_by_hand():
    content = body.unpack(product_of([0x3F800000, 0xC0000000], 0x3F000000), 16, 48, 2)
    assert struct.unpack("<4f", content) == (1, -2, 0.5, -1)


@pytest.mark.parametrize("words, factor", [([0, 0x3F800000], 0x3F800000), ([0x3F800000] * 2, 0x7F800000)])
def test_a_product_that_is_none(words, factor):
    with pytest.raises(Refused, match=r"byte 72 \(products\): 2 floats and the factor 0x[37]f800000 have no normal"):
        body.unpack(product_of(words, factor), 16, 48, 2)


def test_a_directory_is_bounded_by_the_file():
    most = plan.most_bytes(1, 100, 2)
    for more, told in ((0, "the frame says"), (1, "bytes of directory are too many for 1 segments")):
        sizes = body.SIZES.pack(0, 0, 1, most + more, 9, 0) + zstd.compress(b"", 3) + bytes(9)
        with pytest.raises(Refused, match=told if more else r"\(plan\)"):
            body.unpack(sizes, 100, 48, 2)


def test_few_lanes_for_many_bytes():
    size = (1 << 20) + 1
    directory = b"".join(plan.write([(plan.Run(0, size, 1, 2),)]))
    given_body = made(1, 1, 1, levels=bytes([9] + [0] * 255), directory=directory, rest=STATE)
    with pytest.raises(Refused, match="1048577 coded bytes are too many for 1 lanes"):
        body.unpack(given_body, size, 48)
    assert rans.lanes_for(1 << 32) << 20 >= 1 << 32


def test_places_count_from_the_file(model_file):
    packed = bytearray(body.pack(model_file))
    packed[30] ^= 0xFF
    for offset in (0, 48, 1000):
        with pytest.raises(Refused, match=f"byte {offset + 24} "):
            body.unpack(bytes(packed), len(model_file), offset)


def test_a_file_of_one_byte_a_million_times():
    content = bytes([7]) * 1_000_000
    packed = body.pack(content)
    assert len(packed) < 1200  # 256 states, and no word
    assert body.unpack(packed, len(content), 48) == content


def test_noise_is_stored():
    content = np.random.default_rng(0).integers(0, 256, 50_000, np.uint8).tobytes()
    packed = body.pack(content)
    assert len(content) < len(packed) < len(content) + 60
    assert content in packed
