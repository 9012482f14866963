"""What was fetched becomes the file it stands for: decrypted, then unpacked, or applied to what it is a delta from.

Whatever a blob says of itself, no more bytes are made than the release's file has, and the result must have its sha256.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
                _decrypt(fetched, plain, blob, self.key)
            if blob.form == "plain" and plain is fetched and blob.sha256 == file.sha256:
                self.store.adopt(fetched, file.sha256)
                return
            data = self._content(blob, plain, file)
            if len(data) != file.bytes:
                raise Refused(f"it became {len(data)} bytes, and the release says {file.bytes}", where=file.name)
            with self.store.adding(file.sha256) as stream:
                stream.write(data)
            fetched.unlink(missing_ok=True)
        finally:
            if plain is not fetched:
                plain.unlink(missing_ok=True)

    def _content(self, blob: Blob, plain: Path, file: ReleaseFile) -> bytes:
        from haversack.tools.codec import download

        with atomic.told(plain, "read what was fetched"):
            data = plain.read_bytes()
        if blob.form == "plain":
            return data
        if blob.form == "download":
            return download.unpack(data, limit=file.bytes)
        assert blob.form in DELTAS
        if not self.store.sound(blob.base):
            raise EnvironmentFault("the file that the delta begins from is damaged", where=file.name)
        with atomic.told(self.store.path(blob.base), "read the file that a delta begins from"):
            base = self.store.path(blob.base).read_bytes()
        if blob.form == "hvd1":
            from haversack.tools.codec import delta

            return delta.apply(base, data, limit=file.bytes)
        from haversack.tools.codec import bsdiff

        return bsdiff.apply(base, data, limit=file.bytes)


def _decrypt(fetched: Path, plain: Path, blob: Blob, key: bytes) -> None:
    from haversack.tools.trust import stream

    with atomic.told(plain, "decrypt what was fetched"), fetched.open("rb") as source, plain.open("wb") as target:
        stream.decrypt(source, target, key, limit=blob.bytes)
