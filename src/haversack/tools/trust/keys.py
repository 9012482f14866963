"""A folder of the publisher's private keys, one PEM file a role, Ed25519.

``root-1``, ``root-2`` and ``root-3`` sign root metadata, any two of them; they may be moved to other places, and are
needed only to rotate. ``targets``, ``snapshot`` and ``timestamp`` sign the metadata of their names, a line's key that
of the line. ``publisher`` is no role but a key of X25519 that the keys of encrypted releases are wrapped for as well,
so that the publisher can make deltas and enrol devices later. A rotated key is in ``ROLE.2.pem``, and so on; which of
them counts, the repository's metadata says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from haversack.base.bundle import LINE
from haversack.base.errors import Fault, HaversackError, Refused, UsageError
from haversack.tools.store import atomic
from haversack.tools.trust import private_file
from haversack.tools.trust.wrap import Device, public_half

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from securesystemslib.signer import CryptoSigner

ROOTS = ("root-1", "root-2", "root-3")
TOP = ("targets", "snapshot", "timestamp")
PUBLISHER = "publisher"
RESERVED = frozenset({"root", *ROOTS, *TOP, PUBLISHER})
"""What no model line may be called."""
FIRST_ROOT = "1.root.json"
"""What a device is given at its first contact; lies beside the keys."""
REVOKED = ".revoked"
MOST_FILES = 10_000
_FILE = re.compile(r"(?P<role>[a-z0-9][a-z0-9-]{0,62})(\.(?P<number>[1-9][0-9]{0,3}))?\.pem")


@dataclass(frozen=True)
class RoleKey:
    """One private key.

    Attributes:
        role: what it was made for.
        path: its file.
        signer: signs with it; its ``public_key.keyid`` is the key's number in metadata.
    """

    role: str
    path: Path
    signer: CryptoSigner

    @property
    def id(self) -> str:
        """Its number in metadata."""
        return str(self.signer.public_key.keyid)


@dataclass(frozen=True)
class Keys:
    """The keys of a folder.

    Attributes:
        folder: where they lie.
        roles: by their numbers.
        publisher: opens the keys of encrypted releases; None where the folder has none.
    """

    folder: Path
    roles: Mapping[str, RoleKey]
    publisher: X25519PrivateKey | None

    @property
    def device(self) -> Device | None:
        """The publisher's key, as a device to wrap for."""
        return public_half(self.publisher, PUBLISHER) if self.publisher is not None else None

    def signers(self, numbers: Iterable[str]) -> tuple[CryptoSigner, ...]:
        """Return those that are here of some keys."""
        return tuple(self.roles[number].signer for number in numbers if number in self.roles)

    def of(self, role: str) -> tuple[RoleKey, ...]:
        """Return all keys that were made for a role, the oldest first."""
        return tuple(sorted((key for key in self.roles.values() if key.role == role), key=lambda key: _age(key.path)))

    def with_new(self, role: str, least: int = 1) -> tuple[Keys, RoleKey]:
        """Make another key for a role; return the folder with it, and the key.

        Args:
            role: which.
            least: the number in the file's name at least: an older key may lie elsewhere, and come back.

        Raises:
            UsageError: the role cannot have a key.
            EnvironmentFault: it cannot be written.
        """
        check_role(role)
        number = max([least, *(1 + _age(path) for path in _files(self.folder, role))])
        name = f"{role}.pem" if number == 1 else f"{role}.{number}.pem"
        key = _create(self.folder / name, role)
        return Keys(self.folder, {**self.roles, key.id: key}, self.publisher), key

    def without(self, numbers: Iterable[str]) -> Keys:
        """Set keys aside for good: their files get the ending ``.revoked``, and nothing reads them again.

        Raises:
            EnvironmentFault: a file cannot be renamed.
        """
        left = dict(self.roles)
        for number in numbers:
            if key := left.pop(number, None):
                with atomic.told(key.path, "set the revoked key aside"):
                    key.path.rename(key.path.with_name(key.path.name + REVOKED))
        return Keys(self.folder, left, self.publisher)


