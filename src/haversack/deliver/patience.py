"""How long a transfer may take: a deadline for the whole, and a rate below which it is given up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from haversack.base.errors import EnvironmentFault


@dataclass(frozen=True)
class Bounds:
    """What a transfer may cost.

    Attributes:
        deadline_seconds: wall clock, for the whole of it, every new attempt included.
        least_rate: bytes a second; fewer than that over ``rate_seconds``, and it is given up.
        rate_seconds: the time over which the rate is taken; also the longest silence.
        redirects: how many are followed.
        attempts: how often a broken connection is tried again with no new byte in between.
        pause_seconds: before the first new attempt; doubled before each that follows.
    """

    deadline_seconds: float = 3600.0
    least_rate: float = 1024.0
    rate_seconds: float = 30.0
    redirects: int = 5
    attempts: int = 4
    pause_seconds: float = 0.5


class TooSlow(EnvironmentFault):
    """A transfer was given up: its deadline is over, or too few bytes came; what came is kept."""


@dataclass
class Patience:
    """The clock of one transfer.

    Attributes:
        bounds: what it may cost.
        where: names it in errors.
        now: seconds of a clock that never goes back.
        again_goes: what the same command does after it was given up.
    """

    bounds: Bounds
    where: str
    now: Callable[[], float] = time.monotonic
    again_goes: str = "it goes on from where it was"
    _began: float = field(init=False)
    _window: float = field(init=False)
    _came: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._began = self._window = self.now()

    @property
    def spent(self) -> float:
        """Seconds since it began."""
        return self.now() - self._began

    def again(self) -> None:
        """Begin to take the rate anew: another connection."""
        self._window, self._came = self.now(), 0

    def left(self) -> float:
        """Return for how many seconds the next byte may be awaited.

        Raises:
            TooSlow: none are left.
        """
        now = self.now()
        if now >= self._began + self.bounds.deadline_seconds:
            raise self._over(f"it took longer than {self.bounds.deadline_seconds:g} s")
        end = self._window + self.bounds.rate_seconds
        if now >= end:
            if self._came < self.bounds.least_rate * (now - self._window):
                seconds, least = now - self._window, self.bounds.least_rate
                raise self._over(f"{self._came} bytes came in {seconds:.1f} s, and {least:g} a second is the least")
            self._window, self._came, end = now, 0, now + self.bounds.rate_seconds
        return max(0.001, min(end, self._began + self.bounds.deadline_seconds) - now)

    def came(self, count: int) -> None:
        """Count bytes that came."""
        self._came += count

    def pause(self, attempt: int) -> None:
        """Wait before a new attempt, the first is 1; no longer than the deadline allows.

        Raises:
            TooSlow: the deadline is over.
        """
        time.sleep(min(self.bounds.pause_seconds * 2 ** (attempt - 1), self.left()))

    def _over(self, cause: str) -> TooSlow:
        return TooSlow(cause, where=self.where, next_step=f"repeat the same command: {self.again_goes}")
