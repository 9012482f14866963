"""The machine we run on as a device: artefacts live in a child process that may crash."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from haversack.base.candidate import Artifact
from haversack.base.model import Sample
from haversack.base.recipe import unstructure
from haversack.measure.device import LAYER_RUNS, Handle, NotThere, Opening, Start, Times
from haversack.tools.worker.again import ready
from haversack.tools.worker.process import DEFAULT_LIMITS, Limits, Worker

ENTRY = "haversack.measure.sessions:methods"


class LocalDevice:
    """This machine; a context manager.

    All handles live in one child process, so that they can be timed side by side. When it crashes or hangs, the call
    raises and the next one finds a new child in which the other handles are opened again on use: an artefact that
    brings its runtime down costs its own measurement and nothing else. A child that dies before it opens anything is
    started once more; where that one dies too, every call raises ``NeverReady``, which says nothing of the artefact.

    Args:
        limits: of every child.
        env: variables added to ours in every child.
        folders: where children also look for modules.
        python: the command that starts Python in every child; our own if empty.
    """

    name: str = "local"

    def __init__(
        self,
        *,
        limits: Limits = DEFAULT_LIMITS,
        env: Mapping[str, str] | None = None,
        folders: Sequence[Path] = (),
        python: Sequence[str] = (),
    ) -> None:
        self._limits = limits
        self._python = tuple(python)
        self._env = dict(env or {})
        self._folders = tuple(folders)
        self._worker: Worker | None = None
        self._loaded: set[int] = set()
        self._count = 0
        self._imports: dict[tuple[str, int], int] = {}

    def load(self, opening: Opening) -> Handle:
        """Open an artefact.

        Raises:
            NotThere: the device has no such runtime.
            WorkerError: the runtime does not take it.
            WorkerCrashed, WorkerTimeout: the runtime died or hung on it.
        """
        if why := self.lacks(opening.target):
            raise NotThere(why)
        self._count += 1
        handle = Handle(self._count, opening)
        self._ensure(handle)
        return handle

    def lacks(self, target: str, *, looking: bool = False) -> str:
        """Say why no file of a target can be opened here (or looked into), or nothing."""
        del target, looking
        return ""

    @property
    def identity(self) -> tuple[str, ...]:
        """What measurements are filed under: they hold for this device only."""
        return (self.name,)

    def opens(self, opening: Opening) -> None:
        """Open an artefact that was just written and close it, before anybody opens it outside of a child.

        Raises:
            WorkerError: the runtime does not take it.
            WorkerCrashed, WorkerTimeout: the runtime died or hung on it.
        """
        self.unload(self.load(opening))

    def run(self, handle: Handle, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by name for inputs by name; shapes and dtypes as the artefact has them.

        Raises:
            WorkerError: the runtime refuses the inputs.
            WorkerCrashed, WorkerTimeout: the runtime died or hung.
        """
        worker = self._ensure(handle)
        return worker.call("run", {"handle": handle.number}, inputs)[1]

    def predict(self, handle: Handle, inputs: Sequence[str]) -> Callable[[Sample], tuple[np.ndarray, ...]]:
        """Return the artefact as a function of samples: arrays in the order of ``inputs`` -> arrays, batch first."""

        def call(sample: Sample) -> tuple[np.ndarray, ...]:
            return tuple(self.run(handle, dict(zip(inputs, sample, strict=True))).values())

        return call

    def time(
        self,
        handles: Sequence[Handle],
        inputs: Mapping[str, np.ndarray],
        *,
        rounds: int,
        warmup: int = 0,
        seconds: float = 60.0,
    ) -> Times:
        """Call all handles by turns on the same inputs (by name, shapes and dtypes as the artefacts have them).

        Args:
            handles: the artefacts, of one runtime or several.
            inputs: one sample for all.
            rounds: how often each is called.
            warmup: calls of each before the clock runs.
            seconds: no further round begins after them.

        Raises:
            WorkerError, WorkerCrashed, WorkerTimeout: as ``run``.
        """
        worker = [self._ensure(handle) for handle in handles][-1]
        numbers = [handle.number for handle in handles]
        header = {"handles": numbers, "rounds": rounds, "warmup": warmup, "seconds": seconds}
        _, arrays = worker.call("time", header, inputs, self._limits.call_seconds + seconds)
        return Times(arrays["wall"], arrays["cpu"])

    def start(self, opening: Opening, inputs: Mapping[str, np.ndarray], *, calls: int = 3) -> Start:
        """Open an artefact in a fresh process and call it on inputs by name (shapes and dtypes as it has them).

        ``calls`` more calls follow the first before the memory is read.

        Raises:
            WorkerError, WorkerCrashed, WorkerTimeout: as ``run``.
        """
        with self._fresh() as worker:
            data, _ = worker.call("start", {**self._header(worker, opening), "calls": calls}, inputs)
        return Start(data["load_ns"] / 1e6, data["first_ns"] / 1e6, data["peak_bytes"], data["private_bytes"])

    def import_peak(self, target: str, inputs: Mapping[str, np.ndarray]) -> int:
        """Return the peak resident bytes of a fresh process that imports the runtime and gets the same inputs.

        Measured once for a target and a size of inputs (arrays of any shape and dtype; only their bytes count).

        Raises:
            WorkerError: the runtime cannot be imported.
            NeverReady: two processes died of it, or hung.
        """

        def look() -> int:
            with self._fresh() as worker:
                return int(worker.call("import", {"target": target}, inputs)[0]["peak_bytes"])

        key = (target, sum(array.nbytes for array in inputs.values()))
        if key not in self._imports:
            self._imports[key] = ready(look)
        return self._imports[key]

    def unfused(self, opening: Opening, artifact: Artifact) -> tuple[str, ...]:
        """Return the node keys of layers meant for integers that the runtime computes in float; a fresh process looks.

        Raises:
            WorkerError, WorkerCrashed, WorkerTimeout: as ``run``.
        """
        data, _ = self._inspect(opening, artifact, "unfused", ())
        return tuple(data["keys"])

    def layer_seconds(
        self, opening: Opening, artifact: Artifact, inputs: Sample, runs: int = LAYER_RUNS
    ) -> dict[str, float]:
        """Return node key -> median seconds in one call on a batch, batch first; a fresh process looks.

        Raises:
            WorkerError, WorkerCrashed, WorkerTimeout: as ``run``.
        """
        data, _ = self._inspect(opening, artifact, "layer_seconds", inputs, runs=runs)
        return dict(data["seconds"])

    def tensors(
        self, opening: Opening, artifact: Artifact, inputs: Sample, keys: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Return tensor key -> array on a batch: uint8 codes where it is encoded, else float32; a fresh process looks.

        Raises:
            WorkerError, WorkerCrashed, WorkerTimeout: as ``run``.
        """
        return self._inspect(opening, artifact, "tensors", inputs, keys=list(keys))[1]

    def unload(self, handle: Handle) -> None:
        """Close an artefact; a handle that is not open is left alone."""
        if self._worker is not None and self._worker.alive and handle.number in self._loaded:
            self._worker.call("unload", {"handle": handle.number})
        self._loaded.discard(handle.number)

    def close(self) -> None:
        """End the child. Safe to call twice."""
        self._end()

    def _end(self) -> None:
        if self._worker is not None:
            self._worker.close()
        self._worker = None
        self._loaded.clear()

    def _ensure(self, handle: Handle) -> Worker:
        if self._worker is None or not self._worker.alive:
            self._end()
            self._worker = self._fresh()
        if handle.number not in self._loaded:
            self._worker.call("load", {**self._header(self._worker, handle.opening), "handle": handle.number})
            self._loaded.add(handle.number)
        return self._worker

    def _inspect(
        self, opening: Opening, artifact: Artifact, question: str, inputs: Sample, **more: int | list[str]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        with self._fresh() as worker:
            header = self._header(worker, opening)
            header |= {"question": question, "artifact": unstructure(artifact), **more}
            return worker.call("inspect", header, {str(place): array for place, array in enumerate(inputs)})

    def _header(self, worker: Worker, opening: Opening) -> dict[str, Any]:
        """Return an opening as a worker takes it."""
        del worker
        return opening.header()

    def _fresh(self) -> Worker:
        return ready(self._begun)

    def _begun(self) -> Worker:
        return Worker.start(ENTRY, env=self._env, limits=self._limits, folders=self._folders, python=self._python)

    def __enter__(self) -> Self:
        """Return the device."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()
