"""The vectors that docs/spec/repository.md prints are what this code reads and writes."""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from haversack.tools.trust import stream, wrap

PAGE = Path(__file__).parents[3] / "docs" / "spec" / "repository.md"


@pytest.fixture(scope="module")
def vectors() -> dict:
    return json.loads(re.search(r"```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1])


def test_blobs(vectors):
    key = bytes.fromhex(vectors["release_key"])
    assert [vector["plain"] for vector in vectors["blobs"]] == ["", "haversack"]
    for vector in vectors["blobs"]:
        plain, blob = vector["plain"].encode(), bytes.fromhex(vector["blob"])
        assert stream.opened(blob, key, limit=len(plain)) == plain
        target = io.BytesIO()
        digest = hashlib.sha256(plain).hexdigest()
        stream.encrypt(io.BytesIO(plain), target, key, digest, prefix=bytes.fromhex(vector["prefix"]))
        assert target.getvalue() == blob


def test_a_wrapped_key(vectors):
    key = bytes.fromhex(vectors["release_key"])
    private = X25519PrivateKey.from_private_bytes(bytes.fromhex(vectors["device"]["private"]))
    device = wrap.device_of(vectors["device"]["line"].encode())
    assert device == wrap.public_half(private, "board")
    assert device.id == vectors["device"]["id"]
    assert wrap.key_id(key) == vectors["key_id"]
    wrapped = vectors["wrapped"]
    data = bytes.fromhex(wrapped["bytes"])
    assert wrap.unwrap(data, private, wrapped["line"], wrapped["version"], vectors["key_id"]) == key
    assert len(data) == len(wrap.wrap(key, device, wrapped["line"], wrapped["version"]))
