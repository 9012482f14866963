"""The key of a release, wrapped for one device: HPKE (RFC 9180) with X25519, HKDF-SHA256 and AES-256-GCM.

A device has one key pair: a private file that never leaves it, and a public line of text that its owner gives to the
publisher. Anybody can wrap a key for a device. That it is the release's key shows its number, ``key_id``, which the
release states and which is signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from haversack.base import digest
from haversack.base.errors import Fault, Refused, UsageError
from haversack.tools.store import atomic
from haversack.tools.trust import private_file
from haversack.tools.trust.stream import KEY_BYTES, derived

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.hpke import Suite

MAGIC = b"HVWK\x01\x00\x00\x00"
"""Magic, version, three zeros."""
WRAPPED_BYTES = len(MAGIC) + 32 + KEY_BYTES + 16
LABEL = "haversack-device-1"
DEVICE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
MOST_DEVICES = 100_000
_PUBLIC_LIMIT = 1000


@dataclass(frozen=True)
class Device:
    """The public half of a device's key.

    Attributes:
        public: 32 bytes, a point of X25519.
        name: what its owner calls it; for people, and in no repository.
    """

    public: bytes
    name: str

    @property
    def id(self) -> str:
        """The first 32 digits of its sha256: the name of its file in a repository, which tells nobody whose it is."""
        return digest.of_bytes(self.public)[:32]

    def line(self) -> str:
        """Return the line that a ``.pub`` file has."""
        return f"{LABEL} {base64.b64encode(self.public).decode()} {self.name}\n"


def new_key() -> bytes:
    """Return a fresh key for a release, 32 bytes from the operating system."""
    return secrets.token_bytes(KEY_BYTES)


def key_id(key: bytes) -> str:
    """Return the number of a release's key, which commits to it: sha256 of what is derived from it for this.

    Raises:
        ValueError: the key has not 32 bytes.
    """
    return hashlib.sha256(derived(key, b"haversack key id 1")).hexdigest()


def path(number: str, device: Device) -> str:
    """Return where a wrapped key lies below the repository's root; ``number`` as ``key_id`` returns it."""
    return f"keys/{number}/{device.id}.hpke"


def wrap(key: bytes, device: Device, line: str, version: str) -> bytes:
    """Return a release's key for one device, 88 bytes, bound to the line, the version and the key's number.

    Raises:
        ValueError: the key has not 32 bytes.
        Refused: the device's public key is none.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    info = _info(line, version, key_id(key))
    try:
        return MAGIC + _suite().encrypt(key, X25519PublicKey.from_public_bytes(device.public), info)
    except ValueError as error:  # a point of small order
        raise Refused("its public key is none", where=device.name) from error


def unwrap(data: bytes, private: X25519PrivateKey, line: str, version: str, number: str) -> bytes:
    """Return the key of a release.

    Args:
        data: what ``wrap`` returned.
        private: the device's private key.
        line, version: of the release.
        number: ``key_id`` as the signed release states it.

    Raises:
        Refused: it is for another device, line, version or key, or was changed, or has another key in it.
    """
    from cryptography.exceptions import InvalidTag

    if len(data) != WRAPPED_BYTES or not data.startswith(MAGIC):
        raise Refused("it is no wrapped key of a version that is read here", where=number[:80])
    try:
        key = _suite().decrypt(data[len(MAGIC) :], private, _info(line, version, number))
    except (InvalidTag, ValueError) as error:
        raise Refused("it was not wrapped for this device and this release", where=number[:80]) from error
    if not hmac.compare_digest(key_id(key), number):
        raise Refused("another key than that of the release is in it", where=number[:80])
    return key


def create_device(private: Path, name: str) -> Device:
    """Make a device's key pair: ``private``, mode 0600, and beside it the same name with ``.pub``.

    Raises:
        UsageError: the name has other signs than small letters, digits and hyphens, or the file is there.
        EnvironmentFault: it cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    if not DEVICE_NAME.fullmatch(name):
        raise UsageError(f"{name[:80]!r} is no name of a device: small letters, digits and hyphens, 63 at most")
    key = X25519PrivateKey.generate()
    private_file.create(private, private_file.pem(key))
    device = public_half(key, name)
    atomic.write_text(private.with_name(private.name + ".pub"), device.line(), atomic.HOME)
    return device


def read_private(private: Path, passphrase: str = "") -> X25519PrivateKey:
    """Return a device's private key.

    Raises:
        Refused: others than its owner may read the file, or it is no such key.
        EnvironmentFault: it cannot be read.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key = private_file.read(private, passphrase)
    if not isinstance(key, X25519PrivateKey):
        raise Refused("it is no key of X25519", where=str(private))
    return key


def public_half(key: X25519PrivateKey | X25519PublicKey, name: str) -> Device:
    """Return the public half of a key."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    public = key.public_key() if isinstance(key, X25519PrivateKey) else key
    return Device(public.public_bytes_raw(), name)


def read_devices(folder: Path) -> tuple[Device, ...]:
    """Return the devices of all ``.pub`` files in a folder, in the order of their names.

    Raises:
        UsageError: there is none, or some are no public keys, or two are the same: all told at once.
        EnvironmentFault: the folder cannot be read.
    """
    found: dict[bytes, Device] = {}
    faults: list[Fault] = []
    with atomic.told(folder, "read the devices' public keys"):
        if not folder.is_dir():
            raise UsageError("there is no such folder of devices' public keys", where=str(folder))
        for place in sorted(folder.glob("*.pub")):
            try:
                with place.open("rb") as stream:
                    device = device_of(stream.read(_PUBLIC_LIMIT + 1))
            except ValueError as error:
                faults.append(Fault(str(place), str(error)))
                continue
            if device.public in found:
                faults.append(Fault(str(place), f"it is the key of {found[device.public].name} again"))
            found[device.public] = device
    if faults or not 0 < len(found) <= MOST_DEVICES:
        step = "put there the .pub files that haversack client enrol makes"
        raise UsageError("its .pub files give no devices", where=str(folder), faults=tuple(faults), next_step=step)
    return tuple(found.values())


def device_of(data: bytes) -> Device:
    """Return the device that a ``.pub`` file tells.

    Raises:
        ValueError: it is another line than ``Device.line`` gives.
    """
    try:
        label, encoded, name = data.decode("ascii").split()
        public = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ValueError("it is no line of a label, a key and a name") from error
    if label != LABEL or len(public) != 32 or not DEVICE_NAME.fullmatch(name):
        raise ValueError(f"it is no line of the form {LABEL} KEY NAME")
    return Device(public, name)


def _suite() -> Suite:
    from cryptography.hazmat.primitives import hpke

    return hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def _info(line: str, version: str, number: str) -> bytes:
    return f"haversack release key 1\n{line}\n{version}\n{number}\n".encode()
