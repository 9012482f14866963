"""Agreement with the float model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from haversack.base.errors import Fault
from haversack.metrics.contract import MeanMetric


@dataclass(frozen=True)
class Agreement(MeanMetric):
    """Fraction of samples on which the model chooses the class that the float model chooses.

    Outputs and expected (the float model's outputs) are class scores [n, classes]. Of equal scores the first counts.
    """

    against: ClassVar[Literal["expected", "float"]] = "float"
    ranks: ClassVar[tuple[int, ...]] = (2,)
    span: ClassVar[float] = 1.0

    def _faults(self, output: np.ndarray, expected: np.ndarray) -> Sequence[Fault]:
        if output.shape != expected.shape:
            return [Fault("outputs", f"shape {output.shape}, but the float model's is {expected.shape}")]
        if output.shape[1] < 2:
            return [Fault("outputs", "one class score a sample: an arg-max needs at least two")]
        return []

    def _scores(self, output: np.ndarray, expected: np.ndarray) -> np.ndarray:
        return np.asarray(output.argmax(axis=1) == expected.argmax(axis=1))
