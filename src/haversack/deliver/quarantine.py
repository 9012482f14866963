"""Releases that are not installed again: those that failed here, and those that somebody went back from."""

from __future__ import annotations

import time
from dataclasses import dataclass

from haversack.deliver.floor import LATEST

UNKNOWN = 0
"""The sequence of a release of which only its slot tells: older than any that may be offered."""
_MOST, _LONGEST_REASON = 64, 400


@dataclass(frozen=True)
class Bad:
    """A release that is not installed again: its sequence and version, why, and when (seconds since the epoch)."""

    sequence: int
    version: str
    reason: str
    time: float

    def __post_init__(self) -> None:
        """Refuse a time that no calendar has.

        Raises:
            ValueError: it is before 1970, or after the year 9999.
        """
        if not 0 <= self.time < LATEST:
            raise ValueError(f"{self.time:g} is no time")

    def names(self, sequence: int, version: str) -> bool:
        """Say whether it is this release that is not installed again: by its version, where one sequence is unknown."""
        return self.version == version if UNKNOWN in (self.sequence, sequence) else self.sequence == sequence


@dataclass(frozen=True)
class Quarantine:
    """What ``quarantine.json`` says; format 1."""

    format: int = 1
    releases: tuple[Bad, ...] = ()

    def with_one(self, sequence: int, version: str, reason: str) -> Quarantine:
        """Return the list with one release more, as the newest; of very many the oldest is forgotten."""
        others = [bad for bad in self.releases if not bad.names(sequence, version)]
        said = reason[:_LONGEST_REASON].encode(errors="replace").decode()  # a child may say half a surrogate pair
        bad = Bad(sequence, version, said, round(time.time(), 3))
        return Quarantine(releases=(*others, bad)[-_MOST:])
