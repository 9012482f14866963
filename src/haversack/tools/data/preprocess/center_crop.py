"""Crop the centre."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.tools.data.preprocess.contract import Operation


@dataclass(frozen=True)
class CenterCrop(Operation):
    """Crop the centre: [n, h, w, channels] to [n, height, width, channels], any dtype, kept.

    Of an odd remainder the larger part is cut at the bottom and the right. Smaller images are refused: pad them first.

    Attributes:
        height, width: of what is left, in pixels.
    """

    height: int = 224
    width: int = 224

    ranks: ClassVar[tuple[int, ...]] = (4,)

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise ValueError("height and width must be at least 1")

    def _faults(self, batch: np.ndarray) -> list[str]:
        height, width = batch.shape[1:3]
        if height >= self.height and width >= self.width:
            return []
        return [f"{height} x {width} pixels are fewer than {self.height} x {self.width}: resize or pad first"]

    def _apply(self, batch: np.ndarray) -> np.ndarray:
        top, left = (batch.shape[1] - self.height) // 2, (batch.shape[2] - self.width) // 2
        return batch[:, top : top + self.height, left : left + self.width]
