"""How long a download will take on this line, by its first bytes and by past transfers, and what to fetch then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from haversack.base.errors import Refused
from haversack.base.release import Blob
from haversack.tools.store import atomic
from haversack.tools.trust import canonical

PROBE_BYTES = 1 << 16
"""Of the first blob, fetched before anything is chosen; they are kept, so nothing is fetched twice."""
MOST_PAST = 12
_LARGEST = 1 << 16
_MOST = 1e18
_HALVED = 0.5
"""What a transfer weighs against the one after it."""
_LEAST_BYTES = 1 << 14
"""Of a transfer that says something of the rate."""
HARDLY_SECONDS = 2.0
"""So much later a file may be here, if fewer bytes travel for that: bytes cost money and power too."""
WORK = {"plain": 0.0, "download": 1e-7, "hvd1": 1e-7, "bsdiff": 2.5e-7}
"""Seconds of processor time for a byte of the result, as long as this device has not told its own."""


@dataclass(frozen=True)
class Transfer:
    """One transfer: bytes, seconds until the first one came, and seconds from then on."""

    bytes: int
    wait_seconds: float
    seconds: float


@dataclass(frozen=True)
class Past:
    """What is known of the line and of the device.

    Attributes:
        format: 1.
        transfers: the last ones, newest last.
        work: form of a blob -> seconds for a byte of what it becomes, measured here.
    """

    format: int = 1
    transfers: tuple[Transfer, ...] = ()
    work: Mapping[str, float] = field(default_factory=dict, hash=False)

    def after(self, transfer: Transfer) -> Past:
        """Return it with one more transfer; one of no bytes says nothing."""
        if transfer.bytes <= 0:
            return self
        return replace(self, transfers=(*self.transfers, transfer)[-MOST_PAST:])

    def worked(self, form: str, count: int, seconds: float) -> Past:
        """Return it with what it took to make ``count`` bytes of a blob; few bytes say nothing."""
        if count < _LEAST_BYTES:
            return self
        return replace(self, work={**self.work, form: seconds / count})

    def rate(self) -> float | None:
        """Return bytes a second, newer transfers counting more; None where nothing is known."""
        told = [one for one in self.transfers if one.bytes >= _LEAST_BYTES] or list(self.transfers)
        if not told:
            return None
        weights = [_HALVED ** (len(told) - 1 - place) for place in range(len(told))]
        size = sum(weight * one.bytes for weight, one in zip(weights, told, strict=True))
        return size / max(sum(weight * one.seconds for weight, one in zip(weights, told, strict=True)), 1e-6)

    def wait(self) -> float:
        """Return the seconds until a first byte comes, newer transfers counting more; 0 where nothing is known."""
        weights = [_HALVED ** (len(self.transfers) - 1 - place) for place in range(len(self.transfers))]
        waits = sum(weight * one.wait_seconds for weight, one in zip(weights, self.transfers, strict=True))
        return waits / sum(weights) if weights else 0.0

    def seconds(self, blob: Blob, result_bytes: int) -> float:
        """Forecast what it takes to fetch a blob and to make of it a file of so many bytes; no rate counts as 0 s."""
        rate = self.rate()
        travels = self.wait() + (blob.bytes / rate if rate else 0.0)
        return travels + self.work.get(blob.form, WORK[blob.form]) * result_bytes


@dataclass(frozen=True)
class Choice:
    """What could be fetched: a variant of the model, with a blob for every file that is not here.

    Attributes:
        target: the runtime.
        blobs: of which to fetch.
        seconds: forecast.
    """

    target: str
    blobs: tuple[Blob, ...]
    seconds: float

    @property
    def bytes(self) -> int:
        """That travel."""
        return sum(blob.bytes for blob in self.blobs)


@dataclass(frozen=True)
class Allowed:
    """What one update may cost; None where it does not matter."""

    seconds: float | None = None
    bytes: int | None = None

    def holds(self, choice: Choice) -> bool:
        """Say whether a choice is within both."""
        in_time = self.seconds is None or choice.seconds <= self.seconds
        return in_time and (self.bytes is None or choice.bytes <= self.bytes)


def cheapest(past: Past, blobs: Sequence[Blob], result_bytes: int) -> Blob:
    """Return the smallest blob of those by which a file is here hardly later than by the quickest."""
    if past.rate() is None:
        return min(blobs, key=lambda blob: blob.bytes)
    seconds = {blob: past.seconds(blob, result_bytes) for blob in blobs}
    quick = [blob for blob in blobs if seconds[blob] <= min(seconds.values()) + HARDLY_SECONDS]
    return min(quick, key=lambda blob: blob.bytes)


def choose(choices: Sequence[Choice], allowed: Allowed) -> Choice:
    """Return the first choice that is allowed, in their order; where none is, the one that is here first.

    Args:
        choices: the preferred variant first, at least one.
        allowed: what it may cost.
    """
    fitting = [choice for choice in choices if allowed.holds(choice)]
    return fitting[0] if fitting else min(choices, key=lambda choice: (choice.seconds, choice.bytes))


def read(path: Path) -> Past:
    """Return what was remembered; nothing where the file is missing or none: it is no more than a hint."""
    try:
        with path.open("rb") as stream:
            found = canonical.loads(stream.read(_LARGEST + 1), Past, where=str(path), limit=_LARGEST)
    except (OSError, Refused):
        return Past()
    told = [(one.bytes, one.wait_seconds, one.seconds) for one in found.transfers] + [tuple(found.work.values())]
    return found if all(0 <= value <= _MOST for each in told for value in each) else Past()


def write(past: Past, path: Path) -> None:
    """Remember it.

    Raises:
        EnvironmentFault: it cannot be written.
    """
    atomic.write_bytes(path, canonical.dumps(past), atomic.HOME)
