"""What a device's home holds: which release of each line is in use, what it can go back to, what it set aside."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from haversack.base.bundle import LINE
from haversack.base.counted import counted
from haversack.base.errors import EnvironmentFault, Fault, HaversackError, Refused
from haversack.base.recipe import unstructure
from haversack.deliver import bandwidth, root, settings, whole
from haversack.deliver.floor import Floor, Lowest
from haversack.deliver.home import Home
from haversack.deliver.quarantine import Bad
from haversack.deliver.slots import Pointer, Slots
from haversack.deliver.starts import Starts
from haversack.deliver.store import Store
from haversack.run import tuning
from haversack.run.source import found
from haversack.tools.store import atomic

Record = TypeVar("Record")


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
        damage: files of the line that are not what was written, and what to do.
    """

    line: str
    pointer: Pointer
    quarantined: tuple[Bad, ...]
    floor: int
    crashed: int
    setting: str = ""
    damage: tuple[Fault, ...] = ()

    def lines(self, home: str = "") -> list[str]:
        """Return it for a terminal; ``home`` are the words that name the home in another command."""
        now, other = self.pointer.current, self.pointer.other
        if now is None:
            told = [f"{self.line}: {'it is not known what is in use' if self.damage else 'nothing is installed'}"]
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
        return [*told, *(f"  damaged: {fault}" for fault in self.damage)]


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
        damage: files beside the lines' that are not what was written, and what to do.
    """

    home: str
    repository: str
    lines_held: tuple[LineState, ...]
    store_bytes: int
    rate: float | None
    newest_time: float
    enrolled: bool
    damage: tuple[Fault, ...] = ()

    @property
    def damaged(self) -> bool:
        """Whether any file is not what was written."""
        return bool(self.damage) or any(held.damage for held in self.lines_held)

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
        return [*told, *(f"damaged: {fault}" for fault in self.damage)]

    def data(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        found: dict[str, Any] = unstructure(self)
        found["lines"] = found.pop("lines_held")
        return found


def state(home: Home) -> State:
    """Return what a home holds; a file that is damaged is told, and keeps nothing else from being read.

    Raises:
        EnvironmentFault: a file of it cannot be read.
    """
    floor, damage = Floor(home.floor), _Damage()
    lowest = damage.but(floor.read, Lowest())
    none: bytes | None = None
    damage.but(lambda: root.read(home.root), none)
    with atomic.told(home.lines, "look for lines", atomic.HOME):
        folders = sorted(home.lines.iterdir()) if home.lines.is_dir() else []
        enrolled = home.device_key.exists()
    return State(
        home=str(home.folder),
        repository=damage.but(lambda: settings.read(home.settings), settings.Settings()).repository,
        lines_held=tuple(_line(Slots(folder), lowest, home) for folder in folders if LINE.fullmatch(folder.name)),
        store_bytes=Store(home.store).bytes(),
        rate=bandwidth.read(home.speeds).rate(),
        newest_time=lowest.time,
        enrolled=enrolled,
        damage=tuple(damage),
    )


class _Damage(list[Fault]):
    """Files that are damaged, as they are found."""

    def but(self, read: Callable[[], Record], instead: Record) -> Record:
        """Return what is read; ``instead`` where that is damaged."""
        try:
            return read()
        except Refused as error:
            self.append(Fault(error.where, f"{error.cause}; next: {error.next_step}"))
            return instead


def _line(slots: Slots, lowest: Lowest, home: Home) -> LineState:
    damage = _Damage()
    none: tuple[Bad, ...] = ()
    pointer = damage.but(slots.pointer, Pointer())
    crashed = Starts(slots.folder).crashed(pointer.current.sequence) if pointer.current is not None else 0
    bad, offered = damage.but(slots.quarantined, none), lowest.sequences.get(slots.folder.name, 0)
    setting = _setting(slots, home) if pointer.current is not None else ""
    damage.extend(_slots(slots))
    return LineState(slots.folder.name, pointer, bad, offered, crashed, setting, tuple(damage))


def _slots(slots: Slots) -> list[Fault]:
    """Return what is wrong with the files of both slots, and what to do; nothing where they cannot be read now."""
    newer = "where a newer release is offered: the one in use is the way back then"
    step, found = f"haversack client update {slots.folder.name}", []
    with contextlib.suppress(Refused, EnvironmentFault), slots.held() as (current, other):
        for installed, when in ((current, "fetches it again"), *([(other, newer)] if other is not None else [])):
            try:
                faults = whole.damage(slots, installed)
            except EnvironmentFault as error:
                found.append(Fault(error.where, f"{error.cause}; next: {error.next_step}"))
                continue
            for fault in faults:
                where = slots.path(installed) / fault.where
                found.append(Fault(str(where), f"{fault.cause}; next: {step}    ({when})"))
    return found


def _setting(slots: Slots, home: Home) -> str:
    """Return what was measured for what is in use; nothing where it was not, or cannot be read."""
    try:
        with slots.opening() as installed:
            chosen = tuning.remembered(home.folder, found(slots.path(installed), installed.target, verified=True))
    except HaversackError:
        return ""
    return str(chosen.setting) if chosen is not None else ""
