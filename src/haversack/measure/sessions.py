"""The child's side of a device: it opens artefacts, runs them, and times them side by side in one process.

Served by ``haversack.tools.worker``; the parent's side is ``device.LocalDevice``. Handles are numbers that the parent
chooses. Times are nanoseconds: wall from the monotonic clock, CPU of the whole process with all its threads.
"""

from __future__ import annotations

import gc
import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from haversack.base.candidate import Artifact
from haversack.base.errors import EnvironmentFault
from haversack.base.model import Sample
from haversack.base.recipe import structure
from haversack.base.shelf import Shelf

Header = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]
Answer = tuple[Mapping[str, Any], Mapping[str, np.ndarray]]


class Session(Protocol):
    """An artefact, open in its runtime."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Return the outputs by name, in the file's order, for inputs by name; shapes and dtypes are the file's."""

    def close(self) -> None:
        """Let go of the runtime's memory."""


class Opener(Protocol):
    """What a device needs of a target. Its ``runtime`` names the module to import, where that is not its own name."""

    def open_session(self, path: Path, options: Mapping[str, str], threads: int) -> Session:
        """Open a file with session options and a number of threads."""


class Inspector(Protocol):
    """What a device asks a target about a file; see ``targets.contract.Target``."""

    def unfused(self, path: Path, artifact: Artifact) -> Sequence[str]:
        """Return keys of layers that were meant for integers and run in float."""

    def layer_seconds(self, path: Path, artifact: Artifact, inputs: Sample, runs: int) -> Mapping[str, float]:
        """Return node key -> median seconds in one call."""

    def tensors(self, path: Path, artifact: Artifact, inputs: Sample, keys: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Return tensor key -> array on a batch: uint8 codes where it is encoded, else float32."""


def opener(name: str) -> Opener:
    """Return a target by its name on the shelf, or the object at ``module:attribute``.

    Raises:
        UsageError: there is no such target.
        ImportError, AttributeError: there is no such object.
    """
    module, colon, attribute = name.partition(":")
    if colon:
        found: Opener = getattr(importlib.import_module(module), attribute)
        return found
    target: Opener = Shelf("haversack.targets", "target").type_of(name)()
    return target


def import_runtime(name: str) -> Opener:
    """Import a target's runtime and return the target; neither cold start nor memory of an artefact counts that.

    Raises:
        UsageError, ImportError, AttributeError: as ``opener``, or the runtime is not installed.
    """
    target = opener(name)
    importlib.import_module(getattr(target, "runtime", name))
    return target


class Sessions:
    """Open sessions by handle, and the methods that a worker serves."""

    def __init__(self) -> None:
        self._open: dict[int, Session] = {}

    def methods(self) -> Mapping[str, Callable[[Header, Arrays], Answer]]:
        """Return the methods by name."""
        return {
            "load": self.load,
            "run": self.run,
            "time": self.time,
            "unload": self.unload,
            "start": self.start,
            "import": self.import_only,
            "inspect": self.inspect,
        }

    def load(self, header: Header, _: Arrays) -> Answer:
        """Open ``path`` of ``target`` with ``options`` and ``threads`` under ``handle``."""
        self._open[header["handle"]] = _open(opener(header["target"]), header)
        return {}, {}

    def run(self, header: Header, arrays: Arrays) -> Answer:
        """Run ``handle`` on inputs by name; return its outputs by name, shapes and dtypes as the runtime gives them."""
        return {}, self._open[header["handle"]].run(arrays)

    def unload(self, header: Header, _: Arrays) -> Answer:
        """Close ``handle``."""
        self._open.pop(header["handle"]).close()
        return {}, {}

    def time(self, header: Header, arrays: Arrays) -> Answer:
        """Call ``handles`` by turns on the same inputs, every other round in reverse order.

        An array named ``HANDLE|NAME`` stands for ``NAME`` with that handle alone. The header also has ``rounds``,
        ``warmup`` (calls of each before the clock runs) and ``seconds``, after which no further round begins.

        Returns:
            ``wall`` and ``cpu``: int64 [rounds done, handles], nanoseconds.
        """
        sessions = [self._open[handle] for handle in header["handles"]]
        feeds = [_feeds(arrays, handle, header["handles"]) for handle in header["handles"]]
        for _ in range(header["warmup"]):
            for session, inputs in zip(sessions, feeds, strict=True):
                session.run(inputs)
        wall = np.zeros((header["rounds"], len(sessions)), np.int64)
        cpu = np.zeros_like(wall)
        done = 0
        with _no_collection():
            until = time.perf_counter() + header["seconds"]
            for done in range(1, len(wall) + 1):
                forward = range(len(sessions))
                for index in forward if done % 2 else reversed(forward):
                    wall[done - 1, index], cpu[done - 1, index] = _once(sessions[index], feeds[index])
                if time.perf_counter() > until:
                    break
        return {}, {"wall": wall[:done], "cpu": cpu[:done]}

    def start(self, header: Header, arrays: Arrays) -> Answer:
        """Measure a start in this process, which must be fresh: import the runtime, then load, call once, call again.

        Returns:
            ``load_ns`` and ``first_ns``; ``peak_bytes`` resident so far; ``private_bytes`` that no file backs, now,
            beyond what they were before opening.
        """
        target = import_runtime(header["target"])
        bare = _resident("RssAnon")
        with _no_collection():
            begin = time.perf_counter_ns()
            session = _open(target, header)
            loaded = time.perf_counter_ns()
            session.run(arrays)
            called = time.perf_counter_ns()
        for _ in range(header["calls"]):
            session.run(arrays)
        # Read before the peak: reading files takes memory itself.
        private = max(0, _resident("RssAnon") - bare)
        times = {"load_ns": loaded - begin, "first_ns": called - loaded}
        return {**times, "peak_bytes": _resident("VmHWM"), "private_bytes": private}, {}

    def import_only(self, header: Header, _: Arrays) -> Answer:
        """Import the runtime of ``target`` in this process, which must be fresh; return ``peak_bytes``."""
        import_runtime(header["target"])
        return {"peak_bytes": _resident("VmHWM")}, {}

    def inspect(self, header: Header, arrays: Arrays) -> Answer:
        """Answer a ``question`` about ``path``, an ``artifact`` of ``target``, on a batch of inputs in their order.

        Returns:
            For *unfused* ``keys``; for *layer_seconds*, over so many ``runs``, ``seconds`` by node key; for *tensors*,
            of the ``keys`` asked for, the arrays by tensor key.
        """
        target = cast("Inspector", opener(header["target"]))
        path, question = Path(header["path"]), header["question"]
        artifact = structure(header["artifact"], Artifact, where="artifact")
        inputs = tuple(arrays.values())
        if question == "unfused":
            return {"keys": list(target.unfused(path, artifact))}, {}
        if question == "layer_seconds":
            return {"seconds": dict(target.layer_seconds(path, artifact, inputs, header["runs"]))}, {}
        if question == "tensors":
            return {}, target.tensors(path, artifact, inputs, header["keys"])
        message = f"there is no question {question!r}"
        raise LookupError(message)


def methods() -> Mapping[str, Callable[[Header, Arrays], Answer]]:
    """Return the methods of a fresh set of sessions: the worker's factory."""
    return Sessions().methods()


def _feeds(arrays: Arrays, handle: int, handles: Sequence[int]) -> dict[str, np.ndarray]:
    """Return what one handle is called with: the arrays for all, but for those that bear its number."""
    theirs = tuple(f"{each}|" for each in handles)
    own = {name.partition("|")[2]: array for name, array in arrays.items() if name.startswith(f"{handle}|")}
    return {name: array for name, array in arrays.items() if not name.startswith(theirs)} | own


def _open(target: Opener, header: Header) -> Session:
    return target.open_session(Path(header["path"]), dict(header["options"]), int(header["threads"]))


def _once(session: Session, inputs: Arrays) -> tuple[int, int]:
    cpu = time.process_time_ns()
    wall = time.perf_counter_ns()
    session.run(inputs)
    return time.perf_counter_ns() - wall, time.process_time_ns() - cpu


@contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _resident(name: str) -> int:
    """Return bytes that Linux tells of this process: ``VmHWM``, the resident peak; ``RssAnon``, what no file backs."""
    # Not ru_maxrss: the kernel hands that on from the parent that started this process.
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise EnvironmentFault("this system does not tell the memory of a process", where=f"{name} of /proc/self/status")
