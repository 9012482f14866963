"""Speed against the same runtime's float file: calls by turns in one process, until the ratio is settled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from haversack.base.candidate import Latency
from haversack.base.progress import Event, Sink, silent
from haversack.measure import noise
from haversack.measure.device import Device, Handle, Opening, Times


@dataclass(frozen=True)
class Patience:
    """How long to measure.

    Attributes:
        pairs: at least so many pairs of calls.
        most_pairs: at most so many.
        seconds: no further pairs begin after them, settled or not.
        settled: half the width of the ratio's 95 % interval at which it is settled, relative.
        warmup: calls of each before the clock runs.
    """

    pairs: int = 40
    most_pairs: int = 400
    seconds: float = 15.0
    settled: float = 0.02
    warmup: int = 3


DEFAULT_PATIENCE = Patience()
_CHUNK_PAIRS = 20


@dataclass(frozen=True, eq=False)
class Timed:
    """A latency, the comparison it stands on, and every call (``times``: int64 [pairs, 2], candidate first)."""

    latency: Latency
    difference: noise.Difference
    times: Times


def compare(
    device: Device,
    candidate: Handle,
    baseline: Handle,
    inputs: Mapping[str, np.ndarray],
    *,
    cold_ms: float,
    patience: Patience = DEFAULT_PATIENCE,
    swapped: bool = False,
    sink: Sink = silent,
    other: Mapping[str, np.ndarray] | None = None,
) -> Timed:
    """Time an artefact and the float file of its runtime by turns.

    Args:
        device: where both are open.
        candidate, baseline: the artefact and the float file.
        inputs: one sample (batch of one) by name, shapes and dtypes as the artefacts have them.
        cold_ms: load and first call in a fresh process, from ``starts.cold_ms``.
        patience: how long to measure.
        swapped: call the float file first in each pair.
        sink: told how many pairs were timed; how many it will be is known at the end.
        other: what the float file is called with, where its interface is not the artefact's.

    Raises:
        WorkerFault: a runtime failed, died or hung; base class ``EnvironmentFault``.
    """
    order = -1 if swapped else 1
    text = "pairs of calls, by turns with the float file" + ", opened again" * swapped
    given = {**inputs, **{f"{baseline.number}|{name}": array for name, array in (other or {}).items()}}
    parts: list[Times] = []
    spent, pairs, difference = 0.0, 0, None
    while difference is None or (
        pairs < patience.most_pairs
        and spent < patience.seconds
        and (pairs < patience.pairs or difference.spread > patience.settled)
    ):
        part = device.time(
            (candidate, baseline)[::order],
            given,
            rounds=min(_CHUNK_PAIRS, patience.most_pairs - pairs),
            warmup=0 if parts else patience.warmup,
            seconds=patience.seconds - spent,
        )
        part = Times(part.wall[:, ::order], part.cpu[:, ::order])
        parts.append(part)
        spent += float(part.wall.sum()) / 1e9
        times = Times(np.concatenate([p.wall for p in parts]), np.concatenate([p.cpu for p in parts]))
        pairs = len(times.wall)
        sink(Event("measure", "progress", text, pairs))
        # One file opened twice in one process differs by up to a hundredth, by where its memory happens to lie.
        difference = noise.differ(times.wall[:, 0], times.wall[:, 1], tolerance=noise.DRIFT)
    sink(Event("measure", "progress", text, pairs, pairs))
    return Timed(summarise(times, cold_ms, device.name, candidate.opening.threads), difference, times)


def confirmed(
    device: Device,
    first: Timed,
    candidate: Opening,
    baseline: Opening,
    inputs: Mapping[str, np.ndarray],
    *,
    patience: Patience = DEFAULT_PATIENCE,
    sink: Sink = silent,
    other: Mapping[str, np.ndarray] | None = None,
) -> Timed:
    """Open two files anew in the other order, time them again, and return both measurements as one.

    They differ only where both say so on the same side of 1, and where the lesser of the two is more than half of what
    the openings differ by: one opening's memory may lie badly for as long as the file is open.

    Args:
        device: where the files are opened.
        first: what the first opening said.
        candidate, baseline: the artefact and the float file.
        inputs, other: as for ``compare``.
        patience: how long to measure.
        sink: as for ``compare``.

    Raises:
        WorkerFault: a runtime failed, died or hung.
    """
    theirs = device.load(baseline)
    mine = device.load(candidate)
    try:
        cold = first.latency.cold_ms
        second = compare(
            device, mine, theirs, inputs, cold_ms=cold, patience=patience, swapped=True, sink=sink, other=other
        )
    finally:
        device.unload(mine)
        device.unload(theirs)
    pairs = ((first.times.wall, second.times.wall), (first.times.cpu, second.times.cpu))
    times = Times(*(np.concatenate(pair) for pair in pairs))
    difference = noise.together(first.difference, second.difference)
    return Timed(summarise(times, cold, device.name, candidate.threads), difference, times)


def alike(latency: Latency) -> Latency:
    """Return the latency of a file that is the float file byte for byte: the ratio is 1 by definition."""
    return replace(latency, ratio=1.0, ratio_low=1.0, ratio_high=1.0, cpu_ratio=1.0, float_median_ms=latency.median_ms)


def summarise(times: Times, cold_ms: float, device: str, threads: int) -> Latency:
    """Return medians, quartiles and the 95th percentile of paired times, int64 nanoseconds [pairs, 2]."""
    wall = times.wall / 1e6
    ratios = wall[:, 0] / wall[:, 1]
    low, middle, high = (float(value) for value in np.percentile(ratios, [25, 50, 75]))
    cpu = np.maximum(times.cpu, 1)  # a call can be shorter than the CPU clock's step
    return Latency(
        ratio=middle,
        median_ms=float(np.median(wall[:, 0])),
        p95_ms=float(np.percentile(wall[:, 0], 95)),
        cold_ms=cold_ms,
        cpu_ratio=float(np.median(cpu[:, 0] / cpu[:, 1])),
        ratio_low=low,
        ratio_high=high,
        float_median_ms=float(np.median(wall[:, 1])),
        pairs=len(wall),
        device=device,
        threads=threads,
    )
