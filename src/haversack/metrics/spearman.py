"""Spearman's rank correlation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.base.errors import Fault
from haversack.metrics.contract import Metric


@dataclass(frozen=True)
class Spearman(Metric):
    """Spearman's rank correlation between the model's scores and the expected ones (ties get their mean rank).

    Outputs are scores [n] or [n, 1] and expected are scores [n]. With ``pairs`` outputs are embeddings [2 n, width]:
    rows 2 i and 2 i + 1 are a pair, and its score is their cosine similarity. Spearman, The Proof and Measurement of
    Association between Two Things (1904). One point (``pt``) is .01 of the correlation.

    Attributes:
        pairs: whether two consecutive rows of the batch make one scored sample.
    """

    pairs: bool = False

    ranks: ClassVar[tuple[int, ...]] = (1, 2)
    takes: ClassVar[str] = "scores [n], real numbers"

    @property
    def group(self) -> int:
        """Two rows of the batch make a sample with ``pairs``, one without."""
        return 2 if self.pairs else 1

    def _faults(self, output: np.ndarray, expected: np.ndarray) -> Sequence[Fault]:
        if expected.ndim != 1:
            return [Fault("expected", f"shape {expected.shape}, but scores are [n]")]
        width = output.shape[1] if output.ndim == 2 else 1
        if self.pairs and (output.ndim != 2 or width < 2):
            return [Fault("outputs", f"shape {output.shape}: embeddings of pairs are [2 n, width]")]
        if self.pairs and not np.square(output.astype(np.float64)).sum(axis=1).all():
            return [Fault("outputs", "an embedding is all zero: it has no cosine similarity")]
        if not self.pairs and width != 1:
            hint = "for embeddings of pairs write metric = Spearman(pairs=True)"
            return [Fault("outputs", f"shape {output.shape}, but scores are [n] or [n, 1]; {hint}")]
        return []

    def _rows(self, output: np.ndarray, expected: np.ndarray) -> np.ndarray:
        values = output.astype(np.float64)
        if self.pairs:
            unit = values / np.linalg.norm(values, axis=1, keepdims=True)
            values = (unit[0::2] * unit[1::2]).sum(axis=1)
        return np.stack([values.reshape(-1), expected], axis=1)

    def _values(self, rows: np.ndarray) -> np.ndarray:
        return np.array([_correlation(mean_ranks(pairs[:, 0]), mean_ranks(pairs[:, 1])) for pairs in rows])


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks of values [n] from 1, float64 [n]; equal values share the mean of their ranks."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[which])


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    length = np.sqrt(np.dot(first, first) * np.dot(second, second))
    return float(np.dot(first, second) / length) if length > 0 else float("nan")
