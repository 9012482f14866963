"""What fresh processes tell: how long a cold start takes, and how much memory an artefact needs.

A start is load plus first call in a process whose runtime is imported already; the file is in the page cache. Memory
is the peak of such a process minus the peak of one that only imports the runtime; what of it no file backs is told
beside it, since pages of a mapped file are shared, and dropped where memory is short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from haversack.base.candidate import Memory
from haversack.base.progress import Event, Sink, silent, steps
from haversack.measure.device import Device, Opening, Start


def take(
    device: Device, opening: Opening, inputs: Mapping[str, np.ndarray], *, repeats: int = 3, sink: Sink = silent
) -> tuple[Start, ...]:
    """Start an artefact in ``repeats`` fresh processes on one sample, shapes and dtypes as the artefact has them.

    Args:
        device: where.
        opening: of the artefact.
        inputs: one sample by name.
        repeats: how many processes.
        sink: told of every start.

    Raises:
        WorkerFault: the runtime fails, dies or hangs on it; base class ``EnvironmentFault``.
        ValueError: no repeats.
    """
    if repeats < 1:
        raise ValueError("at least one start must be taken")
    counted = steps(range(repeats), sink, "measure", "cold starts in fresh processes", repeats)
    return tuple(device.start(opening, inputs) for _ in counted)


def cold_ms(starts: Sequence[Start]) -> float:
    """Return the median of load plus first call, milliseconds."""
    return median(start.load_ms + start.first_ms for start in starts)


def memory(
    device: Device,
    opening: Opening,
    inputs: Mapping[str, np.ndarray],
    starts: Sequence[Start],
    *,
    sink: Sink = silent,
) -> Memory:
    """Return the median peak in bytes of starts on one sample, less that of importing the runtime; and what is private.

    Args:
        device: where.
        opening: of the artefact.
        inputs: one sample by name, shapes and dtypes as the artefact has them.
        starts: of this artefact on these inputs.
        sink: told before another process is started.

    Raises:
        WorkerFault: the runtime cannot be imported.
    """
    peak = median(start.peak_bytes for start in starts)
    told = [start.private_bytes for start in starts if start.private_bytes >= 0]
    private = int(median(told)) if told else -1
    sink(Event("measure", "start", f"memory of {opening.target} alone"))
    return Memory(max(0, int(peak) - device.import_peak(opening.target, inputs)), private)
