"""Encrypted blobs: AES-256-GCM over chunks of 1 MiB, in the STREAM construction.

STREAM (V. T. Hoang, R. Reyhanitabar, P. Rogaway, D. Vizár: Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance, CRYPTO 2015) makes one authenticated whole of chunks that are each read by themselves: the nonce of a
chunk is a prefix of 7 bytes, the chunk's number in 4 and whether it is the last in 1. What is cut off, swapped, doubled
or left out has no chunk with the right nonce. docs/spec/repository.md has the bytes, and vectors.
"""

from __future__ import annotations

import io
import secrets
import struct
from typing import BinaryIO

from haversack.base.bundle import SHA256
from haversack.base.errors import Refused, UsageError

MAGIC = b"HVST"
VERSION = 1
HEADER = struct.Struct("<4sBBH7sB32s")
"""Magic, version, log2 of a chunk, 0, prefix of the nonces, 0, sha256 of the plain blob: 48 bytes."""
LOG2_CHUNK = 20
CHUNK = 1 << LOG2_CHUNK
TAG = 16
KEY_BYTES = 32
PREFIX_BYTES = 7
MOST_CHUNKS = 1 << 32
_INFO = b"haversack blob 1"


def encrypt(source: BinaryIO, target: BinaryIO, key: bytes, sha256: str, *, prefix: bytes = b"") -> None:
    """Write the encrypted form of a plain blob, one chunk at a time.

    Args:
        source: the plain blob, from where it stands to its end.
        target: where the header and the chunks go.
        key: of the release, 32 bytes.
        sha256: of the plain blob. The blob's own key is derived from it.
        prefix: of the nonces, 7 bytes; drawn anew where none is given, as it should be but in tests.

    Raises:
        ValueError: the key, the digest or the prefix has another form.
        UsageError: there are more than 2^32 chunks.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    prefix = prefix or secrets.token_bytes(PREFIX_BYTES)
    if not SHA256.fullmatch(sha256) or len(prefix) != PREFIX_BYTES:
        raise ValueError("no sha256 of a blob, or no prefix of 7 bytes")
    digest = bytes.fromhex(sha256)
    header = HEADER.pack(MAGIC, VERSION, LOG2_CHUNK, 0, prefix, 0, digest)
    cipher = AESGCM(_blob_key(key, digest))
    target.write(header)
    chunk, number, last = _read(source, CHUNK), 0, False
    buffer = memoryview(bytearray(CHUNK + TAG))  # one for all: fresh memory for each chunk costs as much as the cipher
    while not last:
        if number == MOST_CHUNKS:
            raise UsageError("a blob of more than 2^32 MiB cannot be encrypted")
        following = _read(source, CHUNK) if len(chunk) == CHUNK else b""
        last = not following
        place = buffer[: len(chunk) + TAG]
        cipher.encrypt_into(_nonce(prefix, number, last=last), chunk, header, place)
        target.write(place)
        chunk, number = following, number + 1


def decrypt(source: BinaryIO, target: BinaryIO, key: bytes, *, limit: int) -> None:
    """Write the plain blob of an encrypted one, one chunk at a time; every chunk that is written is authentic.

    That the end is the true one is known when this returns, and not before: what was written until a ``Refused`` must
    be thrown away.

    Args:
        source: the encrypted blob, from where it stands to its end.
        target: where the plain bytes go.
        key: of the release, 32 bytes.
        limit: the most plain bytes that are written.

    Raises:
        Refused: another key or format, any byte changed, cut off, swapped, doubled or left out, or more than ``limit``.
        ValueError: the key has not 32 bytes.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    header, prefix, digest = _header(source)
    cipher = AESGCM(_blob_key(key, digest))
    sealed, number, written, last = _read(source, CHUNK + TAG), 0, 0, False
    buffer = memoryview(bytearray(CHUNK))
    while not last:
        following = _read(source, CHUNK + TAG) if len(sealed) == CHUNK + TAG else b""
        last = not following
        if len(sealed) < TAG + (number > 0) or number == MOST_CHUNKS:
            raise Refused("a chunk is too short, or there are too many", where=f"chunk {number}")
        written += len(sealed) - TAG
        if written > limit:
            raise Refused(f"it has more than {limit} bytes, which are allowed", where=f"chunk {number}")
        try:
            place = buffer[: len(sealed) - TAG]
            cipher.decrypt_into(_nonce(prefix, number, last=last), sealed, header, place)
        except InvalidTag as error:
            raise Refused("it was changed, or is of another key", where=f"chunk {number}") from error
        target.write(place)
        sealed, number = following, number + 1


def sealed(plain: bytes, key: bytes, sha256: str) -> bytes:
    """Return the encrypted form of a plain blob's bytes; see ``encrypt``.

    Raises:
        ValueError: the key or the digest has another form.
    """
    target = io.BytesIO()
    encrypt(io.BytesIO(plain), target, key, sha256)
    return target.getvalue()


def opened(data: bytes, key: bytes, *, limit: int) -> bytes:
    """Return the plain bytes of an encrypted blob; see ``decrypt``.

    Raises:
        Refused: as ``decrypt``.
        ValueError: the key has not 32 bytes.
    """
    target = io.BytesIO()
    decrypt(io.BytesIO(data), target, key, limit=limit)
    return target.getvalue()


def sealed_bytes(plain: int) -> int:
    """Return how many bytes the encrypted form of so many has."""
    return HEADER.size + plain + TAG * max(1, -(-plain // CHUNK))


def derived(key: bytes, info: bytes, length: int = KEY_BYTES) -> bytes:
    """Return what HKDF-SHA256 (RFC 5869) without salt derives from a release's key for one purpose.

    Args:
        key: of the release, 32 bytes.
        info: the purpose.
        length: bytes of the result.

    Raises:
        ValueError: the key has not 32 bytes.
    """
    from cryptography.hazmat.primitives.hashes import SHA256 as HASH
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    if len(key) != KEY_BYTES:
        raise ValueError(f"a key of {len(key)} bytes, where {KEY_BYTES} belong")
    return HKDF(algorithm=HASH(), length=length, salt=None, info=info).derive(key)


def _blob_key(key: bytes, digest: bytes) -> bytes:
    return derived(key, _INFO + digest)


def _nonce(prefix: bytes, number: int, *, last: bool) -> bytes:
    return prefix + number.to_bytes(4, "big") + bytes([last])


def _header(source: BinaryIO) -> tuple[bytes, bytes, bytes]:
    """Return the header's bytes, the prefix and the digest in it."""
    data = _read(source, HEADER.size)
    if len(data) != HEADER.size:
        raise Refused(f"a header of {HEADER.size} bytes ends after {len(data)}", where="byte 0 (header)")
    magic, version, log2, zero, prefix, none, digest = HEADER.unpack(data)
    if magic != MAGIC:
        raise Refused("no encrypted blob begins like this", where="byte 0 (magic)")
    if version != VERSION:
        raise Refused(f"version {version} is unknown here, which reads {VERSION}", where="byte 4 (version)")
    if log2 != LOG2_CHUNK or zero or none:
        raise Refused(f"chunks of 2^{log2} bytes and reserved {zero}, {none} are unknown", where="byte 5 (chunks)")
    return data, prefix, digest


def _read(source: BinaryIO, size: int) -> bytes:
    """Return so many bytes, fewer only at the end: a source may give them in pieces."""
    data = source.read(size)
    while 0 < len(data) < size and (more := source.read(size - len(data))):
        data += more
    return data
