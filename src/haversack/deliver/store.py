"""Files by their sha256, as many as the quota allows; what a slot uses is linked there, and is never removed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from haversack.base import digest
from haversack.base.errors import EnvironmentFault, Refused
from haversack.tools.store import atomic

QUOTA = 2 << 30
_NAME = re.compile(r"[0-9a-f]{62}")
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV})


@dataclass(frozen=True)
class Store:
    """A folder of files, ``ab/cdef…``; of one process at a time that changes it.

    Attributes:
        folder: made with the first file.
        quota: bytes of all files together.
    """

    folder: Path
    quota: int = QUOTA

    def path(self, sha256: str) -> Path:
        """Return where a file is or would be."""
        return self.folder / sha256[:2] / sha256[2:]

    def has(self, sha256: str) -> bool:
        """Say whether a file of this name is there (see ``sound`` for its content).

        Raises:
            EnvironmentFault: the store cannot be read.
        """
        with atomic.told(self.path(sha256), "look at the store", atomic.HOME):
            return self.path(sha256).is_file()

    def sound(self, sha256: str) -> bool:
        """Say whether a file is there and is what its name says; one that is not loses its name.

        Raises:
            EnvironmentFault: it cannot be read.
        """
        path = self.path(sha256)
        with atomic.told(path, "read a file of the store", atomic.HOME):
            try:
                right = digest.of_file(path) == sha256
            except FileNotFoundError:
                return False
            if not right:
                path.unlink()
            return right

    @contextlib.contextmanager
    def adding(self, sha256: str) -> Iterator[BinaryIO]:
        """Yield a stream whose content becomes the file when the block ends well.

        Raises:
            EnvironmentFault: it cannot be written; nothing is there then.
            Refused: what was written is not what the name says; nothing is there then.
        """
        path = self.path(sha256)
        with atomic.told(path.parent, "make a folder", atomic.HOME):
            path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(path, atomic.HOME) as stream:
            yield stream
            stream.flush()
            if digest.of_file(Path(stream.name)) != sha256:
                raise Refused("what was made has another sha256 than the release says", where=sha256)

    def adopt(self, source: Path, sha256: str) -> None:
        """Take a file of the same disk whose content is known to be right and on the disk.

        Raises:
            EnvironmentFault: it cannot be moved.
        """
        path = self.path(sha256)
        with atomic.told(path, "store what was fetched", atomic.HOME):
            path.parent.mkdir(parents=True, exist_ok=True)
            source.replace(path)
            atomic.sync_folder(path.parent)

    def link(self, sha256: str, place: Path) -> None:
        """Give a file another name, as a copy where the disk has no links; it was used just now.

        Raises:
            EnvironmentFault: it cannot be linked.
        """
        path = self.path(sha256)
        with atomic.told(place, "put a file in its slot", atomic.HOME):
            try:
                os.link(path, place)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                with path.open("rb") as source, place.open("xb") as copy:
                    shutil.copyfileobj(source, copy)
                    copy.flush()
                    os.fsync(copy.fileno())
            os.utime(path)

    def bytes(self) -> int:
        """Return the size of all files.

        Raises:
            EnvironmentFault: they cannot be looked at.
        """
        with atomic.told(self.folder, "look at the store", atomic.HOME):
            return sum(found.st_size for _, found in self._files())

    def make_room(self, needed: int, keep: frozenset[str]) -> int:
        """Remove files that no slot uses, the one used longest ago first, until so many bytes more fit.

        Args:
            needed: bytes to come.
            keep: files that stay: what the update is made of.

        Returns:
            How many bytes were removed.

        Raises:
            EnvironmentFault: they do not fit the quota, or the disk.
        """
        with atomic.told(self.folder, "make room", atomic.HOME):
            self.folder.mkdir(parents=True, exist_ok=True)
            files = list(self._files())
            held, free = sum(found.st_size for _, found in files), shutil.disk_usage(self.folder).free
            loose = [(path, found) for path, found in files if found.st_nlink == 1 and _sha256(path) not in keep]
            loose.sort(key=lambda one: one[1].st_mtime_ns)
            removed = 0
            while loose and (held - removed + needed > self.quota or free + removed < needed):
                path, found = loose.pop(0)
                path.unlink()
                removed += found.st_size
        if held - removed + needed > self.quota:
            cause = f"{needed} bytes more do not fit the quota of {self.quota}: {held - removed} are in use"
            raise EnvironmentFault(cause, where=str(self.folder), next_step="allow more with --quota")
        if free + removed < needed:
            cause = f"{needed} bytes are needed, and the disk has {free + removed} left"
            raise EnvironmentFault(cause, where=str(self.folder), next_step="free some space, then repeat the command")
        return removed

    def remove_leftovers(self) -> None:
        """Remove what killed writers left.

        Raises:
            EnvironmentFault: it cannot be removed.
        """
        with atomic.told(self.folder, "remove unfinished files", atomic.HOME):
            for path in self.folder.glob("??/.*.part"):
                path.unlink(missing_ok=True)

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.glob("??/*"):
            if _NAME.fullmatch(path.name):
                with contextlib.suppress(FileNotFoundError):  # an updater has just removed it
                    yield path, path.stat()


def _sha256(path: Path) -> str:
    return path.parent.name + path.name
