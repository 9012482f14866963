"""A pool of sessions: as many calls at once as there are sessions, so many waiting, and the others refused at once.

Calls are served in the order in which they came. All sessions are opened at the start: a slot's files may be replaced
by another release while its model is still in use.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from haversack.base.counted import counted
from haversack.base.errors import EnvironmentFault, UsageError


class Closing(Protocol):
    """What a pool lends."""

    def close(self) -> None:
        """Let go of its memory."""


Lent = TypeVar("Lent", bound=Closing)


class Busy(EnvironmentFault):
    """No session became free in time, or too many calls wait already; the model is well, and may be called again."""


class Pool(Generic[Lent]):
    """Lends sessions.

    Args:
        opens: opens one.
        size: how many are lent at once.
        waiting: how many calls may wait for one.
        seconds: how long a call waits at most.
        shared: whether one session serves ``size`` calls at once, so that only one is opened.

    Raises:
        UsageError: a number that is none.
    """

    def __init__(
        self,
        opens: Callable[[], Lent],
        *,
        size: int = 1,
        waiting: int = 128,
        seconds: float = 60.0,
        shared: bool = False,
    ) -> None:
        if size < 1 or waiting < 0 or not seconds >= 0:
            step = "give size >= 1, waiting >= 0 and seconds >= 0"
            raise UsageError(f"a pool of {size}, with {waiting} waiting {seconds} seconds, is none", next_step=step)
        self._size, self._waiting, self._seconds = size, waiting, seconds
        self._lock = threading.Lock()
        self._line: deque[_Place[Lent]] = deque()
        self._closing = False
        self._opened: list[Lent] = []
        try:
            for _ in range(1 if shared else size):
                self._opened.append(opens())
        except BaseException:
            self._close(self._opened)
            raise
        self._free: deque[Lent] = deque(self._opened * size if shared else self._opened)

    @property
    def first(self) -> Lent:
        """One of the sessions, to be asked what does not call it."""
        return self._opened[0]

    def take(self, seconds: float | None = None) -> Lent:
        """Return a session, which must be given back.

        Args:
            seconds: how long to wait at most; None for the pool's own limit.

        Raises:
            Busy: too many wait already, or none became free in time.
            UsageError: the pool is closed.
        """
        limit = self._seconds if seconds is None else seconds
        with self._lock:
            if self._closing:
                raise UsageError("the model is closed")
            if self._free:  # then nobody waits: what comes back is handed on
                return self._free.pop()
            if len(self._line) >= self._waiting:
                raise self._refusal(f"and {counted(len(self._line), 'call')} wait already, as many as may")
            place: _Place[Lent] = _Place()
            self._line.append(place)
        began = time.monotonic()
        place.served.wait(limit)
        with self._lock:
            if place.session is None:
                self._line.remove(place)
                raise self._refusal(f"and none became free in {time.monotonic() - began:.3g} s")
        return place.session

    def give(self, session: Lent) -> None:
        """Give a session back: the call that waits longest gets it."""
        with self._lock:
            if self._line:
                place = self._line.popleft()
                place.session = session
                place.served.set()
                return
            self._free.append(session)
            done = self._closing and len(self._free) == self._size
        if done:
            self._close(self._opened)

    def close(self) -> None:
        """Refuse further calls; the sessions are closed now, or when the last one that is lent comes back."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            done = len(self._free) == self._size
        if done:
            self._close(self._opened)

    def _refusal(self, why: str) -> Busy:
        step = "call again later, from fewer threads at once, or open the model with more sessions (sessions=…)"
        return Busy(f"{self._busy()}, {why}", next_step=step)

    def _busy(self) -> str:
        return "the session is busy" if self._size == 1 else f"all {self._size} sessions are busy"

    @staticmethod
    def _close(sessions: list[Lent]) -> None:
        for session in sessions:
            session.close()


class _Place(Generic[Lent]):
    """One in the line of those that wait."""

    def __init__(self) -> None:
        self.served = threading.Event()
        self.session: Lent | None = None
