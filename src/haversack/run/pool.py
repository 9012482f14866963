"""A pool of sessions: as many calls at once as there are sessions, so many waiting, and the others refused at once.

Calls are served in the order in which they came. All sessions are opened at the start: a slot's files may be replaced
by another release while its model is still in use.

A call that takes longer than its limit cannot be stopped, and keeps its session. Where all sessions are kept so,
whoever waits is told soon that the model hangs, and not that it is busy.

Who has which session is told by the places alone, and a call has its place before it has a session: Ctrl-C at any
moment loses none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from haversack.base.counted import counted
from haversack.base.errors import EnvironmentFault, UsageError, VerificationError

LONGEST = 86_400.0
"""Seconds, a day: what a call may wait at most."""


class Closing(Protocol):
    """What a pool lends."""

    def close(self) -> None:
        """Let go of its memory."""


Lent = TypeVar("Lent", bound=Closing)


class Busy(EnvironmentFault):
    """No session or thread is free, or too many calls wait already; the model is well, and may be called again."""


class Hung(VerificationError):
    """Every session is at a call that took longer than its limit, and none came back: the model hangs."""


class Place(Generic[Lent]):
    """One call's: first in the line, then at a session.

    Attributes:
        lent: the session; None as long as it waits.
        late: whether the call took longer than its limit, and goes on.
        waits: locked as long as there is none. A plain lock: Ctrl-C can leave an Event's own lock locked for ever.
    """

    def __init__(self) -> None:
        self.lent: Lent | None = None
        self.late = False
        self.waits = threading.Lock()
        self.waits.acquire()

    @property
    def session(self) -> Lent:
        """What is lent to it.

        Raises:
            UsageError: nothing yet.
        """
        if self.lent is None:
            raise UsageError("it waits for a session", next_step="take one first")
        return self.lent


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
        if size < 1 or waiting < 0 or not 0 <= seconds <= LONGEST:
            step = f"give size >= 1, waiting >= 0 and seconds from 0 to {LONGEST:g}"
            raise UsageError(f"a pool of {size}, with {waiting} waiting {seconds} seconds, is none", next_step=step)
        self._size, self._waiting, self._seconds = size, waiting, seconds
        self._lock = threading.Lock()
        self._places: list[Place[Lent]] = []  # as they came: the first ``size`` have a session, the others wait
        self._closing, self._shared = False, shared
        self._opened: list[Lent] = []
        try:
            for _ in range(1 if shared else size):
                self._opened.append(opens())
        except BaseException:
            self._close(self._opened)
            raise

    @property
    def first(self) -> Lent:
        """One of the sessions, to be asked what does not call it."""
        return self._opened[0]

    def take(
        self, seconds: float | None = None, place: Place[Lent] | None = None, *, patience: float = 0.0
    ) -> Place[Lent]:
        """Return a place that has a session, and must be given back.

        Args:
            seconds: how long to wait at most; None for the pool's own limit.
            place: a new one, which the caller gives back also where this raises or is interrupted; None to make one.
            patience: how many seconds to wait at most where every session is at a call that is ``late``.

        Raises:
            Busy: too many wait already, or none became free in time.
            Hung: every session is at a call that is late, and none came back.
            UsageError: the pool is closed.
        """
        place = place or Place()
        try:
            with self._lock:
                if self._closing:
                    raise UsageError("the model is closed")
                wait = len(self._places) - self._size
                if wait >= self._waiting:
                    raise self._refusal(f"and {counted(wait, 'call')} wait already, as many as may")
                self._places.append(place)
            self._wait(place, self._seconds if seconds is None else seconds, patience)
        except BaseException:
            self.give(place)
            raise
        return place

    def _wait(self, place: Place[Lent], seconds: float, patience: float) -> None:
        """Wait until a place has a session; it is woken too when the last session is late."""
        began, came = time.monotonic(), True
        while True:
            spent = time.monotonic() - began
            with self._lock:
                self._serve()
                if place.lent is not None:
                    return
                hangs = self._hangs()
                if hangs and (not came or spent >= seconds):
                    raise self._hung()
                if spent >= seconds:
                    raise self._refusal(f"and none became free in {spent:.3g} s")
            left = seconds - spent
            came = place.waits.acquire(timeout=min(left, patience) if hangs else left)

    def late(self, place: Place[Lent]) -> None:
        """Note that a call takes longer than its limit; it keeps its session until it is given back."""
        with self._lock:
            place.late = True
            for one in self._places[self._size :] if self._hangs() else []:
                if one.waits.locked():
                    one.waits.release()

    def _hangs(self) -> bool:
        """Say whether every session is at a call that is late."""
        first = self._places[: self._size]
        return len(first) == self._size and all(place.late for place in first)

    def give(self, place: Place[Lent]) -> None:
        """Give a session back: the call that waits longest gets it. Safe to call twice, or where none was lent."""
        with self._lock:
            known = place in self._places
            if known:
                self._places.remove(place)
            self._serve()
            done = known and self._closing and not self._places
        if done:
            self._close(self._opened)

    def _serve(self) -> None:
        """Lend what is free, to those that wait longest. An interrupt here is made good by the next call of it."""
        first = self._places[: self._size]
        for place in first:
            if place.lent is None:
                lent = [other.lent for other in first]
                place.lent = next(one for one in self._opened if self._shared or one not in lent)
            if place.waits.locked():
                place.waits.release()

    def close(self) -> None:
        """Refuse further calls; the sessions are closed now, or when the last one that is lent comes back."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            done = not self._places
        if done:
            self._close(self._opened)

    def _refusal(self, why: str) -> Busy:
        step = "call again later, from fewer threads at once, or open the model with more sessions (sessions=…)"
        return Busy(f"{self._busy()}, {why}", next_step=step)

    def _hung(self) -> Hung:
        calls = "the call that has the session" if self._size == 1 else f"all {self._size} calls that have a session"
        step = "go back to the release before: haversack client rollback LINE"
        return Hung(f"{calls} took longer than the limit and did not come back", next_step=step)

    def _busy(self) -> str:
        return "the session is busy" if self._size == 1 else f"all {self._size} sessions are busy"

    @staticmethod
    def _close(sessions: list[Lent]) -> None:
        for session in sessions:
            session.close()
