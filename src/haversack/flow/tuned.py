"""Threads and delegate of a model on this device, measured and remembered. No torch."""

from __future__ import annotations

from pathlib import Path

from haversack.base.progress import Sink, silent
from haversack.deliver.home import Home
from haversack.deliver.slots import Slots
from haversack.measure import noise
from haversack.run import tuning
from haversack.run.source import Source, found


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
