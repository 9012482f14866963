"""The float artefact of a target: written, opened and run once before anything rests on it.

A runtime that refuses its own float file, crashes on it twice or hangs on it costs its target, and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from haversack.base.candidate import Artifact, Candidate
from haversack.base.encodings import Encodings
from haversack.base.errors import ConversionError, Fault, HaversackError, VerificationError
from haversack.base.finding import Finding
from haversack.base.model import Model, Sample
from haversack.base.plan import Plan
from haversack.base.progress import Event
from haversack.base.recipe import structure, unstructure
from haversack.flow.kept import intact
from haversack.flow.making import FloatFile
from haversack.flow.running import Running
from haversack.flow.workshop import Workshop
from haversack.lower.emit import emit
from haversack.measure.device import Device, Opening
from haversack.targets.contract import Target, opened_first
from haversack.tools.worker.again import twice
from haversack.tools.worker.faults import WorkerCrashed, WorkerError, WorkerFault, WorkerTimeout


@dataclass(frozen=True)
class FloatMaker:
    """Makes the float artefacts of a run.

    Attributes:
        shop: the run's folder and ledger.
        model: the float model.
        device: runs the files.
        sample: gives one batch, arrays in the order of the model's inputs; not called for a file that is known.
        content: what decides every result of the run.
    """

    shop: Workshop
    model: Model
    device: Device
    sample: Callable[[], Sample]
    content: Sequence[str]

    def of(self, targets: Mapping[str, Target]) -> tuple[dict[str, FloatFile], dict[str, HaversackError]]:
        """Return target -> its float artefact, which its runtime has run once; and for the others why it has not.

        Raises:
            ConversionError: no target runs its file.
        """
        found: dict[str, FloatFile] = {}
        failed: dict[str, HaversackError] = {}
        for name, target in targets.items():
            try:
                found[name] = self._remembered(name, target)
            except (ConversionError, VerificationError, WorkerFault) as error:
                failed[name] = error
                self.shop.tell(Event("lower", "note", f"{name} does not run its float file: {error.cause}"))
        if not found:
            raise refusal(self.model, failed)
        return found, failed

    def _remembered(self, name: str, target: Target) -> FloatFile:
        folder = self.shop.inside / "float" / name

        def load_back(data: Mapping[str, Any], _: Mapping[str, np.ndarray]) -> FloatFile | None:
            artifact = structure(data["artifact"], Artifact, where="ledger")
            return FloatFile(folder, artifact) if intact(folder, artifact) else None

        return self.shop.remember(
            "lower",
            f"float file for {name}",
            self.content,
            lambda: self._made(name, target, folder),
            save=lambda made: ({"artifact": unstructure(made.artifact)}, {}),
            load=load_back,
        )

    def _made(self, name: str, target: Target, folder: Path) -> FloatFile:
        def opens(path: Path, options: Mapping[str, str], threads: int) -> None:
            with suppress(WorkerError):  # what the runtime refuses, the target tells better when it opens the file
                twice(lambda: self.device.opens(Opening(path, name, options, threads)), self._once_more)

        self.shop.tell(Event("lower", "start", f"writing the float file for {name}"))
        with opened_first(opens):
            made = FloatFile(folder, emit(self.model, Encodings.none(), target, folder))
        if target.runs_here:
            self.shop.tell(Event("lower", "start", f"opening the float file in {name} and running it once"))
            twice(lambda: self._run(made), self._once_more)
        return made

    def _run(self, made: FloatFile) -> None:
        handle = self.device.load(made.opening)
        try:
            Running(self.device, handle, made.artifact, self.model.outputs)(_least(self.model, self.sample()))
        finally:
            self.device.unload(handle)

    def _once_more(self, death: WorkerCrashed) -> None:
        self.shop.tell(Event("lower", "note", f"{death.cause}; once more in a fresh process"))


def _least(model: Model, sample: Sample) -> Sample:
    """Return one row of a batch, or all of it where the model's batch is fixed."""
    free = all(port.spec.shape and isinstance(port.spec.shape[0], str) for port in model.inputs)
    return tuple(array[:1] for array in sample) if free else sample


def lost(name: str, error: HaversackError) -> Candidate:
    """Return the candidate that stands for a target whose runtime does not run its float file."""
    died = isinstance(error, WorkerCrashed | WorkerTimeout)
    finding = Finding("worker-crashed" if died else "unreadable", f"the float file: {error.cause}")
    plan = Plan(name, {}, origin="float")
    reason = f"{name} does not run its own float file: {error}"
    return Candidate(plan, None, None, None, None, None, None, (finding,), verdict="failed", reason=reason)


def refusal(model: Model, failed: Mapping[str, HaversackError]) -> HaversackError:
    """Return the error of a run in which no target runs its float file: one target's own where that names a layer."""
    only = next(iter(failed.values()))
    if len(failed) == 1 and isinstance(only, ConversionError):
        return only
    faults = [Fault(name, error.cause) for name, error in failed.items()]
    return ConversionError(
        f"{', '.join(failed)} cannot run this model",
        where=model.name,
        faults=(*faults, *(fault for error in failed.values() for fault in error.faults)),
        tried="writing the float file of each and running it once",
        next_step="replace the layer that the lines above speak of, or choose another --target",
    )
