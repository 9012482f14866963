"""Bytes of activations alive at each step, as a drawing: steps across, bytes upwards, the peak marked."""

from __future__ import annotations

from dataclasses import dataclass

from haversack.report.activations import Activations

WIDTH, HEIGHT = 780, 150
"""Of the drawing, in its own units."""
SHOWN = 6
"""Tensors alive at the peak that are named."""


@dataclass(frozen=True)
class Bar:
    """One step: a rectangle in the drawing's units; ``peak`` where most is alive."""

    x: float
    y: float
    width: float
    height: float
    peak: bool


def bars(found: Activations) -> tuple[Bar, ...]:
    """Return a bar a step, in execution order, as high as what is alive then is of the peak."""
    if not found.live or found.peak_bytes <= 0:
        return ()
    step = WIDTH / len(found.live)
    gap = min(2.0, step / 4)
    at = next((n for n, one in enumerate(found.live) if one.bytes == found.peak_bytes), -1)
    heights = [HEIGHT * one.bytes / found.peak_bytes for one in found.live]
    return tuple(
        Bar(round(n * step, 2), round(HEIGHT - high, 2), round(step - gap, 2), round(high, 2), n == at)
        for n, high in enumerate(heights)
    )
