"""A predictor that remembers: each batch is run once, though scores, parity and findings all ask for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from haversack.base import digest
from haversack.base.model import Sample

Predict = Callable[[Sample], tuple[np.ndarray, ...]]
KEPT_BYTES = 200 << 20


class Replay:
    """Calls ``predict`` once for the same content, while all outputs together stay within ``kept_bytes``.

    Args:
        predict: samples, batch first -> outputs in the model's order, batch first.
        kept_bytes: outputs beyond this are computed again when they are asked for again.
    """

    def __init__(self, predict: Predict, kept_bytes: int = KEPT_BYTES) -> None:
        self._predict = predict
        self._left = kept_bytes
        self._found: dict[str, tuple[np.ndarray, ...]] = {}

    def __call__(self, sample: Sample) -> tuple[np.ndarray, ...]:
        """Return the outputs for one batch of inputs."""
        key = digest.of_data([digest.of_array(array) for array in sample])
        if key in self._found:
            return self._found[key]
        outputs = self._predict(sample)
        size = sum(output.nbytes for output in outputs)
        if size <= self._left:
            self._left -= size
            self._found[key] = outputs
        return outputs
