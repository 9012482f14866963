"""The key of a release, wrapped: only its device opens it, only for its release, only as the key that was signed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from haversack.base.errors import Refused, UsageError
from haversack.tools.trust import private_file, wrap
from haversack.tools.trust.wrap import Device

KEY = bytes(range(32))


@pytest.fixture
def private() -> X25519PrivateKey:
    return X25519PrivateKey.generate()


def wrapped(private: X25519PrivateKey, key: bytes = KEY) -> bytes:
    return wrap.wrap(key, wrap.public_half(private, "board"), "digits", "1.0.0")


def unwrapped(data: bytes, private: X25519PrivateKey, **other: str) -> bytes:
    asked = {"line": "digits", "version": "1.0.0", "number": wrap.key_id(KEY)} | other
    return wrap.unwrap(data, private, asked["line"], asked["version"], asked["number"])


def test_a_device_gets_its_key(private):
    data = wrapped(private)
    assert len(data) == wrap.WRAPPED_BYTES == 88
    assert unwrapped(data, private) == KEY


def test_another_device_does_not(private):
    with pytest.raises(Refused, match="not wrapped for this device"):
        unwrapped(wrapped(private), X25519PrivateKey.generate())


@pytest.mark.parametrize("other", [{"line": "words"}, {"version": "1.0.1"}, {"number": "0" * 64}], ids=str)
def test_it_is_bound_to_its_release(private, other):
    with pytest.raises(Refused, match="not wrapped for this device and this release"):
        unwrapped(wrapped(private), private, **other)


def test_a_key_that_somebody_else_wrapped_is_refused(private):
    """Anybody can wrap for a device: the number, which is signed, says which key it must be."""
    info = f"haversack release key 1\ndigits\n1.0.0\n{wrap.key_id(KEY)}\n".encode()
    data = wrap.MAGIC + wrap._suite().encrypt(bytes(32), private.public_key(), info)
    with pytest.raises(Refused, match="another key"):
        unwrapped(data, private)


def test_every_flipped_bit_is_refused(private):
    data = wrapped(private)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        with pytest.raises(Refused):
            unwrapped(bytes(changed), private)


@pytest.mark.parametrize("size", [0, 1, 87, 89, 1000])
def test_another_length_is_refused(private, size):
    with pytest.raises(Refused, match="no wrapped key"):
        unwrapped((wrapped(private) * 12)[:size], private)


def test_it_is_hpke_as_rfc_9180_says(private):
    """Open it by the RFC's own steps, with X25519, HMAC and AES-GCM alone: section 4.1, 5.1 and 5.2."""

    def extract(salt: bytes, suite: bytes, label: bytes, value: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + value, "sha256")

    def expand(secret: bytes, suite: bytes, label: bytes, info: bytes, length: int) -> bytes:
        labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
        return hmac.digest(secret, labelled + b"\x01", "sha256")[:length]

    data = wrapped(private)
    sender, sealed = data[8:40], data[40:]
    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x02"
    shared = private.exchange(X25519PublicKey.from_public_bytes(sender))
    context = sender + private.public_key().public_bytes_raw()
    secret = expand(extract(b"", kem, b"eae_prk", shared), kem, b"shared_secret", context, 32)
    info = f"haversack release key 1\ndigits\n1.0.0\n{wrap.key_id(KEY)}\n".encode()
    schedule = b"\0" + extract(b"", suite, b"psk_id_hash", b"") + extract(b"", suite, b"info_hash", info)
    root = extract(secret, suite, b"secret", b"")
    key = expand(root, suite, b"key", schedule, 32)
    nonce = expand(root, suite, b"base_nonce", schedule, 12)
    assert AESGCM(key).decrypt(nonce, sealed, b"") == KEY


def test_the_number_of_a_key_commits_to_it():
    pseudorandom = hmac.digest(bytes(32), KEY, "sha256")
    derived = hmac.digest(pseudorandom, b"haversack key id 1\x01", "sha256")
    assert wrap.key_id(KEY) == hashlib.sha256(derived).hexdigest()
    assert wrap.key_id(bytes(32)) != wrap.key_id(KEY)


def test_new_keys_differ():
    assert len({wrap.new_key() for _ in range(50)}) == 50


def test_a_public_key_of_small_order_is_refused():
    with pytest.raises(Refused, match="none"):
        wrap.wrap(KEY, Device(bytes(32), "zero"), "digits", "1.0.0")


def test_a_device_in_files(tmp_path):
    path = tmp_path / "home" / "device.key"
    device = wrap.create_device(path, "board-1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert wrap.public_half(wrap.read_private(path), "board-1") == device
    assert (tmp_path / "home" / "device.key.pub").read_text() == device.line()
    assert wrap.device_of(device.line().encode()) == device
    data = wrap.wrap(KEY, device, "digits", "1.0.0")
    assert unwrapped(data, wrap.read_private(path)) == KEY


def test_a_device_key_is_never_written_over(tmp_path):
    wrap.create_device(tmp_path / "device.key", "board")
    before = (tmp_path / "device.key").read_bytes()
    with pytest.raises(UsageError, match="there already"):
        wrap.create_device(tmp_path / "device.key", "board")
    assert (tmp_path / "device.key").read_bytes() == before


@pytest.mark.parametrize("name", ["", "Board", "a b", "../x", "-x", "x" * 64, "ä"])
def test_a_name_is_plain(tmp_path, name):
    with pytest.raises(UsageError, match="no name of a device"):
        wrap.create_device(tmp_path / "device.key", name)
    assert list(tmp_path.iterdir()) == []


def test_a_key_of_another_kind_is_no_device(tmp_path):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private_file.create(tmp_path / "device.key", private_file.pem(Ed25519PrivateKey.generate()))
    with pytest.raises(Refused, match="X25519"):
        wrap.read_private(tmp_path / "device.key")


def test_devices_of_a_folder(tmp_path):
    made = [wrap.create_device(tmp_path / name / "device.key", name) for name in ("b", "a")]
    folder = tmp_path / "devices"
    folder.mkdir()
    for device in made:
        (folder / f"{device.name}.pub").write_text(device.line())
    (folder / "readme.txt").write_text("not a key")
    assert [device.name for device in wrap.read_devices(folder)] == ["a", "b"]
    assert len({device.id for device in made}) == 2


def test_all_faults_of_a_folder_are_told_together(tmp_path):
    good = wrap.create_device(tmp_path / "x" / "device.key", "good").line()
    texts = {"a.pub": "nothing", "b.pub": good.replace("device-1", "device-2"), "c.pub": good, "d.pub": good}
    texts |= {"e.pub": f"{wrap.LABEL} {base64.b64encode(b'short').decode()} x\n", "f.pub": "ä" * 9}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as caught:
        wrap.read_devices(tmp_path)
    assert [fault.where.rpartition("/")[2] for fault in caught.value.faults] == [
        "a.pub",
        "b.pub",
        "d.pub",
        "e.pub",
        "f.pub",
    ]


@pytest.mark.parametrize("make", [False, True])
def test_no_devices_are_told(tmp_path, make):
    folder = tmp_path / "devices"
    if make:
        folder.mkdir()
    with pytest.raises(UsageError, match="devices"):
        wrap.read_devices(folder)
