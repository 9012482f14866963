"""Processors that are not here: artefacts live in a child process under qemu-user.

Only outputs are told. An emulator's times and memory say nothing of the processor it plays, so they are refused.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from haversack.base.errors import EnvironmentFault, UsageError
from haversack.base.shelf import nearest
from haversack.measure.device import Handle, Opening, Start, Times
from haversack.measure.local import LocalDevice
from haversack.tools.worker.process import DEFAULT_LIMITS, Limits

SLOWER = 30.0
"""How much longer every limit is: qemu-user translates each instruction (30 to 100 times slower was seen)."""
COMMAND = "make system-arm64"
RUNTIMES = ("onnxruntime", "litert")
"""Targets whose runtimes are in the ARM64 folder; one that needs torch can never be."""
_STALE = ("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONHOME")


@dataclass(frozen=True)
class Processor:
    """One that qemu-user plays.

    Attributes:
        machine: as Python's ``platform.machine()`` spells it.
        model: as qemu spells it.
        identity: implementer, variant, part and revision, as Linux tells them of ARM; runtimes choose kernels by them.
        features: as Linux tells them of ARM.
        lacks: how features begin that an x86 processor here may have and this one has not.
    """

    machine: str
    model: str
    identity: tuple[int, int, int, int] = (0, 0, 0, 0)
    features: str = ""
    lacks: tuple[str, ...] = ()

    @property
    def emulator(self) -> str:
        """The name of qemu's program."""
        return f"qemu-{self.machine}"

    def listing(self) -> str:
        """Return ``/proc/cpuinfo``: runtimes and we read it, and ONNX Runtime for ARM does not survive an x86 one."""
        if self.lacks:
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
            return "".join(f"{self._without(line)}\n" for line in lines)
        implementer, variant, part, revision = self.identity
        return (
            f"processor\t: 0\nBogoMIPS\t: 100.00\nFeatures\t: {self.features}\nCPU implementer\t: {implementer:#x}\n"
            f"CPU architecture: 8\nCPU variant\t: {variant:#x}\nCPU part\t: {part:#05x}\nCPU revision\t: {revision}\n\n"
        )

    def _without(self, line: str) -> str:
        """Return a line of this machine's listing without the features that the processor lacks."""
        name, colon, words = line.partition(":")
        if name.strip() != "flags":
            return line
        return f"{name}{colon} {' '.join(word for word in words.split() if not word.startswith(self.lacks))}"


_V8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_V82 = f"{_V8} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
# No "max": its SME gives other values than any processor that we know (LiteRT under qemu 7.2; right with sme=off).
PROCESSORS: Mapping[str, Processor] = {
    "cortex-a53": Processor("aarch64", "cortex-a53", (0x41, 0, 0xD03, 4), _V8),
    "cortex-a72": Processor("aarch64", "cortex-a72", (0x41, 0, 0xD08, 3), _V8),
    "cortex-a76": Processor("aarch64", "cortex-a76", (0x41, 4, 0xD0B, 1), _V82),
    "neoverse-n1": Processor("aarch64", "neoverse-n1", (0x41, 4, 0xD0C, 1), _V82),
    "nehalem": Processor("x86_64", "Nehalem", lacks=("avx", "amx", "fma", "f16c")),
    "haswell": Processor("x86_64", "Haswell", lacks=("avx512", "avx_vnni", "amx")),
}


