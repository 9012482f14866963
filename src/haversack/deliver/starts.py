"""Openings that never ended: a model that takes its process down leaves a mark, and a few marks are a crash loop.

As boot counters do. A mark is there while a model is opened, and while its first answer is computed: that is when a
file takes a runtime down. In between, and after the first answer, a process may end as it likes. The mark's lock tells
one who is still at it from one who died.

A mark is a file that is not empty. Empty ones stay for the next: to make and remove a file takes much longer than to
write into one.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LOOP = 3
"""So many processes that died at it, none in between that went well."""
_MOST = 64
"""Files of one release: marks of so many who are at it, or died. Whoever finds none free leaves no mark."""


@dataclass(frozen=True)
class Starts:
    """The marks of one line.

    Attributes:
        folder: of the line; the marks lie in ``starts`` below it.
    """

    folder: Path

    @contextlib.contextmanager
    def marked(self, sequence: int) -> Iterator[None]:
        """Mark that something is done with a release that may take the process down.

        The mark goes with the block, or with the process where that exits in order meanwhile. A disk that takes no mark
        stops nobody.
        """
        mark = self._made(sequence)
        try:
            yield
        finally:
            if mark is not None:
                mark()

    def crashed(self, sequence: int) -> int:
        """Return how many processes died at a release since one went well."""
        return sum(_died(self._marks / name) for name, size in self._all() if size and _number(name) == sequence)

    def went_well(self, sequence: int) -> None:
        """Forget the crashes of a release, and of those before it."""
        for name, size in self._all():
            number = _number(name)
            if 0 <= number < sequence or (number == sequence and size):
                _remove_free(self._marks / name)

    def forget(self, sequence: int) -> None:
        """Forget the crashes of a release: it may be tried again."""
        for name, _ in self._all():
            if _number(name) == sequence:
                _remove_free(self._marks / name)

    def _made(self, sequence: int) -> _Mark | None:
        """Return a mark that is there, or None where the disk takes none."""
        for number in range(_MOST):
            try:
                descriptor = _opened(self._marks / f"{sequence}-{number}")
            except PermissionError:  # somebody else's
                continue
            except OSError:
                return None
            if _taken(descriptor):
                return _Mark(descriptor)
            os.close(descriptor)
        return None

    @property
    def _marks(self) -> Path:
        return self.folder / "starts"

    def _all(self) -> list[tuple[str, int]]:
        """Return names and sizes of what lies there."""
        try:
            with os.scandir(self._marks) as entries:
                return [(entry.name, entry.stat(follow_symlinks=False).st_size) for entry in entries]
        except OSError:
            return []


def _number(name: str) -> int:
    """Return the sequence that a file is a mark of; -1 where it is none."""
    number, dash, _ = name.partition("-")
    return int(number) if dash and number.isdecimal() else -1


def _opened(path: Path) -> int:
    """Open a file, made if need be.

    Raises:
        OSError: that cannot be.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o644)
    except FileNotFoundError:
        path.parent.mkdir(exist_ok=True)
        return os.open(path, flags, 0o644)


def _taken(descriptor: int) -> bool:
    """Lock a file and make it a mark, unless somebody is at it or died at it, or it was removed meanwhile."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        state = os.fstat(descriptor)
        if state.st_size or not state.st_nlink:
            return False
        os.ftruncate(descriptor, 1)
    except OSError:
        return False
    return True


def _died(path: Path) -> bool:
    """Say whether a file is a mark that nobody holds; it is held for an instant, shared."""
    with contextlib.suppress(OSError), path.open("r+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return os.fstat(stream.fileno()).st_size > 0
    return False


def _remove_free(path: Path) -> None:
    """Take a file away that nobody holds."""
    with contextlib.suppress(OSError), path.open("r+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()


class _Mark:
    """One process at work on a release: calling it takes the mark away; so does an exit in order, and no fork's.

    Args:
        descriptor: of its file, which is locked as long as it is there.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._process = descriptor, os.getpid()
        atexit.register(self)

    def __call__(self) -> None:
        """Take it away. Safe to call twice."""
        atexit.unregister(self)
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0 and os.getpid() == self._process:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child forked meanwhile holds it, too
            with contextlib.suppress(OSError):
                os.close(descriptor)
