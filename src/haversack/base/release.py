"""A release: what a repository signs of a bundle, and the blobs in which it travels (docs/spec/repository.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from haversack.base.bundle import LARGEST, LINE, MANIFEST, MOST_FILES, NAME, SHA256, VERSION

FORMAT = 1
LARGEST_RELEASE = 1 << 22
"""Bytes of a release file that is read at all."""
MOST_DELTAS = 8
_LARGEST_BLOB = 2 * LARGEST
"""Bytes: an encrypted file is larger than the file."""
HIGHEST = (1 << 53) - 1
"""Sequence that is counted to: larger numbers are not the same in every reader of JSON."""
Form = Literal["plain", "download", "hvd1", "bsdiff"]
"""How a blob holds a file: as it is, in the download form (docs/spec/download.md), or as a delta from another file."""
DELTAS = frozenset({"hvd1", "bsdiff"})


@dataclass(frozen=True)
class Blob:
    """Bytes that lie in a repository under their digest.

    Attributes:
        sha256: of what is stored and travels: of the cipher text where the release is encrypted.
        bytes: likewise.
        form: what it is, once decrypted.
        base: for a delta the sha256 of the file that it begins from, else empty.
    """

    sha256: str
    bytes: int
    form: Form
    base: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no blob.

        Raises:
            ValueError: no digest, no size, or a base where there should be none, or none where there should be one.
        """
        if not SHA256.fullmatch(self.sha256) or not 0 <= self.bytes <= _LARGEST_BLOB:
            raise ValueError("a blob without size and sha256")
        if (self.form in DELTAS) != bool(SHA256.fullmatch(self.base)) or (self.base and self.form not in DELTAS):
            raise ValueError(f"a blob of form {self.form} with the base {self.base[:80]!r}")

    @property
    def path(self) -> str:
        """Where it lies below the repository's root."""
        return f"blobs/{self.sha256[:2]}/{self.sha256[2:]}"


@dataclass(frozen=True)
class ReleaseFile:
    """One file of a bundle, its manifest among them, and the blobs that bring it.

    Attributes:
        name, role, bytes, sha256, target: as in the bundle's manifest; the manifest's role is ``manifest``.
        blobs: the whole file first, then deltas.
    """

    name: str
    role: str
    bytes: int
    sha256: str
    blobs: tuple[Blob, ...]
    target: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be fetched.

        Raises:
            ValueError: no name, size or digest, or its first blob is a delta, or there are too many.
        """
        if not NAME.fullmatch(self.name) or not 0 <= self.bytes <= LARGEST or not SHA256.fullmatch(self.sha256):
            raise ValueError(f"{self.name[:80]!r} is no file with size and sha256")
        forms = [blob.form in DELTAS for blob in self.blobs]
        if not forms or forms[0] or not all(forms[1:]) or len(forms) > 1 + MOST_DELTAS:
            raise ValueError(f"{self.name}: its blobs are not the whole file and then deltas")


@dataclass(frozen=True)
class Encryption:
    """How the blobs of a release are encrypted: AES-256-GCM in a STREAM of 1 MiB, with one key a release.

    Attributes:
        scheme: ``aes-256-gcm-stream``.
        key_id: sha256 of the key's public commitment; names the folder of its wrapped copies, ``keys/KEY_ID``.
    """

    scheme: Literal["aes-256-gcm-stream"]
    key_id: str


@dataclass(frozen=True)
class Release:
    """The one signed file of a release.

    Attributes:
        format: 1.
        line: the model line, as the delegated role is called.
        version: of the bundle.
        sequence: counts the releases of a line from 1; a device never goes below the highest that it has seen.
        files: ordered by name; the manifest is one of them.
        encryption: None where blobs are plain.
    """

    format: int
    line: str
    version: str
    sequence: int
    files: tuple[ReleaseFile, ...]
    encryption: Encryption | None = None

    def __post_init__(self) -> None:
        """Refuse what is no release.

        Raises:
            ValueError: no line, version or sequence, files out of order or not unique, too many, or no manifest.
        """
        names = [file.name for file in self.files]
        if not LINE.fullmatch(self.line) or not VERSION.fullmatch(self.version) or not 1 <= self.sequence <= HIGHEST:
            raise ValueError(f"{self.line[:80]!r} {self.version[:80]!r} ({self.sequence}) names no release")
        if names != sorted(set(names)) or len(names) > MOST_FILES + 1 or MANIFEST not in names:
            raise ValueError("its files are not ordered by name, each once, with a manifest among them")

    def of(self, target: str) -> tuple[ReleaseFile, ...]:
        """Return what a device with this runtime fetches."""
        return tuple(file for file in self.files if file.target in ("", target) and file.role != "encodings")