class EmulatedDevice(LocalDevice):
    """One processor under qemu-user; a context manager. It runs artefacts, and measures nothing.

    ARM64 needs the folder that ``make system-arm64`` makes; x86 runs our own Python.

    Args:
        name: of ``PROCESSORS``.
        limits: of a child on this machine; those here are ``SLOWER`` times longer.

    Raises:
        UsageError: no such processor is known.
        EnvironmentFault: qemu-user or the folder is missing.
    """

    def __init__(self, name: str, *, limits: Limits = DEFAULT_LIMITS) -> None:
        processor = PROCESSORS.get(name)
        if processor is None:
            raise UsageError(
                f"no processor {name!r} is known{nearest(name, PROCESSORS)}",
                where="--device",
                next_step=f"one of {', '.join(PROCESSORS)}",
            )
        emulator = shutil.which(processor.emulator)
        if emulator is None:
            raise EnvironmentFault(f"{processor.emulator} is not installed", next_step=f"{COMMAND}, or {_BY_HAND}")
        self.name = f"qemu:{name}"
        self._processor = processor
        self._root: tempfile.TemporaryDirectory[str] | None = None
        python, env, folders = self._started(emulator)
        slower = replace(limits, call_seconds=limits.call_seconds * SLOWER, start_seconds=limits.start_seconds * SLOWER)
        super().__init__(limits=slower, env=env, folders=folders, python=python)

    def _started(self, emulator: str) -> tuple[list[str], dict[str, str], list[Path]]:
        """Return the command that starts Python, variables, and folders with modules."""
        command = [emulator, "-cpu", self._processor.model]
        if self._processor.machine == "x86_64":
            return [*command, "-L", self._overlay(), sys.executable], {}, []
        home = sysroot()
        fault = missing()
        if fault:
            raise EnvironmentFault(fault, where=str(home), next_step=COMMAND)
        overlay = self._overlay(home / "root")
        for variable in _STALE:
            command += ["-U", variable]
        python = home / "root" / "usr" / "bin" / "python3.11"
        env = {"PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}
        return [*command, "-L", overlay, str(python)], env, [home / "site"]

    def _overlay(self, system: Path | None = None) -> str:
        """Return a folder that is the system, or stands before this one's, and tells which processor it stands on."""
        self._root = tempfile.TemporaryDirectory(prefix="haversack-qemu-")
        folder = Path(self._root.name)
        for path in system.iterdir() if system is not None else ():
            (folder / path.name).symlink_to(path.resolve(), target_is_directory=True)
        (folder / "proc").mkdir()
        (folder / "proc" / "cpuinfo").write_text(self._processor.listing(), encoding="utf-8")
        return self._root.name

    def lacks(self, target: str, *, looking: bool = False) -> str:
        """Say why no file of a target can be opened here, or nothing."""
        del looking
        if self._processor.machine == "x86_64" or ":" in target or target in RUNTIMES:
            return ""
        there = " and ".join(RUNTIMES)
        return (
            f"{target} does not run on {self.name}: what is there for ARM64 has no torch, and only the runtimes {there}"
        )

    def time(
        self,
        handles: Sequence[Handle],
        inputs: Mapping[str, np.ndarray],
        *,
        rounds: int,
        warmup: int = 0,
        seconds: float = 60.0,
    ) -> Times:
        """Refuse: see the module. Arguments and shapes as ``LocalDevice.time``.

        Raises:
            UsageError: always.
        """
        self._refuse(handles, inputs, rounds, warmup, seconds)

    def start(self, opening: Opening, inputs: Mapping[str, np.ndarray], *, calls: int = 3) -> Start:
        """Refuse: see the module. Arguments and shapes as ``LocalDevice.start``.

        Raises:
            UsageError: always.
        """
        self._refuse(opening, inputs, calls)

    def import_peak(self, target: str, inputs: Mapping[str, np.ndarray]) -> int:
        """Refuse: see the module. Arguments and shapes as ``LocalDevice.import_peak``.

        Raises:
            UsageError: always.
        """
        self._refuse(target, inputs)

    def _refuse(self, *_: object) -> NoReturn:
        raise UsageError(
            f"{self.name} is emulated: its times and its memory are not those of the processor",
            next_step="measure with --device local",
        )

    def close(self) -> None:
        """End the child, and remove what was made for it. Safe to call twice."""
        super().close()
        if self._root is not None:
            self._root.cleanup()


_BY_HAND = "as root apt-get install qemu-user"


def sysroot() -> Path:
    """Return the folder with ARM64's Python and runtimes, there or not: ``$HAVERSACK_SYSROOT`` or one in the cache."""
    told = os.environ.get("HAVERSACK_SYSROOT")
    return Path(told) if told else Path.home() / ".cache" / "haversack" / "arm64"


def missing() -> str:
    """Say what ARM64 lacks here to be emulated, or nothing."""
    if not (sysroot() / "stamp").is_file():
        return "there is no ARM64 system here to run Python in"
    return "" if shutil.which("qemu-aarch64") else "qemu-aarch64 is not installed"
