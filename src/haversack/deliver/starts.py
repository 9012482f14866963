"""Openings that never ended: a model that takes its process down leaves a mark, and a few marks are a crash loop.

As boot counters do: a mark is made before a model is opened and removed after its first answer. The mark's lock tells
one who is still opening from one who died.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from haversack.base.errors import EnvironmentFault
from haversack.deliver import locking

LOOP = 3
"""So many openings that took the process down, none in between that went well."""


class Mark:
    """One opening under way.

    Args:
        path: its file, held as long as the process lives.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held = contextlib.ExitStack()

    def make(self) -> None:
        """Put it there.

        Raises:
            OSError, EnvironmentFault: it cannot be made.
        """
        self._path.touch(exist_ok=False)
        self._held.enter_context(locking.held(self._path))

    def end(self) -> None:
        """Take it away: the process lives. Safe to call twice."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        self._held.close()


@dataclass(frozen=True)
class Starts:
    """The marks of one line.

    Attributes:
        folder: of the line; the marks lie in ``starts`` below it.
    """

    folder: Path

    def begin(self, sequence: int) -> Mark:
        """Mark that a release is being opened. A disk that takes no mark stops nobody from opening a model."""
        mark = Mark(self._marks / f"{sequence}-{secrets.token_hex(8)}")
        with contextlib.suppress(OSError, EnvironmentFault):
            self._marks.mkdir(exist_ok=True)
            mark.make()
        return mark

    def crashed(self, sequence: int) -> int:
        """Return how many openings of a release took their process down since one went well."""
        return sum(locking.free(mark) for mark in self._of(sequence))

    def went_well(self, sequence: int) -> None:
        """Forget the crashes of a release, and of those before it."""
        with contextlib.suppress(OSError):
            for mark in self._marks.iterdir():
                number = mark.name.partition("-")[0]
                if number.isdecimal() and int(number) <= sequence and locking.free(mark):
                    mark.unlink(missing_ok=True)

    @property
    def _marks(self) -> Path:
        return self.folder / "starts"

    def _of(self, sequence: int) -> list[Path]:
        try:
            return [mark for mark in self._marks.iterdir() if mark.name.startswith(f"{sequence}-")]
        except FileNotFoundError:
            return []
