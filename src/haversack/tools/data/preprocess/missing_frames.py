"""Lose frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from haversack.tools.data import draws
from haversack.tools.data.preprocess.contract import Operation


@dataclass(frozen=True)
class MissingFrames(Operation):
    """Set entries along axis 1 to 0, as frames that were lost: [n, frames, …], any number dtype, shape and dtype kept.

    Which ones depends on the row and the seed alone, so it is the same in every batch and for every model.

    Attributes:
        fraction: of the entries along axis 1, rounded to a whole number; at least one, unless it is 0.
        seed: another one loses others.
    """

    fraction: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise ValueError("fraction must lie between 0 and 1")

    def _faults(self, batch: np.ndarray) -> list[str]:
        return [] if batch.ndim > 1 else ["it has no axis 1 beside the batch"]

    def _apply(self, batch: np.ndarray) -> np.ndarray:
        left = batch.copy()
        frames = batch.shape[1]
        lost = max(1, round(self.fraction * frames)) if self.fraction else 0
        for place, row in enumerate(batch):
            left[place, draws.of_row(row, self.seed).permutation(frames)[:lost]] = 0
        return left
