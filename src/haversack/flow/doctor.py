"""``haversack doctor``: what is installed, what this machine can do, and whether each target really runs here."""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from haversack.base.candidate import Artifact
from haversack.base.counted import counted
from haversack.base.encodings import Encodings
from haversack.base.errors import HaversackError, MissingExtra
from haversack.base.job import Job
from haversack.flow.requirements import CORE, Package, commands, packages
from haversack.flow.room import left
from haversack.lower.emit import emit
from haversack.measure import emulated
from haversack.measure.device import Opening
from haversack.measure.local import LocalDevice
from haversack.report import facts
from haversack.report.record import Environment
from haversack.targets.contract import SHELF as TARGETS
from haversack.targets.contract import Target
from haversack.tools.worker.process import Limits

PYTHONS = ((3, 11), (3, 13))
NEEDED = (CORE, "pack")
"""The extras without which the command line cannot pack."""
LIMITS = Limits(call_seconds=30.0, start_seconds=30.0)
LEAST_DISK, LEAST_MEMORY = 1 << 30, 1 << 30
"""Bytes below which a run is likely to fail: told, but not a fault."""
_X86 = ("x86_64", "AMD64", "i686")
_VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}


@dataclass(frozen=True)
class Opened:
    """What one target can do here.

    Attributes:
        name: of the target.
        precisions: what its layers can be.
        runs_here: whether its files run on this machine.
        cause: why it does not work; empty when a file was made, opened in a process and gave its values.
        unverified: packages whose version was not verified: encodings are refused with it. A warning.
        add: the command that adds its runtime, where that is of an extra which packing does not need: told, no fault.
    """

    name: str
    precisions: tuple[str, ...]
    runs_here: bool
    cause: str
    unverified: tuple[str, ...] = ()
    add: str = ""

    @property
    def works(self) -> bool:
        """Whether it does what it says it can do here."""
        return not self.cause


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
        machine: Python, system, processor and its flags.
        kernels: what the flags mean for int8.
        packages: every requirement of every extra.
        targets: what each can do here.
        worker: why no worker starts, or empty.
        disk_bytes: free in the current folder.
        memory_bytes: available, or None where the system does not tell.
        arm64: what is missing to verify on an emulated ARM64 processor, or empty.
    """

    machine: Environment
    kernels: str
    packages: tuple[Package, ...]
    targets: tuple[Opened, ...]
    worker: str
    disk_bytes: int
    memory_bytes: int | None
    arm64: str = ""

    @property
    def healthy(self) -> bool:
        """Whether everything that packing needs works."""
        return not self.faults()

    def faults(self) -> list[str]:
        """Return what is needed and broken, one line each."""
        faults = []
        if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
            faults.append(f"Python {self.machine.python} is not one of 3.11 to 3.13")
        if not self.packages:
            faults.append("haversack is not installed, and its pyproject.toml is not beside it")
        faults += [
            f"{one.name} ({one.extra}): {one.state}, wanted {one.wanted or 'any'}"
            for one in self.packages
            if one.extra in NEEDED and one.state != "installed"
        ]
        faults += [f"workers: {self.worker}"] if self.worker else []
        return faults + [f"{one.name}: {one.cause}" for one in self.targets if one.cause and not one.add]

    def lines(self) -> list[str]:
        """Return it for a terminal."""
        machine = self.machine
        memory = "not told" if self.memory_bytes is None else f"{self.memory_bytes / 1e9:.1f} GB"
        disk = f"{self.disk_bytes / 1e9:.1f} GB{_little(self.disk_bytes, LEAST_DISK)}"
        cores = counted(machine.cores, "core")
        lines = [
            f"Python {machine.python}, {machine.os}",
            f"processor: {machine.cpu}, {cores}, {' '.join(machine.cpu_flags) or 'no int8 flags'}",
            f"  {self.kernels}",
            f"free here: disk {disk}, memory {memory}{_little(self.memory_bytes, LEAST_MEMORY)}",
            f"workers: {self.worker or 'a process behind a pipe starts and answers'}",
            f"ARM64 by emulation: {f'{self.arm64}; {emulated.COMMAND}' if self.arm64 else 'verify --device qemu:CPU'}",
        ]
        lines += [line for extra in dict.fromkeys(one.extra for one in self.packages) for line in self._extra(extra)]
        for one in self.targets:
            where = "opened and ran a file here" if one.runs_here else "export only: its files do not run here"
            lines.append(f"target {one.name}: {one.cause or where}; {', '.join(one.precisions)}")
            lines += [f"  {one.add}"] if one.add else []
            lines += [f"  warning: {told}; only float files are written with it" for told in one.unverified]
        faults = self.faults()
        lines.append("everything that packing needs works" if not faults else f"{len(faults)} broken:")
        return [*lines, *(f"  - {fault}" for fault in faults), *self._commands(faults)]

    def data(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return {
            "healthy": self.healthy,
            "faults": self.faults(),
            "machine": asdict(self.machine),
            "kernels": self.kernels,
            "packages": [{**asdict(one), "state": one.state} for one in self.packages],
            "targets": [{**asdict(one), "works": one.works} for one in self.targets],
            "worker": self.worker,
            "arm64": self.arm64,
            "disk_bytes": self.disk_bytes,
            "memory_bytes": self.memory_bytes,
            "commands": dict(commands(self.packages)),
        }

    def _extra(self, extra: str) -> list[str]:
        mine = [one for one in self.packages if one.extra == extra]
        right = ", ".join(f"{one.name} {one.found}" for one in mine if one.state == "installed")
        lines = [f"{extra}: {right or 'nothing installed'}"]
        for one in mine:
            if one.state != "installed":
                found = f" {one.found}" if one.found else ""
                lines.append(f"  {one.state}: {one.name}{found} (wanted {one.wanted or 'any'})")
        return lines + [f"  {command}" for command in commands(mine).values()]

    def _commands(self, faults: list[str]) -> list[str]:
        wrong = commands([one for one in self.packages if one.extra in NEEDED])
        return [f"next: {command}" for command in wrong.values()] if faults else []


def examine() -> Examination:
    """Look at everything; what does not work is told, never raised."""
    machine = facts.of_machine()
    return Examination(
        machine=machine,
        kernels=kernels(machine),
        packages=packages(),
        targets=tuple(opened(name) for name in TARGETS.names()),
        worker=_worker(),
        disk_bytes=shutil.disk_usage(Path.cwd()).free,
        memory_bytes=room.bytes if (room := left()) else None,
        arm64=emulated.missing(),
    )


def kernels(machine: Environment) -> str:
    """Say what the processor's flags mean for int8."""
    flags = set(machine.cpu_flags)
    if machine.os.endswith(_X86):
        if flags & _VNNI:
            return "VNNI: int8 kernels sum products in 32 bits, exact and fastest"
        if "avx2" in flags:
            return (
                "AVX2 without VNNI: int8 kernels sum pairs in 16 bits and may saturate; files made here set the "
                "session option that keeps them exact"
            )
        return "x86 without AVX2: int8 kernels are slow here; trust measured latency only"
    if flags & {"i8mm", "asimddp"}:
        return "ARM with dot products: int8 kernels sum products in 32 bits, exact and fast"
    return "no flag for int8 is known of this processor; trust measured latency only"


