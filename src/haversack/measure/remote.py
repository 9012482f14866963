"""A machine that is not here: its worker gets our code and the artefacts over a connection, and measures there.

What the device must have is Python with NumPy and the runtimes; see ``needs``. Our own code and every file are brought,
named by their content, into ``~/.cache/haversack/device``, which never holds more than ``keeper.STORE_BYTES``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from haversack.base.errors import EnvironmentFault
from haversack.measure import needs
from haversack.measure.device import Opening
from haversack.measure.local import ENTRY, LocalDevice
from haversack.tools.worker import keeper
from haversack.tools.worker.far import PATIENCE, FarWorker
from haversack.tools.worker.faults import LinkLost
from haversack.tools.worker.link import Carrier, Link, Parcel
from haversack.tools.worker.process import DEFAULT_LIMITS, Limits, Worker

OURS = ("base", "tools", "targets", "measure")
"""The folders of haversack that a worker needs."""
BESIDE = "."
"""Between the name of a main file and what names another file of the same artefact (``model.onnx.data``)."""
_RETRY_SECONDS = 2.0


@dataclass(frozen=True)
class About:
    """What a device says of itself.

    Attributes:
        python: its version.
        executable: where that Python is.
        system, machine: as Python's ``platform`` tells them.
        cpuinfo, meminfo: the beginnings of Linux's listings, or empty.
        cores: of its processor.
        disk_bytes: free where files are kept.
        folder: where they are kept.
        packages: distribution -> version, empty where it is not installed.
    """

    python: tuple[int, ...]
    executable: str
    system: str
    machine: str
    cpuinfo: str
    meminfo: str
    cores: int
    disk_bytes: int
    folder: str
    packages: Mapping[str, str]

    @property
    def old(self) -> bool:
        """Whether its Python is too old for a worker."""
        return self.python[:2] < needs.LEAST_PYTHON


class RemoteDevice(LocalDevice):
    """A machine over a connection; a context manager.

    Args:
        carrier: how it is reached.
        installs: the command that adds distributions there, with ``{packages}`` in it.
        limits: of every worker on it.
        folders: whose modules travel there too.
        patience: waits before each attempt to reach it again when it was lost in a call.

    Raises:
        LinkLost: it cannot be reached, or has no Python.
        EnvironmentFault: what it says is not understood.
    """

    def __init__(
        self,
        carrier: Carrier,
        installs: str,
        *,
        limits: Limits = DEFAULT_LIMITS,
        folders: Sequence[Path] = (),
        patience: tuple[float, ...] = PATIENCE,
    ) -> None:
        super().__init__(limits=limits, folders=folders)
        self.name = carrier.name
        self._carrier = carrier
        self._installs = installs
        self._patience = patience
        self._guard = LocalDevice(limits=limits, folders=folders)
        self._code = Parcel(_code(folders))
        self.about = self._asked()

    @property
    def identity(self) -> tuple[str, ...]:
        """What measurements are filed under: the device as it is now, with its runtimes."""
        about = self.about
        processor = sorted({line for line in about.cpuinfo.splitlines() if line.startswith(_TELLING)})
        versions = [f"{name} {found}" for name, found in sorted(about.packages.items()) if found]
        return (self.name, about.system, about.machine, str(about.cores), *processor, *versions)

    def lacks(self, target: str, *, looking: bool = False) -> str:
        """Say why no file of a target can be opened there, or nothing.

        Args:
            target: by its name on the shelf.
            looking: whether its files are looked into there as well, as packing does.
        """
        if self.about.old:
            found = ".".join(map(str, self.about.python))
            least = ".".join(map(str, needs.LEAST_PYTHON))
            return f"{self.name} has Python {found} ({self.about.executable}), and a worker needs {least} or later"
        missing = [name for name in needs.of(target, looking=looking) if not self.about.packages.get(name, "?")]
        if not missing:
            return ""
        return f"{self.name} has no {', '.join(missing)}, which {target} needs there; {self.command(tuple(missing))}"

    def command(self, packages: tuple[str, ...]) -> str:
        """Return the command that adds distributions there."""
        return self._installs.format(packages=needs.pinned(packages))

    def opens(self, opening: Opening) -> None:
        """Open an artefact that was just written in a child here, where it is opened next, and close it.

        Raises:
            WorkerError, WorkerCrashed, WorkerTimeout: as there.
        """
        self._guard.opens(opening)

    def close(self) -> None:
        """End the worker there. Safe to call twice."""
        super().close()
        self._guard.close()

    def _header(self, worker: Worker, opening: Opening) -> dict[str, Any]:
        assert isinstance(worker, FarWorker)
        folder = worker.place(Parcel(_artefact(opening.path)))
        return replace(opening, path=Path(folder) / opening.path.name).header()

    def _begun(self) -> Worker:
        try:
            return self._started()
        except LinkLost:  # a line may be bad for a moment
            time.sleep(_RETRY_SECONDS)
            return self._started()

    def _started(self) -> Worker:
        return FarWorker.on(self._carrier, ENTRY, self._code, limits=self._limits, patience=self._patience)

    def _asked(self) -> About:
        with Link(self._carrier, self._limits.start_seconds) as link:
            try:
                told = link.ask({"ask": "about", "packages": list(needs.every())})
            except OSError as error:
                raise EnvironmentFault(str(error), where="--device") from error
        if told["version"] != keeper.VERSION:
            raise EnvironmentFault(f"{self.name} speaks version {told['version']}, not {keeper.VERSION}")
        fields = {name: told[name] for name in About.__dataclass_fields__}
        return About(**{**fields, "python": tuple(told["python"])})


_TRAVEL = ("*.py", "*.dist-info/METADATA", "*.dist-info/entry_points.txt")
_TELLING = ("model name", "flags", "Features", "CPU implementer", "CPU part", "CPU variant", "CPU revision", "Model")


def _code(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the modules that a worker needs, by their names below one folder."""
    root = Path(__file__).resolve().parents[1]
    paths = [root / "__init__.py", *(path for name in OURS for path in (root / name).rglob("*.py"))]
    found = {path.relative_to(root.parent).as_posix(): path for path in paths}
    more = [(each, path) for each in folders for pattern in _TRAVEL for path in each.rglob(pattern)]
    return found | {path.relative_to(each).as_posix(): path for each, path in more}


def _artefact(path: Path) -> dict[str, Path]:
    """Return the files of an artefact by name: the main file, and those beside it whose names begin with its name."""
    beside = [other for other in path.parent.glob(f"{path.name}{BESIDE}*") if other.is_file()]
    return {one.name: one for one in (path, *sorted(beside))}
