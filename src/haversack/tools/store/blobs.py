"""Files named by the sha256 of their content: put twice they are stored once, and a changed byte shows."""

from __future__ import annotations

import hashlib
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from haversack.base import digest
from haversack.base.errors import EnvironmentFault, Refused
from haversack.tools.store import atomic

DEFAULT_LIMIT = 64 << 30
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Blobs:
    """A folder of blobs, ``ab/cdef…`` under ``folder``; several processes may use it at once.

    Attributes:
        folder: created with the first blob.
        limit_bytes: the largest blob that is taken.
    """

    folder: Path
    limit_bytes: int = DEFAULT_LIMIT

    def path(self, sha256: str) -> Path:
        """Return where a blob is or would be.

        Raises:
            ValueError: ``sha256`` is not 64 lower-case hexadecimal digits.
        """
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"not a sha256: {sha256!r:.80}")
        return self.folder / sha256[:2] / sha256[2:]

    def has(self, sha256: str) -> bool:
        """Say whether a blob of this name is there (see ``verify`` for its content)."""
        return self.path(sha256).is_file()

    def put(self, content: bytes | Path) -> str:
        """Store bytes, or a copy of a file, and return the sha256; read and hashed one MiB at a time.

        Raises:
            EnvironmentFault: it cannot be read or written; nothing is stored.
            Refused: it is over ``limit_bytes``; nothing is stored.
        """
        atomic.make_folder(self.folder)
        if isinstance(content, bytes):
            return self._take(io.BytesIO(content), "bytes")
        with atomic.told(content, "read the file"):
            stream = content.open("rb")
        with stream:
            return self._take(stream, str(content))

    def get(self, sha256: str) -> bytes:
        """Return a blob's bytes, verified.

        Raises:
            EnvironmentFault: it is missing, unreadable or not what its name says.
        """
        with atomic.told(self.path(sha256), "read the blob"):
            data = self.path(sha256).read_bytes()
        if digest.of_bytes(data) != sha256:
            raise _damaged(self.path(sha256))
        return data

    def verify(self, sha256: str) -> None:
        """Check that a blob is there and is what its name says.

        Raises:
            EnvironmentFault: it is missing, unreadable or changed.
        """
        path = self.path(sha256)
        with atomic.told(path, "read the blob"):
            found = digest.of_file(path)
        if found != sha256:
            raise _damaged(path)

    def remove_leftovers(self) -> int:
        """Remove what killed writers left behind; return how many files.

        Raises:
            EnvironmentFault: the folder cannot be read or written.
        """
        if not self.folder.is_dir():
            return 0
        with atomic.told(self.folder, "remove unfinished files"):
            return atomic.remove_leftovers(self.folder)

    def _take(self, source: BinaryIO, name: str) -> str:
        temporary = self.folder / atomic.temporary_name("blob")
        with atomic.told(self.folder, f"store {name}"):
            try:
                with temporary.open("xb") as stream:
                    sha256 = self._copy(source, stream, name)
                    stream.flush()
                    os.fsync(stream.fileno())
                target = self.path(sha256)
                target.parent.mkdir(exist_ok=True)
                temporary.replace(target)  # also over a damaged blob: putting it again repairs it
                atomic.sync_folder(target.parent)
            finally:
                temporary.unlink(missing_ok=True)
        return sha256

    def _copy(self, source: BinaryIO, stream: BinaryIO, name: str) -> str:
        state, size = hashlib.sha256(), 0
        while chunk := source.read(digest.CHUNK_BYTES):
            size += len(chunk)
            if size > self.limit_bytes:
                raise Refused(f"it is over the limit of {self.limit_bytes} bytes for one blob", where=name)
            state.update(chunk)
            stream.write(chunk)
        return state.hexdigest()


def _damaged(path: Path) -> EnvironmentFault:
    return EnvironmentFault(
        "the stored file is not what its name says",
        where=str(path),
        next_step=f"rm {path}    (then repeat the same command: it is made again)",
    )
