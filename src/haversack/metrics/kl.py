"""Kullback-Leibler divergence from the float model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from haversack.base.errors import Fault
from haversack.base.quality import Direction
from haversack.metrics.contract import MeanMetric
from haversack.metrics.relative_error import same_shape


@dataclass(frozen=True)
class Kl(MeanMetric):
    """Kullback-Leibler divergence KL(float || model) of the softmax of the logits, in nats; lower is better.

    Outputs and expected (the float model's outputs) are logits [n, ..., classes]; a sample's score is the mean over
    its positions. Kullback and Leibler, On Information and Sufficiency (1951).
    """

    unit: ClassVar[str] = "nats"
    direction: ClassVar[Direction] = "lower"
    against: ClassVar[Literal["expected", "float"]] = "float"

    def _faults(self, output: np.ndarray, expected: np.ndarray) -> Sequence[Fault]:
        if output.ndim < 2:
            return [Fault("outputs", f"shape {output.shape}: logits are [n, ..., classes]")]
        return same_shape(output, expected)

    def _scores(self, output: np.ndarray, expected: np.ndarray) -> np.ndarray:
        wanted, got = log_softmax(expected), log_softmax(output)
        divergence = (np.exp(wanted) * (wanted - got)).sum(axis=-1)
        return np.asarray(divergence.reshape(len(expected), -1).mean(axis=1))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the logarithm of the softmax over the last axis, float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
