"""Top-1 accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.base.errors import Fault
from haversack.metrics.contract import Kind, MeanMetric

LABELS = "labels [n]: the index of each sample's class, integers from 0 (write classes.index(name) for a name)"


@dataclass(frozen=True)
class Top1(MeanMetric):
    """Fraction of samples whose largest class score is at the right label.

    Outputs are class scores or logits [n, classes], expected are labels [n] from 0. Of equal scores the first counts.
    """

    kind: ClassVar[Kind] = "integer"
    takes: ClassVar[str] = LABELS
    ranks: ClassVar[tuple[int, ...]] = (2,)
    span: ClassVar[float] = 1.0

    def _faults(self, output: np.ndarray, expected: np.ndarray) -> Sequence[Fault]:
        return label_faults(output.shape[1], expected)

    def _scores(self, output: np.ndarray, expected: np.ndarray) -> np.ndarray:
        return np.asarray(output.argmax(axis=1) == expected)


def label_faults(classes: int, expected: np.ndarray) -> Sequence[Fault]:
    """Return what keeps ``expected`` from being labels [n] of so many classes (at least two)."""
    if classes < 2:
        return [Fault("outputs", f"{classes} class scores a sample: an arg-max needs at least two")]
    if expected.ndim != 1:
        return [Fault("expected", f"shape {expected.shape}, but labels are [n], one integer a sample")]
    low, high = int(expected.min()), int(expected.max())
    if low < 0 or high >= classes:
        hint = "; do they count from 1? Then write labels - 1" if (low >= 1 and high == classes) else ""
        return [Fault("expected", f"labels from {low} to {high} for {classes} classes (0 to {classes - 1}){hint}")]
    return []
