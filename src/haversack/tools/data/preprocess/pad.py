"""Pad to a length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from haversack.tools.data.preprocess.contract import Operation


@dataclass(frozen=True)
class Pad(Operation):
    """Pad one axis with a constant to a length: any shape and dtype, kept but for that axis.

    Attributes:
        axis: which axis, the batch (0) not counted among them.
        length: what it shall have.
        value: what is put there, as the dtype of the input.
        place: whether the data stand at the ``start`` or in the ``center`` (an odd rest goes to the end).
        cut: whether a longer axis is cut at the same place; refused otherwise.
    """

    axis: int = 1
    length: int = 1
    value: float = 0.0
    place: Literal["start", "center"] = "start"
    cut: bool = False

    def __post_init__(self) -> None:
        if self.length < 1 or self.axis == 0 or not math.isfinite(self.value):
            raise ValueError("length must be at least 1, axis not 0, and value finite")

    def _faults(self, batch: np.ndarray) -> list[str]:
        if not -batch.ndim < self.axis < batch.ndim:
            return [f"it has no axis {self.axis} beside the batch"]
        longer = batch.shape[self.axis] > self.length and not self.cut
        faults = [f"axis {self.axis} has {batch.shape[self.axis]} > {self.length}: say cut = true"] if longer else []
        if batch.dtype.kind != "f" and not _fits(self.value, batch.dtype):
            faults.append(f"the value {self.value} does not fit {batch.dtype}")
        return faults

    def _apply(self, batch: np.ndarray) -> np.ndarray:
        rest = self.length - batch.shape[self.axis]
        before = abs(rest) // 2 if self.place == "center" else 0
        if rest < 0:
            chosen = [slice(None)] * batch.ndim
            chosen[self.axis] = slice(before, before + self.length)
            return batch[tuple(chosen)]
        widths = [(0, 0)] * batch.ndim
        widths[self.axis] = (before, rest - before)
        return np.pad(batch, widths, constant_values=np.array(self.value).astype(batch.dtype))


def _fits(value: float, dtype: np.dtype[np.generic]) -> bool:
    if dtype.kind == "b":
        return value in (0, 1)
    return value == int(value) and np.iinfo(dtype.name).min <= value <= np.iinfo(dtype.name).max
