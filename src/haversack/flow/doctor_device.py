"""``haversack doctor --device``: what a device is, what it lacks for each target, and what adds it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haversack.base.errors import HaversackError
from haversack.flow.doctor import LIMITS, written
from haversack.measure import devices, needs
from haversack.measure.device import Opening
from haversack.measure.local import LocalDevice
from haversack.measure.remote import About, RemoteDevice
from haversack.targets.contract import SHELF as TARGETS

NOTHING = "it opened and ran a file there"


@dataclass(frozen=True)
class Seen:
    """What one target can do on a device.

    Attributes:
        name: of the target.
        lacks: why it cannot run there, or empty.
        looks: why packing cannot look into its files there, or empty.
        cause: what a file of one operation did there instead of giving its values, or empty.
        versions: distribution -> (there, here), of those that differ.
    """

    name: str
    lacks: str = ""
    looks: str = ""
    cause: str = ""
    versions: Mapping[str, tuple[str, str]] | None = None

    @property
    def works(self) -> bool:
        """Whether its files run there."""
        return not (self.lacks or self.cause)

    def lines(self) -> list[str]:
        """Return it for a terminal."""
        lines = [f"target {self.name}: {self.lacks or self.cause or NOTHING}"]
        if self.works and self.looks:
            lines.append(f"  verify works; pack does not: {self.looks}")
        for name, (there, here) in (self.versions or {}).items():
            lines.append(f"  {name} {there} there, {here} here: files are verified with what runs them")
        return lines


@dataclass(frozen=True)
class DeviceExamination:
    """What was found on a device; ``about`` is None where it is this machine or an emulated one."""

    device: str
    about: About | None
    targets: tuple[Seen, ...]

    @property
    def healthy(self) -> bool:
        """Whether the files of some target run there."""
        return any(one.works for one in self.targets)

    def lines(self) -> list[str]:
        """Return it for a terminal."""
        lines = [f"device {self.device}"]
        if self.about is not None:
            python = ".".join(map(str, self.about.python))
            disk = f"{self.about.disk_bytes / 1e9:.1f} GB free in {self.about.folder}"
            lines.append(f"Python {python} ({self.about.executable}), {self.about.system} {self.about.machine}, {disk}")
        lines += [line for one in self.targets for line in one.lines()]
        return [*lines, "it can be used" if self.healthy else "nothing can run there yet: see above for what adds it"]

    def data(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        about = self.about
        known = {} if about is None else {name: getattr(about, name) for name in _TOLD}
        targets = [
            {"name": one.name, "works": one.works, "lacks": one.lacks, "looks": one.looks, "cause": one.cause}
            for one in self.targets
        ]
        return {"device": self.device, "healthy": self.healthy, "about": known, "targets": targets}


_TOLD = ("python", "executable", "system", "machine", "cores", "disk_bytes", "folder", "packages")


def examine(name: str) -> DeviceExamination:
    """Look at a device, and run a file of one operation of each target on it.

    Raises:
        UsageError: there is no such device.
        EnvironmentFault: it cannot be reached.
    """
    with devices.opened(name, LIMITS) as device:
        about = device.about if isinstance(device, RemoteDevice) else None
        return DeviceExamination(name, about, tuple(_seen(device, about)))


def _seen(device: LocalDevice, about: About | None) -> Iterable[Seen]:
    for name in TARGETS.names():
        if not TARGETS.type_of(name).runs_here:
            continue
        lacks = device.lacks(name)
        looks = device.lacks(name, looking=True)
        yield Seen(name, lacks, "" if lacks else looks, "" if lacks else _tried(device, name), _other(about, name))


def _other(about: About | None, name: str) -> dict[str, tuple[str, str]]:
    there = {} if about is None else about.packages
    pairs = {one: (there.get(one, ""), needs.here(one)) for one in needs.RUNS.get(name, ())}
    return {one: (far, near) for one, (far, near) in pairs.items() if far and near and far.partition("+")[0] != near}


def _tried(device: LocalDevice, name: str) -> str:
    try:
        with tempfile.TemporaryDirectory(prefix="haversack-doctor-") as folder:
            artifact, values, wanted = written(TARGETS.build(name), Path(folder))
            handle = device.load(Opening(Path(folder) / artifact.files[0].path, name, artifact.session_options))
            found = device.run(handle, {artifact.inputs[0].name: values})[artifact.outputs[0].name]
            device.unload(handle)
    except (HaversackError, ImportError, OSError) as error:
        first = str(error).partition("\n")[0]
        return first if isinstance(error, HaversackError) else f"{type(error).__name__}: {first}"
    return "" if found.tobytes() == wanted.tobytes() else "it runs a file and gives wrong values"
