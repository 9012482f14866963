"""Macro-averaged F1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.base.errors import Fault
from haversack.metrics.contract import Kind, Metric
from haversack.metrics.top1 import LABELS, label_faults


@dataclass(frozen=True)
class F1(Metric):
    """F1 of the chosen classes, averaged over all classes that occur as a label or a choice (macro F1).

    Outputs are class scores [n, classes], expected are labels [n] from 0.
    """

    kind: ClassVar[Kind] = "integer"
    takes: ClassVar[str] = LABELS
    ranks: ClassVar[tuple[int, ...]] = (2,)

    def _faults(self, output: np.ndarray, expected: np.ndarray) -> Sequence[Fault]:
        return label_faults(output.shape[1], expected)

    def _rows(self, output: np.ndarray, expected: np.ndarray) -> np.ndarray:
        return np.stack([output.argmax(axis=1), expected], axis=1)

    def _values(self, rows: np.ndarray) -> np.ndarray:
        return np.array([_macro(chosen[:, 0].astype(np.int64), chosen[:, 1].astype(np.int64)) for chosen in rows])


def _macro(chosen: np.ndarray, labels: np.ndarray) -> float:
    classes = int(max(chosen.max(), labels.max())) + 1
    right = np.bincount(labels[chosen == labels], minlength=classes)
    occurs = np.bincount(chosen, minlength=classes) + np.bincount(labels, minlength=classes)
    return float((2 * right[occurs > 0] / occurs[occurs > 0]).mean())
