"""Openings that never ended: a model that takes its process down leaves a mark, and a few marks are a crash loop.

As boot counters do. A mark is there while a model is opened, and while its first answer is computed: that is when a
file takes a runtime down. In between, and after the first answer, a process may end as it likes. The mark's lock tells
one who is still at it from one who died.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from haversack.base.errors import EnvironmentFault
from haversack.deliver import locking

LOOP = 3
"""So many processes that died at it, none in between that went well."""
_HIDDEN = "."
"""What the name of a mark begins with that is not locked yet: nobody looks at it."""


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
        with contextlib.ExitStack() as mark:
            with contextlib.suppress(OSError, EnvironmentFault):
                self._marks.mkdir(exist_ok=True)
                mark.callback(self._made(f"{sequence}-{secrets.token_hex(8)}"))
            yield

    def crashed(self, sequence: int) -> int:
        """Return how many processes died at a release since one went well."""
        died = (mark for mark in self._of(str(sequence)) if locking.free(mark))
        return sum(mark.exists() for mark in died)  # one that was taken away meanwhile was free, too

    def went_well(self, sequence: int) -> None:
        """Forget the crashes of a release, and of those before it."""
        for mark in self._all():
            number = mark.name.removeprefix(_HIDDEN).partition("-")[0]
            if number.isdecimal() and int(number) <= sequence:
                _remove_free(mark)

    def forget(self, sequence: int) -> None:
        """Forget the crashes of a release: it may be tried again."""
        for mark in self._of(str(sequence)):
            _remove_free(mark)

    def _made(self, name: str) -> _Mark:
        """Return a mark that is there; it has its name once it is locked, so that nobody sees it as one who died.

        Raises:
            OSError, EnvironmentFault: it cannot be made.
        """
        path, hidden = self._marks / name, self._marks / f"{_HIDDEN}{name}"
        with contextlib.ExitStack() as undo:
            undo.enter_context(locking.held(hidden))
            undo.callback(hidden.unlink, missing_ok=True)
            hidden.rename(path)
            return _Mark(path, undo.pop_all())

    @property
    def _marks(self) -> Path:
        return self.folder / "starts"

    def _all(self) -> list[Path]:
        try:
            return list(self._marks.iterdir())
        except OSError:
            return []

    def _of(self, number: str) -> list[Path]:
        return [mark for mark in self._all() if mark.name.partition("-")[0] == number]


def _remove_free(mark: Path) -> None:
    """Take a mark away whose process died."""
    if locking.free(mark):
        with contextlib.suppress(OSError):
            mark.unlink(missing_ok=True)


class _Mark:
    """One process at work on a release: calling it takes the mark away; so does an exit in order, and no fork's.

    Args:
        path: its file.
        lock: held as long as it is there.
    """

    def __init__(self, path: Path, lock: contextlib.ExitStack) -> None:
        self._path, self._lock, self._process = path, lock, os.getpid()
        atexit.register(self)

    def __call__(self) -> None:
        """Take it away. Safe to call twice."""
        atexit.unregister(self)
        if os.getpid() == self._process:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self._lock.close()
