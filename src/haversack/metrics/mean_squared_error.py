"""Mean squared error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.base.errors import Fault
from haversack.base.quality import Direction
from haversack.metrics.contract import MeanMetric
from haversack.metrics.relative_error import same_shape


@dataclass(frozen=True)
class MeanSquaredError(MeanMetric):
    """Mean over samples of the mean squared difference from the expected values; lower is better.

    Outputs and expected have the same shape [n, ...].
    """

    unit: ClassVar[str] = "squared"
    direction: ClassVar[Direction] = "lower"
    takes: ClassVar[str] = "values of the output's shape"

    def _faults(self, output: np.ndarray, expected: np.ndarray) -> Sequence[Fault]:
        return same_shape(output, expected)

    def _scores(self, output: np.ndarray, expected: np.ndarray) -> np.ndarray:
        error = output.astype(np.float64) - expected
        return np.asarray(np.square(error).reshape(len(expected), -1).mean(axis=1))
