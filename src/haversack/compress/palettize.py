"""Palettes for weights: which values a layer may have, and which of them each weight takes."""

from __future__ import annotations

import numpy as np

from haversack.base.encodings import Codebook
from haversack.base.errors import JobError, UsageError
from haversack.base.graph import Node
from haversack.base.keys import split_node
from haversack.base.plan import Step
from haversack.tools.numerics import palette

PART = "kmeans"
BITS = (1, 2, 4, 6, 8)
"""Bits of an index that runtimes pack."""


def palettized(node: Node, weight: np.ndarray, step: Step) -> tuple[Codebook, np.ndarray]:
    """Return a layer's palette and its int32 indices, of the weight's shape.

    Args:
        node: the layer.
        weight: float32, its own shape.
        step: ``kmeans`` with ``bits``, one of ``BITS``.

    Raises:
        UsageError: another part, or bits that nobody packs.
        JobError: the weight holds NaN or an infinity.
    """
    place = split_node(node.key)[0] or node.key
    bits = step.settings.get("bits")
    if step.part != PART or set(step.settings) != {"bits"} or bits not in BITS:
        cause = f"a palette is made by {PART} with bits of {', '.join(map(str, BITS))}, not by {step.part}"
        raise UsageError(f"{cause} with {dict(step.settings)}", where=place)
    if not np.isfinite(weight).all():
        raise JobError("its weight holds NaN or an infinity", where=place, tried=f"reading {node.weight}")
    return palette.kmeans(weight, int(bits))
