"""Peak memory of a process and all its children: the largest sum of proportional set sizes, sampled by a thread."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

_PROC = Path("/proc")


class PeakOfTree:
    """Samples while its block runs; ``peak_bytes`` then is the largest sum seen.

    The proportional set size counts a page that n processes share as 1/n in each, so that the sum over the tree is
    what it really takes. A peak between two samples is missed; short-lived children may be.

    Args:
        every_seconds: how often to look; reading a process of 1 GB takes about a millisecond.

    Attributes:
        peak_bytes: 0 where the system does not tell (it is not Linux).
    """

    def __init__(self, every_seconds: float = 0.2) -> None:
        self.peak_bytes = 0
        self._every = every_seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-of-tree", daemon=True)

    def _watch(self) -> None:
        while not self._done.wait(self._every):
            self._look()

    def _look(self) -> None:
        self.peak_bytes = max(self.peak_bytes, tree_bytes(os.getpid()))

    def __enter__(self) -> Self:
        """Look once, and begin to sample."""
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Look once more, and stop."""
        self._done.set()
        self._thread.join()
        self._look()


def tree_bytes(root: int) -> int:
    """Return the sum of the proportional set sizes of a process and its descendants; 0 where the system tells none."""
    return sum(_own_bytes(process) for process in _family(root))


def _family(root: int) -> Iterator[int]:
    # Through parents: not every kernel lists a process's children.
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir() if _PROC.is_dir() else ():
        if entry.name.isdecimal():
            # A process may end between any two lines of this file: it then takes nothing.
            with contextlib.suppress(OSError):
                # The name in parentheses may hold anything; the state and the parent follow it.
                parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    waiting = [root]
    while waiting:
        process = waiting.pop()
        yield process
        waiting += children.get(process, [])


def _own_bytes(process: int) -> int:
    with contextlib.suppress(OSError):
        for line in (_PROC / str(process) / "smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