def create(folder: Path) -> Keys:
    """Make a folder with a key for every role but lines; encrypted where HAVERSACK_KEYS_PASSPHRASE is set.

    Raises:
        UsageError: there are keys in it already.
        EnvironmentFault: it cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    atomic.make_folder(folder)
    if any(folder.iterdir()):
        raise UsageError("it is not empty, and a key is never written over", where=str(folder))
    with atomic.told(folder, "make the folder of keys", "choose another folder"):
        folder.chmod(0o700)
    made = [_create(folder / f"{role}.pem", role) for role in (*ROOTS, *TOP)]
    publisher = X25519PrivateKey.generate()
    private_file.create(folder / f"{PUBLISHER}.pem", private_file.pem(publisher, passphrase()))
    return Keys(folder, {key.id: key for key in made}, publisher)


def read(folder: Path) -> Keys:
    """Return the keys of a folder.

    Raises:
        UsageError: there is no such folder, no key in it, or the passphrase opens none.
        Refused: others than their owner may read some keys, or files are no keys: all told at once.
        EnvironmentFault: it cannot be read.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    if not folder.is_dir():
        step = f"haversack keys init {folder}"
        raise UsageError("there is no such folder of keys", where=str(folder), next_step=step)
    roles: dict[str, RoleKey] = {}
    publisher: X25519PrivateKey | None = None
    errors: list[HaversackError] = []
    for path in _files(folder):
        role = path.name.partition(".")[0]
        try:
            key = private_file.read(path, passphrase())
            if role == PUBLISHER and isinstance(key, X25519PrivateKey):
                publisher = key
            elif role != PUBLISHER and isinstance(key, Ed25519PrivateKey):
                found = RoleKey(role, path, _signer(key))
                roles[found.id] = found
            else:
                raise Refused("it is a key of another kind than its role has", where=str(path))
        except (Refused, UsageError) as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        kind = Refused if any(isinstance(error, Refused) for error in errors) else UsageError
        faults = tuple(Fault(error.where, error.cause) for error in errors)
        steps = " ; ".join(dict.fromkeys(error.next_step for error in errors if error.next_step))
        raise kind("its keys cannot be used", where=str(folder), faults=faults, next_step=steps)
    if not roles:
        raise UsageError("no key is in it", where=str(folder), next_step=f"haversack keys init {folder}")
    return Keys(folder, roles, publisher)


def holds(folder: Path) -> bool:
    """Say whether a folder has keys, without opening any."""
    return folder.is_dir() and os.access(folder, os.R_OK) and bool(_files(folder))


def check_role(role: str) -> None:
    """Say whether a name is that of a role with a key: one of the six at the top, or that of a line.

    Raises:
        UsageError: it is none.
    """
    if role not in (*ROOTS, *TOP) and (role in RESERVED or not LINE.fullmatch(role)):
        known = ", ".join((*ROOTS, *TOP))
        raise UsageError(f"{role[:80]!r} is no role: {known}, or the name of a model line")


def passphrase() -> str:
    """Return the passphrase of private keys, from the environment; empty where there is none."""
    return os.environ.get(private_file.PASSPHRASE, "")


def _create(path: Path, role: str) -> RoleKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private_file.create(path, private_file.pem(key, passphrase()))
    return RoleKey(role, path, _signer(key))


def _signer(key: object) -> CryptoSigner:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from securesystemslib.signer import CryptoSigner

    assert isinstance(key, Ed25519PrivateKey)
    return CryptoSigner(key)


def _files(folder: Path, role: str = "") -> list[Path]:
    """Return the key files of a folder, or those of one role, revoked ones among them."""
    with atomic.told(folder, "read the folder of keys"):
        names = sorted(path.name for path in folder.iterdir())[:MOST_FILES]
    found = [name for name in names if _FILE.fullmatch(name.removesuffix(REVOKED) if role else name)]
    return [folder / name for name in found if role in ("", name.partition(".")[0])]


def _age(path: Path) -> int:
    match = _FILE.fullmatch(path.name.removesuffix(REVOKED))
    return int(match["number"] or 1) if match else 0
