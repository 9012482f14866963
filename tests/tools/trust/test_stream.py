"""Encrypted blobs: what comes out is what went in, and nothing that was changed on the way."""

from __future__ import annotations

import hashlib
import io
import struct

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.errors import Refused
from haversack.tools.trust import stream
from haversack.tools.trust.stream import CHUNK, HEADER, TAG, decrypt, encrypt, opened, sealed, sealed_bytes

KEY = bytes(range(32))
PREFIX = b"prefix!"


def content(size: int) -> bytes:
    return hashlib.shake_128(b"content").digest(size)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fixed(data: bytes) -> bytes:
    target = io.BytesIO()
    encrypt(io.BytesIO(data), target, KEY, sha256(data), prefix=PREFIX)
    return target.getvalue()


def chunks(blob: bytes) -> list[bytes]:
    body = blob[HEADER.size :]
    return [body[start : start + CHUNK + TAG] for start in range(0, len(body), CHUNK + TAG)]


@pytest.fixture(scope="module")
def long() -> tuple[bytes, bytes]:
    """Return a plain blob of three chunks and a little, and its encrypted form."""
    data = content(3 * CHUNK + 5)
    return data, fixed(data)


@pytest.mark.parametrize("size", [0, 1, 15, 16, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
def test_what_goes_in_comes_out(size):
    data = content(size)
    blob = sealed(data, KEY, sha256(data))
    assert len(blob) == sealed_bytes(size)
    assert opened(blob, KEY, limit=size) == data


@given(st.binary(max_size=200))
def test_small_blobs_come_back(data):
    assert opened(sealed(data, KEY, sha256(data)), KEY, limit=len(data)) == data


def test_the_bytes_are_those_of_the_specification(long):
    """Compute them anew from RFC 5869 and the nonce of STREAM, by HMAC and AES-GCM alone."""
    import hmac

    data, blob = long
    digest = hashlib.sha256(data).digest()
    header = struct.pack("<4sBBH", b"HVST", 1, 20, 0) + PREFIX + b"\0" + digest
    pseudorandom = hmac.digest(bytes(32), KEY, "sha256")
    key = hmac.digest(pseudorandom, b"haversack blob 1" + digest + b"\x01", "sha256")
    expected = header
    for number in range(4):
        part = data[number * CHUNK : (number + 1) * CHUNK]
        nonce = PREFIX + struct.pack(">IB", number, number == 3)
        expected += AESGCM(key).encrypt(nonce, part, header)
    assert blob == expected


def test_two_encryptions_share_no_nonce():
    first, second = (sealed(b"the same", KEY, sha256(b"the same")) for _ in range(2))
    assert first[8:15] != second[8:15]
    assert first[HEADER.size :] != second[HEADER.size :]


def test_each_blob_has_its_own_key():
    one, other = b"a" * 64, b"b" * 64
    blob = fixed(one)
    swapped = blob[:16] + hashlib.sha256(other).digest() + blob[48:]
    with pytest.raises(Refused, match="changed, or is of another key"):
        opened(swapped, KEY, limit=64)


@pytest.mark.parametrize("cut", [1, TAG, TAG + 5, CHUNK, CHUNK + TAG, CHUNK + TAG + 5 + TAG])
def test_truncation_is_refused(long, cut):
    with pytest.raises(Refused):
        opened(long[1][:-cut], KEY, limit=len(long[0]))


def test_truncation_at_a_chunk_is_refused(long):
    parts = chunks(long[1])
    for count in range(len(parts)):
        with pytest.raises(Refused):
            opened(long[1][: HEADER.size] + b"".join(parts[:count]), KEY, limit=len(long[0]))


@pytest.mark.parametrize(
    "order",
    [(1, 0, 2, 3), (0, 2, 1, 3), (0, 0, 1, 2, 3), (0, 1, 1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2, 3, 3), (3,), ()],
    ids=str,
)
def test_chunks_in_another_order_are_refused(long, order):
    parts = chunks(long[1])
    with pytest.raises(Refused):
        opened(long[1][: HEADER.size] + b"".join(parts[number] for number in order), KEY, limit=9 * CHUNK)


@pytest.mark.parametrize("more", [b"x", b"x" * TAG, b"x" * (CHUNK + TAG)])
def test_bytes_behind_the_end_are_refused(long, more):
    with pytest.raises(Refused):
        opened(long[1] + more, KEY, limit=9 * CHUNK)


def test_chunks_of_another_blob_are_refused(long):
    other = fixed(content(3 * CHUNK + 6))
    mixed = [*chunks(long[1])[:1], *chunks(other)[1:2], *chunks(long[1])[2:]]
    with pytest.raises(Refused, match="chunk 1"):
        opened(long[1][: HEADER.size] + b"".join(mixed), KEY, limit=9 * CHUNK)


def test_every_flipped_bit_of_a_small_blob_is_refused():
    blob = fixed(b"sixteen bytes ok")
    for place in range(len(blob)):
        for bit in range(8):
            changed = bytearray(blob)
            changed[place] ^= 1 << bit
            with pytest.raises(Refused):
                opened(bytes(changed), KEY, limit=1000)


@pytest.mark.parametrize("place", [48, 48 + CHUNK, 48 + CHUNK + TAG - 1, 48 + 2 * (CHUNK + TAG), -1])
def test_a_flipped_bit_anywhere_in_a_long_blob_is_refused(long, place):
    changed = bytearray(long[1])
    changed[place] ^= 0x10
    with pytest.raises(Refused):
        opened(bytes(changed), KEY, limit=9 * CHUNK)


def test_another_key_is_refused():
    with pytest.raises(Refused, match="another key"):
        opened(fixed(b"data"), bytes(32), limit=10)


def test_more_than_is_allowed_is_refused_before_it_is_written(long):
    target = io.BytesIO()
    with pytest.raises(Refused, match=f"more than {CHUNK}"):
        decrypt(io.BytesIO(long[1]), target, KEY, limit=CHUNK)
    assert len(target.getvalue()) == CHUNK


def test_an_empty_last_chunk_after_others_is_refused():
    """A form that no encoder writes: one content has one length of blob."""
    data = content(CHUNK)
    digest = hashlib.sha256(data).digest()
    blob = bytearray(fixed(data)[: HEADER.size])
    cipher = AESGCM(stream.derived(KEY, b"haversack blob 1" + digest))
    blob += cipher.encrypt(PREFIX + b"\0\0\0\0\0", data, bytes(blob[:48]))
    blob += cipher.encrypt(PREFIX + b"\0\0\0\1\1", b"", bytes(blob[:48]))
    with pytest.raises(Refused, match="too short"):
        opened(bytes(blob), KEY, limit=9 * CHUNK)


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda blob: blob[:47], "ends after 47"),
        (lambda blob: b"", "ends after 0"),
        (lambda blob: b"HVDL" + blob[4:], "no encrypted blob"),
        (lambda blob: blob[:4] + b"\x02" + blob[5:], "version 2"),
        (lambda blob: blob[:5] + b"\x15" + blob[6:], "2\\^21"),
        (lambda blob: blob[:6] + b"\x01" + blob[7:], "reserved"),
        (lambda blob: blob[:15] + b"\x01" + blob[16:], "reserved"),
    ],
)
def test_another_header_is_refused(change, match):
    with pytest.raises(Refused, match=match):
        opened(change(fixed(b"data")), KEY, limit=10)


