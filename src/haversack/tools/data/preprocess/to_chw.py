"""Channels first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.tools.data.preprocess.contract import Operation


@dataclass(frozen=True)
class ToChw(Operation):
    """Put channels first: [n, height, width, channels] to [n, channels, height, width], any dtype, kept."""

    ranks: ClassVar[tuple[int, ...]] = (4,)
    moves: ClassVar[bool] = True

    def _apply(self, batch: np.ndarray) -> np.ndarray:
        return batch.transpose(0, 3, 1, 2)
