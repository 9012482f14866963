"""Relative error against the float model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from haversack.base.errors import Fault
from haversack.base.quality import Direction
from haversack.metrics.contract import SumMetric


@dataclass(frozen=True)
class RelativeError(SumMetric):
    """Length of the error over the length of the float model's output: |y - e| / |e| over all values; lower is better.

    Outputs and expected (the float model's outputs) have the same shape [n, ...].
    """

    unit: ClassVar[str] = "ratio"
    direction: ClassVar[Direction] = "lower"
    against: ClassVar[Literal["expected", "float"]] = "float"

    def _faults(self, output: np.ndarray, expected: np.ndarray) -> Sequence[Fault]:
        return same_shape(output, expected)

    def _rows(self, output: np.ndarray, expected: np.ndarray) -> np.ndarray:
        true = expected.reshape(len(expected), -1).astype(np.float64)
        error = output.reshape(true.shape) - true
        return np.stack([np.square(error).sum(axis=1), np.square(true).sum(axis=1)], axis=1)

    def _of_sums(self, sums: np.ndarray) -> np.ndarray:
        return np.asarray(np.sqrt(sums[..., 0] / sums[..., 1]))


def same_shape(output: np.ndarray, expected: np.ndarray) -> Sequence[Fault]:
    """Return a fault when outputs and expected values differ in shape."""
    if output.shape == expected.shape:
        return []
    return [Fault("outputs", f"shape {output.shape}, but the expected values' is {expected.shape}")]