class Dribble(io.RawIOBase):
    """A source that gives fewer bytes than are asked for, as a pipe does."""

    def __init__(self, data: bytes) -> None:
        self.inner = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self.inner.read(min(size, 70_001))


def test_a_source_that_gives_pieces_changes_nothing(long):
    data, blob = long
    target = io.BytesIO()
    encrypt(Dribble(data), target, KEY, sha256(data), prefix=PREFIX)
    assert target.getvalue() == blob
    target = io.BytesIO()
    decrypt(Dribble(blob), target, KEY, limit=len(data))
    assert target.getvalue() == data


def test_memory_is_bounded():
    import tracemalloc

    class Zeros(io.RawIOBase):
        left = 64 * CHUNK

        def read(self, size: int = -1) -> bytes:
            taken = min(size, self.left)
            self.left -= taken
            return bytes(taken)

    class Nowhere(io.RawIOBase):
        def write(self, data) -> int:
            return len(data)

    tracemalloc.start()
    encrypt(Zeros(), Nowhere(), KEY, "0" * 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * CHUNK


@pytest.mark.parametrize("key", [b"", bytes(16), bytes(31), bytes(33)])
def test_a_key_of_another_length_is_a_mistake(key):
    with pytest.raises(ValueError, match="32"):
        sealed(b"", key, "0" * 64)
    with pytest.raises(ValueError, match="32"):
        opened(fixed(b""), key, limit=0)


def test_a_digest_or_prefix_of_another_form_is_a_mistake():
    with pytest.raises(ValueError, match="sha256"):
        sealed(b"", KEY, "0" * 63)
    with pytest.raises(ValueError, match="prefix"):
        encrypt(io.BytesIO(), io.BytesIO(), KEY, "0" * 64, prefix=b"short")
