"""What profiling finds out about a model: ranges of its activations, the time and the sensitivity of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class TensorStatistics:
    """What is kept of one activation tensor after streaming all samples through it.

    Attributes:
        minimum, maximum: over all values seen.
        counts: int64 [bins], histogram over [low, high] with equal bins (every value seen is inside).
        low, high: the span of the histogram.
        samples: how many samples were seen.
    """

    minimum: float
    maximum: float
    counts: np.ndarray
    low: float
    high: float
    samples: int


@dataclass(frozen=True)
class Profile:
    """One model, profiled.

    Attributes:
        seconds: target -> node key -> median seconds of that node in the target's float artefact, batch 1.
        sensitivity: node key of a layer -> kind (``LayerPlan.kind``) -> relative error of the model's output when only
            this layer is of that kind. Of layers that read one weight the first has it, of all of them together.
        rates: node key of a layer -> kind -> bits of a weight as a download, scales shared out, by entropy; of layers
            that read one weight the first has it.
    """

    seconds: Mapping[str, Mapping[str, float]] = field(default_factory=dict, hash=False)
    sensitivity: Mapping[str, Mapping[str, float]] = field(default_factory=dict, hash=False)
    rates: Mapping[str, Mapping[str, float]] = field(default_factory=dict, hash=False)

    def share(self, target: str, key: str) -> float:
        """Return the fraction of the target's measured time that a node takes (0 when it was not seen)."""
        times = self.seconds.get(target, {})
        total = sum(times.values())
        return times.get(key, 0.0) / total if total else 0.0
