"""A device: where artefacts are opened, run and timed. It may crash; what it holds is named by handles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from haversack.base.candidate import Artifact
from haversack.base.errors import EnvironmentFault
from haversack.base.model import Sample

LAYER_RUNS = 20
"""Calls over which layers are timed, where nothing else is said."""


class NotThere(EnvironmentFault):
    """The device has no runtime of a target: nothing was tried, and nothing is said of the artefact."""


@dataclass(frozen=True)
class Opening:
    """How an artefact is opened.

    Attributes:
        path: its main file.
        target: the runtime's name on the shelf, or ``module:attribute`` of an object that opens sessions.
        options: session options.
        threads: of one call.
    """

    path: Path
    target: str
    options: Mapping[str, str] = field(default_factory=dict, hash=False)
    threads: int = 1

    def header(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        options = dict(self.options)
        return {"path": str(self.path), "target": self.target, "options": options, "threads": self.threads}


@dataclass(frozen=True)
class Handle:
    """An artefact that a device has opened."""

    number: int
    opening: Opening


@dataclass(frozen=True, eq=False)
class Times:
    """Interleaved calls: ``wall`` and ``cpu`` are int64 [rounds, handles], nanoseconds."""

    wall: np.ndarray
    cpu: np.ndarray


@dataclass(frozen=True)
class Start:
    """One start in a fresh process whose runtime was already imported.

    Attributes:
        load_ms, first_ms: opening the file, and the first call.
        peak_bytes: peak resident memory of the process after some more calls.
        private_bytes: resident memory that no file backs after these calls, less what it was before opening; -1 where
            the device does not tell.
    """

    load_ms: float
    first_ms: float
    peak_bytes: int
    private_bytes: int = -1


class Device(Protocol):
    """What measuring needs of a device; every call raises a ``WorkerFault`` when the runtime fails, dies or hangs."""

    @property
    def name(self) -> str:
        """The device's name in reports."""

    @property
    def identity(self) -> tuple[str, ...]:
        """What measurements are filed under: they hold for this device only."""

    def load(self, opening: Opening) -> Handle:
        """Open an artefact."""

    def opens(self, opening: Opening) -> None:
        """Open an artefact that was just written and close it, before anybody opens it outside of a child."""

    def run(self, handle: Handle, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by name for inputs by name; shapes and dtypes as the artefact has them."""

    def time(
        self,
        handles: Sequence[Handle],
        inputs: Mapping[str, np.ndarray],
        *,
        rounds: int,
        warmup: int = 0,
        seconds: float = 60.0,
    ) -> Times:
        """Call all handles by turns on one sample, inputs by name with shapes and dtypes as the artefacts have them.

        ``warmup`` calls of each come before the clock runs; no further round begins after ``seconds``.
        """

    def start(self, opening: Opening, inputs: Mapping[str, np.ndarray], *, calls: int = 3) -> Start:
        """Open an artefact in a fresh process and call it on one sample, shapes and dtypes as it has them."""

    def import_peak(self, target: str, inputs: Mapping[str, np.ndarray]) -> int:
        """Return the peak resident bytes of a fresh process that imports the runtime and gets the same inputs."""

    def unfused(self, opening: Opening, artifact: Artifact) -> tuple[str, ...]:
        """Return the node keys of layers that were written for integers and that the runtime computes in float."""

    def layer_seconds(
        self, opening: Opening, artifact: Artifact, inputs: Sample, runs: int = LAYER_RUNS
    ) -> dict[str, float]:
        """Return node key -> median seconds of its kernels in one call on a batch, over so many calls."""

    def tensors(
        self, opening: Opening, artifact: Artifact, inputs: Sample, keys: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Return tensor key -> its array on a batch: codes where it is encoded, else float32; those that are shown."""

    def unload(self, handle: Handle) -> None:
        """Close an artefact; a handle that is not open is left alone."""
