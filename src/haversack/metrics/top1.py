"""Top-1 accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.base.errors import Fault
from haversack.metrics.contract import Kind, MeanMetric


@dataclass(frozen=True)
class Top1(MeanMetric):
    """Fraction of samples whose largest class score is at the right label.

    Outputs are class scores or logits [n, classes], expected are labels [n] from 0. Of equal scores the first counts.
    """

    kind: ClassVar[Kind] = "integer"
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
    if expected.min() < 0 or expected.max() >= classes:
        return [
            Fault(
                "expected",
                f"labels from {expected.min()} to {expected.max()} for {classes} classes (0 to {classes - 1})",
            )
        ]
    return []
