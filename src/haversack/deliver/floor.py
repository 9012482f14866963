"""What a device remembers for good: the highest release of each line that was offered, and the newest signed time.

It lies beside the cache of metadata and not in it, so that a wiped cache opens no way back to an old release.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from haversack.deliver import remembered
from haversack.tools.store import atomic
from haversack.tools.trust import canonical

_LARGEST = 1 << 20
LATEST = 253_402_300_800.0
"""The year 10000, in seconds since the epoch: no calendar goes on."""


@dataclass(frozen=True)
class Lowest:
    """What ``floor.json`` says.

    Attributes:
        format: 1.
        sequences: line -> sequence below which nothing is taken.
        time: seconds since the epoch; no earlier time is believed.
    """

    format: int = 1
    sequences: Mapping[str, int] = field(default_factory=dict, hash=False)
    time: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a time that no calendar has.

        Raises:
            ValueError: it is before 1970, or after the year 9999.
        """
        if not 0 <= self.time < LATEST:
            raise ValueError(f"{self.time:g} is no time")


@dataclass(frozen=True)
class Floor:
    """The floor of a home; changed by one process at a time.

    Attributes:
        path: its file.
    """

    path: Path

    def sequence(self, line: str) -> int:
        """Return the highest sequence of a line that was seen; 0 where none was.

        Raises:
            Refused: the file is damaged. It is not taken for an empty one: that would open the way back.
            EnvironmentFault: it cannot be read.
        """
        return self.read().sequences.get(line, 0)

    def time(self) -> float:
        """Return the newest time that was signed, in seconds since the epoch; 0 where none was.

        Raises:
            Refused, EnvironmentFault: as ``sequence``.
        """
        return self.read().time

    def lift(self, line: str, sequence: int, time: float) -> None:
        """Let neither be lower than this from now on; it is on the disk when this returns.

        Raises:
            Refused, EnvironmentFault: as ``sequence``, or it cannot be written.
        """
        before = self.read()
        sequences = {**before.sequences, line: max(sequence, before.sequences.get(line, 0))}
        after = Lowest(sequences=sequences, time=max(time, before.time))
        if after != before:
            atomic.write_bytes(self.path, canonical.dumps(after), atomic.HOME)

    def read(self) -> Lowest:
        """Return all that it says.

        Raises:
            Refused, EnvironmentFault: as ``sequence``.
        """
        step = f"rm {shlex.quote(str(self.path))}, then update: an older release is taken once, if it was signed"
        return remembered.read(self.path, Lowest(), limit=_LARGEST, doing="read the floor", next_step=step)
