"""Normalize channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.tools.data.preprocess.contract import Operation


@dataclass(frozen=True)
class Normalize(Operation):
    """Normalize each channel: (x - mean) / std, float32 [n, ...] to float32, same shape.

    The defaults are ImageNet's, for values in [0, 1].

    Attributes:
        mean: one value a channel.
        std: one positive value a channel.
        axis: the channel axis: -1 for channels last, 1 for channels first.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    axis: int = -1

    dtypes: ClassVar[tuple[str, ...]] = ("float32",)

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(f"mean has {len(self.mean)} values and std {len(self.std)}: one each a channel")
        if not (np.isfinite([*self.mean, *self.std]).all() and min(self.std) > 0):
            raise ValueError("mean must be finite and std finite and positive")

    def _faults(self, batch: np.ndarray) -> list[str]:
        if not -batch.ndim < self.axis < batch.ndim or self.axis == 0:
            return [f"it has no channel axis {self.axis}"]
        channels = batch.shape[self.axis]
        return [] if channels == len(self.mean) else [f"it has {channels} channels, mean and std have {len(self.mean)}"]

    def _apply(self, batch: np.ndarray) -> np.ndarray:
        shape = [1] * batch.ndim
        shape[self.axis] = -1
        mean, std = (np.array(values, np.float32).reshape(shape) for values in (self.mean, self.std))
        return np.asarray((batch - mean) / std)
