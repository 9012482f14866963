"""What a device's home holds: which release of each line is in use, what it can go back to, what it set aside."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from haversack.base.bundle import LINE
from haversack.base.counted import counted
from haversack.base.errors import HaversackError
from haversack.base.recipe import unstructure
from haversack.deliver import bandwidth, settings
from haversack.deliver.floor import Floor
from haversack.deliver.home import Home
from haversack.deliver.slots import Bad, Pointer, Slots
from haversack.deliver.starts import Starts
from haversack.deliver.store import Store
from haversack.run import tuning
from haversack.run.source import found


@dataclass(frozen=True)
class LineState:
    """One line.

    Attributes:
        line: its name.
        pointer: what is in which slot.
        quarantined: releases that are not installed again.
        floor: the highest sequence that was offered.
        crashed: openings of what is in use that took their process down.
        setting: threads and delegate as they were measured here; empty where they were not.
    """

    line: str
    pointer: Pointer
    quarantined: tuple[Bad, ...]
    floor: int
    crashed: int
    setting: str = ""

    def lines(self, home: str = "") -> list[str]:
        """Return it for a terminal; ``home`` are the words that name the home in another command."""
        now, other = self.pointer.current, self.pointer.other
        if now is None:
            told = [f"{self.line}: nothing is installed"]
        else:
            speed = f", {now.median_ms:.3g} ms a call" if now.median_ms else ""
            told = [f"{self.line} {now.version} (sequence {now.sequence}) on {now.target}{speed}"]
            told.append(f"  way back: {other.version}" if other is not None else "  no way back")
            tune = f"haversack run {self.line} INPUT --tune{home}"
            unmeasured = f"1 thread; an update on an idle device measures which are best, or {tune}"
            told.append(f"  {self.setting}, as measured here" if self.setting else f"  {unmeasured}")
        if self.crashed:
            told.append(
                f"  {counted(self.crashed, 'process', 'processes')} ended while it was opened or gave its first answer"
            )
        for bad in self.quarantined:
            when = datetime.fromtimestamp(bad.time, UTC).strftime("%Y-%m-%d %H:%M UTC")
            told.append(f"  quarantined {bad.version} on {when}: {bad.reason}")
        if self.quarantined:
            told.append(f"  an update leaves these out until you type haversack client retry {self.line}{home}")
        return told


@dataclass(frozen=True)
class State:
    """A home.

    Attributes:
        home: its folder.
        repository: where updates come from; empty where nobody said.
        lines_held: every line, by name.
        store_bytes: of files, those in slots among them.
        rate: bytes a second of the last transfers; None where nothing is known.
        newest_time: of signed metadata, seconds since the epoch; 0 where none were seen.
        enrolled: whether the device has a key.
    """

    home: str
    repository: str
    lines_held: tuple[LineState, ...]
    store_bytes: int
    rate: float | None
    newest_time: float
    enrolled: bool

    def in_use(self, line: str) -> str:
        """Return the version of a line that is in use; empty where none is."""
        current = next((held.pointer.current for held in self.lines_held if held.line == line), None)
        return current.version if current is not None else ""

    def lines(self, home: str = "") -> list[str]:
        """Return it for a terminal; ``home`` are the words that name the home in another command."""
        told = [line for held in self.lines_held for line in held.lines(home)] or ["nothing is installed"]
        told.append(f"{self.store_bytes / 1e6:.3f} MB of files in {self.home}")
        if self.repository:
            told.append(f"updates come from {self.repository}")
        if self.newest_time:
            when = datetime.fromtimestamp(self.newest_time, UTC).strftime("%Y-%m-%d %H:%M UTC")
            told.append(f"metadata were signed {when}")
        if self.rate is not None:
            told.append(f"the last transfers came with {self.rate / 1e3:.0f} KB a second")
        return told

    def data(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        found: dict[str, Any] = unstructure(self)
        found["lines"] = found.pop("lines_held")
        return found


def state(home: Home) -> State:
    """Return what a home holds.

    Raises:
        Refused, EnvironmentFault: a file of it is damaged, or cannot be read.
    """
    floor = Floor(home.floor)
    folders = sorted(home.lines.iterdir()) if home.lines.is_dir() else []
    return State(
        home=str(home.folder),
        repository=settings.read(home.settings).repository,
        lines_held=tuple(_line(Slots(folder), floor, home) for folder in folders if LINE.fullmatch(folder.name)),
        store_bytes=Store(home.store).bytes(),
        rate=bandwidth.read(home.speeds).rate(),
        newest_time=floor.time(),
        enrolled=home.device_key.exists(),
    )


def _line(slots: Slots, floor: Floor, home: Home) -> LineState:
    pointer = slots.pointer()
    crashed = Starts(slots.folder).crashed(pointer.current.sequence) if pointer.current is not None else 0
    bad, offered = slots.quarantined(), floor.sequence(slots.folder.name)
    return LineState(slots.folder.name, pointer, bad, offered, crashed, _setting(slots, home))


def _setting(slots: Slots, home: Home) -> str:
    """Return what was measured for what is in use; nothing where it was not, or cannot be read."""
    try:
        with slots.opening() as installed:
            chosen = tuning.remembered(home.folder, found(slots.path(installed), installed.target, verified=True))
    except HaversackError:
        return ""
    return str(chosen.setting) if chosen is not None else ""