def opened(name: str) -> Opened:
    """Make a file of one operation for a target, open it in a process of its own, and compare what it gives."""
    target: Target = TARGETS.build(name)
    precisions = tuple(target.precisions)
    cause = add = ""
    try:
        with tempfile.TemporaryDirectory(prefix="haversack-doctor-") as folder:
            cause = _tried(target, name, Path(folder))
    except (HaversackError, ImportError, OSError) as error:
        first = str(error).partition("\n")[0]
        cause = first if isinstance(error, HaversackError) else f"{type(error).__name__}: {first}"
        add = error.next_step if isinstance(error, MissingExtra) and error.extra not in NEEDED else ""
    return Opened(name, precisions, target.runs_here, cause, tuple(str(one) for one in target.unverified()), add)


def written(target: Target, folder: Path) -> tuple[Artifact, np.ndarray, np.ndarray]:
    """Write a file of one operation, and return it with an input and the output of it, float32 [2, 4] both.

    Raises:
        HaversackError: the target cannot.
        ImportError: something that it needs is not installed.
    """
    from torch import nn

    from haversack import load

    values = np.linspace(-1.0, 1.0, 8, dtype=np.float32).reshape(2, 4)
    job = Job("doctor", model=lambda: nn.ReLU().eval(), calibration=lambda: [(values,)], evaluation=list, metric="")
    return emit(load.export(job), Encodings.none(), target, folder), values, np.maximum(values, 0)


def _tried(target: Target, name: str, folder: Path) -> str:
    artifact, values, wanted = written(target, folder)
    if not target.runs_here:
        return ""
    with LocalDevice(limits=LIMITS) as device:
        handle = device.load(Opening(folder / artifact.files[0].path, name, artifact.session_options))
        found = device.run(handle, {artifact.inputs[0].name: values})[artifact.outputs[0].name]
    return "" if np.array_equal(found, wanted) else "it runs a file and gives wrong values"


def _worker() -> str:
    from haversack.tools.worker.process import Worker

    try:
        with Worker.start("haversack.measure.sessions:methods", limits=LIMITS):
            return ""
    except (HaversackError, OSError) as error:
        return str(error).partition("\n")[0]


def _little(found: int | None, least: int) -> str:
    return " (little)" if found is not None and found < least else ""
