"""Threads and delegate of a model on this device, measured and remembered. No torch.

After an update it is measured in a child, and only while the device is idle: what else runs here would be measured too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from haversack.base.errors import HaversackError
from haversack.base.progress import Event, Sink, silent
from haversack.base.recipe import structure, unstructure
from haversack.deliver import selftest
from haversack.deliver.home import Home
from haversack.deliver.slots import Slots
from haversack.measure import noise
from haversack.run import tuning
from haversack.run.source import Source, found
from haversack.tools.worker.process import Limits, Worker

ENTRY = "haversack.flow.tuned:methods"
Start = Callable[[Limits], Worker]


class Settled(Protocol):
    """Measures a line's release in use after an update; see ``settled``."""

    def __call__(self, line: str, home: Path, *, busy: str, sink: Sink) -> tuning.Tuned | None:
        """Return what was chosen; None where nothing was."""


def tuned(source: Source, home: Path, *, again: bool = False, sink: Sink = silent) -> tuning.Tuned:
    """Return what suits a variant here: as remembered in a home, else measured, and remembered from now on.

    Args:
        source: the variant, with golden vectors.
        home: of the device.
        again: measure though it is remembered.
        sink: told of every round.

    Raises:
        VerificationError: there are no golden vectors, or no setting gives their answers.
        EnvironmentFault: the home cannot be written.
    """
    known = None if again else tuning.remembered(home, source)
    if known is not None:
        return known
    chosen = tuning.tune(source, noise.differ, sink=sink)
    tuning.remember(home, source, chosen)
    return chosen


def tuned_line(line: str, home: Path, *, again: bool = False, sink: Sink = silent) -> tuning.Tuned:
    """Return what suits the release of a line that is in use; as ``tuned``.

    Raises:
        EnvironmentFault: nothing is installed.
        VerificationError: as ``tuned``.
    """
    slots = Slots(Home(home).line(line))
    with slots.opening() as installed:
        source = found(slots.path(installed), installed.target, verified=True)
        return tuned(source, home, again=again, sink=sink)


def start(limits: Limits) -> Worker:
    """Start a child that measures.

    Raises:
        WorkerFault: it does not come up.
    """
    return Worker.start(ENTRY, limits=limits)


def methods() -> Mapping[str, Callable[..., tuple[Mapping[str, Any], Mapping[str, np.ndarray]]]]:
    """Return what the child serves; arrays of any shape and dtype, as the model takes them."""
    return {"tune": _tune}


def settled(line: str, home: Path, *, busy: str, sink: Sink = silent, child: Start = start) -> tuning.Tuned | None:
    """Return what suits the release in use: as remembered, else measured in a child; None where that cannot be now.

    Nothing that goes wrong here is more than a note: the model runs with one thread until it is measured.

    Args:
        line: which.
        home: of the device.
        busy: why nothing is to be measured now, in words; empty where it may.
        sink: told what came of it.
        child: starts the child, which may die of a setting.
    """
    slots = Slots(Home(home).line(line))
    try:
        with slots.opening() as installed:
            source = found(slots.path(installed), installed.target, verified=True)
            known = tuning.remembered(home, source)
            if known is not None or busy:
                _note(sink, f"{line}: threads are not measured now: {busy}" if known is None else "")
                return known
            asked = {"folder": str(source.folder), "target": source.target}
            with child(selftest.Demands().limits(source.path.stat().st_size)) as worker:
                told, _ = worker.call("tune", asked)
            chosen = structure(told, tuning.Tuned, where="the child's answer")
            tuning.remember(home, source, chosen)
    except (HaversackError, OSError) as error:
        _note(sink, f"{line}: threads were not measured: {error}".splitlines()[0])
        return None
    sink(Event("run", "done", f"{line} runs with {chosen.setting}", data={"setting": str(chosen.setting)}))
    return chosen


def _tune(header: Mapping[str, Any], _: Mapping[str, np.ndarray]) -> tuple[Mapping[str, Any], Mapping[str, np.ndarray]]:
    """Measure, in the child: ``folder`` and ``target`` of what is in use, whose bytes the parent holds."""
    source = found(Path(header["folder"]), header["target"], verified=True)
    return unstructure(tuning.tune(source, noise.differ)), {}


def _note(sink: Sink, text: str) -> None:
    if text:
        sink(Event("run", "note", text))
