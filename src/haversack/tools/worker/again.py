"""A death that may come from outside is looked at a second time, in a fresh process, before anything is made of it.

A kernel that is short of memory kills what it likes. One more try, never two: with the limits of the calls, bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from haversack.tools.worker.faults import NeverReady, WorkerCrashed, WorkerTimeout

Thing = TypeVar("Thing")


def ready(start: Callable[[], Thing]) -> Thing:
    """Return what ``start`` gives, which opens no artefact; where its process dies or hangs, start once more.

    Args:
        start: begins a fresh process at every call.

    Raises:
        NeverReady: it died or hung twice, which says nothing of any artefact.
        Exception: what else ``start`` raises.
    """
    try:
        return start()
    except (WorkerCrashed, WorkerTimeout):
        pass
    try:
        return start()
    except (WorkerCrashed, WorkerTimeout) as error:
        raise NeverReady(error) from error


def _unheard(_: WorkerCrashed) -> None:
    """Tell nobody."""


def twice(look: Callable[[], Thing], tell: Callable[[WorkerCrashed], None] = _unheard) -> Thing:
    """Return what ``look`` gives; where the process dies under it, look once more and believe that.

    Args:
        look: opens an artefact in a process that is there or a fresh one, and asks it something.
        tell: hears of the first death.

    Raises:
        WorkerCrashed: it died twice.
        Exception: what else ``look`` raises; a hang is believed at once.
    """
    try:
        return look()
    except WorkerCrashed as error:
        tell(error)
    return look()
