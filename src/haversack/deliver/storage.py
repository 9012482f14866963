"""Where a repository lies: a folder here, a bucket in ``deliver/s3.py``. Anything static may serve either.

Files of three kinds: numbered metadata and releases, which are made once and never changed; blobs and wrapped keys,
whose name says what is in them; and one file that changes, ``metadata/timestamp.json``. Whoever changes it says what he
saw there, so that of two publishers at once one is told to repeat.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from haversack.base import digest
from haversack.base.errors import Refused
from haversack.tools.store import atomic

PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*")
INSTEAD = "choose another folder with --repository"
"""What a publisher does where a folder cannot be read or written."""


@dataclass(frozen=True)
class Found:
    """A file as it was read; ``mark`` tells whether it is still the same."""

    data: bytes
    mark: str


class Storage(Protocol):
    """What a repository needs of the place where it lies; paths are relative, with ``/``."""

    @property
    def name(self) -> str:
        """What a person calls it."""

    def read(self, path: str, limit: int) -> Found | None:
        """Return a file, or None where there is none.

        Raises:
            Refused: it has more than ``limit`` bytes.
            EnvironmentFault: it cannot be read.
        """

    def create(self, path: str, data: bytes) -> bool:
        """Make a file that is never changed, whole or not at all; say whether its content is this.

        False: it is there already with other content, which is left as it is.

        Raises:
            EnvironmentFault: it cannot be written.
        """

    def swap(self, path: str, data: bytes, seen: str) -> bool:
        """Replace the file that changes, whole or not at all, and say whether it was done.

        Args:
            path: where.
            data: its new content.
            seen: the mark with which it was read, empty where there was none. It is not done where it has another now.

        Raises:
            EnvironmentFault: it cannot be written.
        """


@dataclass(frozen=True)
class Folder:
    """A repository in a folder; several processes may write to it, one at a time."""

    folder: Path

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.folder)

    def read(self, path: str, limit: int) -> Found | None:
        """Return a file, or None where there is none; see ``Storage``."""
        place = self._place(path)
        with atomic.told(place, "read the repository", INSTEAD):
            try:
                with place.open("rb") as stream:
                    data = stream.read(limit + 1)
            except FileNotFoundError:
                return None
        if len(data) > limit:
            raise Refused(f"it has more than {limit} bytes, which are allowed", where=str(place))
        return Found(data, digest.of_bytes(data))

    def create(self, path: str, data: bytes) -> bool:
        """Make a file that is never changed; see ``Storage``."""
        place = self._place(path)
        with self._alone():
            if place.exists():
                with atomic.told(place, "read the repository", INSTEAD):
                    return place.stat().st_size == len(data) and place.read_bytes() == data
            self._write(place, data)
        return True

    def swap(self, path: str, data: bytes, seen: str) -> bool:
        """Replace the file that changes; see ``Storage``."""
        place = self._place(path)
        with self._alone():
            found = self.read(path, 1 << 30)
            if (found.mark if found else "") != seen:
                return False
            self._write(place, data)
        return True

    def _write(self, place: Path, data: bytes) -> None:
        atomic.make_folder(place.parent)
        with atomic.replacing(place, INSTEAD) as stream:
            stream.write(data)

    def _place(self, path: str) -> Path:
        return self.folder / checked(path)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other writers out; what readers see does not depend on it."""
        atomic.make_folder(self.folder)
        place = self.folder / ".lock"
        with atomic.told(place, "lock the repository", INSTEAD):
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with atomic.told(place, "lock the repository", INSTEAD):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def checked(path: str) -> str:
    """Return a path below a repository's root.

    Raises:
        ValueError: it leaves the root, or has a hidden part or strange signs.
    """
    if not PATH.fullmatch(path):
        raise ValueError(f"{path[:80]!r} is no path of a repository")
    return path
