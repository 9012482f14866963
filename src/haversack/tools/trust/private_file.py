"""Private keys in files: PEM (PKCS 8), readable by their owner alone, with a passphrase if one is given."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from haversack.base.errors import Refused, UsageError
from haversack.tools.store import atomic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

PASSPHRASE = "HAVERSACK_KEYS_PASSPHRASE"  # noqa: S105 - the name of a variable
"""The environment variable with the passphrase of private keys."""
MODE = 0o600
LIMIT = 10_000
"""Bytes of a key file that are read at all."""


def pem(key: Ed25519PrivateKey | X25519PrivateKey, passphrase: str = "") -> bytes:
    """Return a private key as PEM, encrypted where a passphrase is given."""
    from cryptography.hazmat.primitives import serialization

    kind = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, kind)


def create(path: Path, data: bytes) -> None:
    """Write a new file that only its owner may read.

    Raises:
        UsageError: it is there already: a key is never written over.
        EnvironmentFault: it cannot be written.
    """
    atomic.make_folder(path.parent)
    with atomic.told(path, "write the private key", "choose another folder"):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        except FileExistsError as error:
            raise UsageError("it is there already, and a key is never written over", where=str(path)) from error
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        atomic.sync_folder(path.parent)


def read(path: Path, passphrase: str = "") -> object:
    """Return a private key.

    Raises:
        Refused: it is a link or no file, others than its owner may read it, or it is no PEM of a private key.
        UsageError: the passphrase is missing or wrong.
        EnvironmentFault: it cannot be read.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _content(path)
    try:
        return load_pem_private_key(data, None)
    except TypeError:  # it is encrypted
        if not passphrase:
            step = f"export {PASSPHRASE}=…"
            raise UsageError("it is encrypted, and no passphrase is given", where=str(path), next_step=step) from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Refused("it is no private key in PEM", where=str(path)) from error
    try:
        return load_pem_private_key(data, passphrase.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"the passphrase in {PASSPHRASE} does not open it", where=str(path)) from error


def _content(path: Path) -> bytes:
    with atomic.told(path, "read the private key"):
        if path.is_symlink():
            raise Refused("a private key is a file, and this is a link", where=str(path))
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise Refused("a private key is a file, and this is none", where=str(path))
            if state.st_mode & 0o077:
                cause = f"others than its owner may use it (mode {state.st_mode & 0o777:03o})"
                raise Refused(cause, where=str(path), next_step=f"chmod 600 {path}")
            data = stream.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise Refused(f"a private key has at most {LIMIT} bytes", where=str(path))
    return data
