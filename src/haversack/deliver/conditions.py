"""What a device tells of itself before an update: an unmetered line, mains power, idle, room; unknown is an answer."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from haversack.base.errors import Fault, UsageError

WORDS = {
    "unmetered": "the network may cost money for each byte",
    "charging": "it runs on its battery",
    "idle": "it is busy",
}
"""What may be demanded -> what is wrong where it does not hold."""
_METERED = {1: False, 2: True, 3: False, 4: True}
"""NetworkManager's NMMetered -> whether the line is unmetered; 3 and 4 are its guesses, 0 says unknown."""
_MOBILE = ("wwan", "ppp", "rmnet", "usb")
"""How interfaces are called behind which there mostly is a mobile network, or a telephone."""
_ASK_SECONDS = 5.0


@dataclass(frozen=True)
class Readings:
    """What holds now; None where it is not known.

    Attributes:
        unmetered: bytes on the way to the internet cost nothing.
        charging: it draws from mains, or from anything but its battery.
        idle: little else runs.
        free_bytes: room on the disk of the device's home.
    """

    unmetered: bool | None = None
    charging: bool | None = None
    idle: bool | None = None
    free_bytes: int | None = None


class Conditions(Protocol):
    """Something that reads a device."""

    def read(self, home: Path) -> Readings:
        """Return what holds now, for a home on this device."""


def unmet(readings: Readings, wanted: Sequence[str]) -> tuple[Fault, ...]:
    """Return a fault for every condition that is wanted and does not hold, or is not known.

    Raises:
        UsageError: there is no such condition.
    """
    stray = [word for word in wanted if word not in WORDS]
    if stray:
        raise UsageError(f"there is no condition {', '.join(stray)}", where="--when", next_step=", ".join(WORDS))
    faults = []
    for word in wanted:
        held = getattr(readings, word)
        if held is None:
            faults.append(Fault(word, "this device does not tell; leave it out where it does not matter"))
        elif not held:
            faults.append(Fault(word, WORDS[word]))
    return tuple(faults)


@dataclass(frozen=True)
class Linux:
    """Readings of a Linux machine, each from the first place that tells.

    Attributes:
        system: the folder of sysfs.
        processes: the folder of procfs.
        ask: whether programs may be asked (``busctl``, for NetworkManager).
        least_busy: load of the last minute for each processor, below which it is idle.
    """

    system: Path = Path("/sys")
    processes: Path = Path("/proc")
    ask: bool = True
    least_busy: float = 0.5

    def read(self, home: Path) -> Readings:
        """Return what holds now; ``home`` need not be there yet."""
        return Readings(self._unmetered(), self._charging(), self._idle(), _free(home))

    def _unmetered(self) -> bool | None:
        told = _network_manager() if self.ask else None
        if told is not None:
            return told
        names = self._interfaces()
        mobile = [name for name in names if name.startswith(_MOBILE) or self._is_mobile(name)]
        return False if mobile else None

    def _interfaces(self) -> list[str]:
        """Return the interfaces with a default route: destination 0 in /proc/net/route."""
        lines = _lines(self.processes / "net" / "route")[1:]
        fields = [line.split() for line in lines]
        return [field[0] for field in fields if len(field) > 1 and field[1] == "00000000"]

    def _is_mobile(self, name: str) -> bool:
        return "DEVTYPE=wwan" in _lines(self.system / "class" / "net" / name / "uevent")

    def _charging(self) -> bool | None:
        """Say whether it draws from mains, as systemd does: no battery that discharges is mains.

        Source: systemd, ``ConditionACPower=`` (src/shared/battery-util.c).
        """
        folder = self.system / "class" / "power_supply"
        if not folder.is_dir():
            return None
        discharging = False
        for supply in sorted(folder.iterdir()):
            kind = _word(supply / "type")
            if _word(supply / "scope") == "Device":  # of a mouse, not of this machine
                continue
            if kind == "Battery":
                discharging = discharging or _word(supply / "status") == "Discharging"
            elif _word(supply / "online") in {"1", "2"}:
                return True
        return not discharging

    def _idle(self) -> bool | None:
        words = (_lines(self.processes / "loadavg") or [""])[0].split()
        try:
            return float(words[0]) < self.least_busy * (os.cpu_count() or 1)
        except (IndexError, ValueError):
            return None


def _network_manager() -> bool | None:
    """Ask NetworkManager over D-Bus whether its primary connection is metered."""
    name = "org.freedesktop.NetworkManager"
    command = ["busctl", "--system", "--timeout=3", "get-property", name, f"/{name.replace('.', '/')}", name, "Metered"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_SECONDS, check=False)
        kind, number = done.stdout.split()
        return _METERED.get(int(number)) if kind == "u" else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def _free(home: Path) -> int | None:
    folder = home.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _word(path: Path) -> str:
    return (_lines(path) or [""])[0].strip()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
