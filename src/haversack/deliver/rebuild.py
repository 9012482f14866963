"""What was fetched becomes the file it stands for: decrypted, then unpacked, or applied to what it is a delta from.

Whatever a blob says of itself, no more bytes are made than the release's file has, and the result must have its sha256.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from haversack.base.errors import EnvironmentFault, Refused
from haversack.base.release import DELTAS, Blob, ReleaseFile
from haversack.deliver.store import Store
from haversack.tools.store import atomic

OPENED = ".opened"


@dataclass(frozen=True)
class Rebuilder:
    """Turns blobs into files of a store.

    Attributes:
        store: where files are, and where they go.
        key: of the release, 32 bytes; None where its blobs are plain.
    """

    store: Store
    key: bytes | None = None

    def rebuild(self, blob: Blob, fetched: Path, file: ReleaseFile) -> None:
        """Put a file into the store; what was fetched is gone then.

        Args:
            blob: what was fetched.
            fetched: its bytes, of the right sha256 and on the disk.
            file: what it is to become.

        Raises:
            Refused: it is no such blob, or the result is not the file.
            EnvironmentFault: a file cannot be read or written.
        """
        plain = fetched if self.key is None else fetched.with_suffix(OPENED)
        try:
            if self.key is not None:
                _decrypt(fetched, plain, self.key, blob.bytes)
            elif blob.form == "plain" and blob.sha256 == file.sha256:
                self.store.adopt(fetched, file.sha256)
                return
            with self.store.adding(file.sha256) as target:
                self._make(blob, plain, file, target)
            fetched.unlink(missing_ok=True)
        finally:
            if plain is not fetched:
                plain.unlink(missing_ok=True)

    def _make(self, blob: Blob, plain: Path, file: ReleaseFile, target: BinaryIO) -> None:
        if blob.form in DELTAS and not self.store.sound(blob.base):
            raise EnvironmentFault("the file that the delta begins from is damaged", where=file.name)
        if blob.form == "hvd1":
            from haversack.tools.codec import delta

            with _mapped(self.store.path(blob.base)) as base, _mapped(plain) as data:
                delta.apply_to(base, data, target.write, limit=file.bytes)
            return
        with _mapped(plain) as data:
            target.write(self._whole(blob, bytes(data), file.bytes))

    def _whole(self, blob: Blob, data: bytes, limit: int) -> bytes:
        if blob.form == "download":
            from haversack.tools.codec import download

            return download.unpack(data, limit=limit)
        if blob.form == "bsdiff":
            from haversack.tools.codec import bsdiff

            with _mapped(self.store.path(blob.base)) as base:
                return bsdiff.apply(base, data, limit=limit)
        if len(data) > limit:
            raise Refused(f"it has {len(data)} bytes, and {limit} are allowed", where="plain")
        return data


def _decrypt(fetched: Path, plain: Path, key: bytes, limit: int) -> None:
    from haversack.tools.trust import stream

    doing = "decrypt what was fetched"
    with atomic.told(plain, doing, atomic.HOME), fetched.open("rb") as source, plain.open("wb") as target:
        stream.decrypt(source, target, key, limit=limit)


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    """Yield the bytes of a file, mapped: what is not touched takes no memory."""
    with atomic.told(path, "read what an update is made of", atomic.HOME), path.open("rb") as stream:
        if not os.fstat(stream.fileno()).st_size:
            yield memoryview(b"")
            return
        # It is unmapped with its last view, which an exception may still hold.
        yield memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
