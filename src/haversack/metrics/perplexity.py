"""Perplexity of a language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.base.errors import Fault
from haversack.base.quality import Direction
from haversack.metrics.contract import Kind, SumMetric
from haversack.metrics.kl import log_softmax

_BLOCK_VALUES = 1 << 22


@dataclass(frozen=True)
class Perplexity(SumMetric):
    """Perplexity: exp of the mean negative log-likelihood of the next token; lower is better.

    Outputs are logits [n, tokens, vocabulary], expected are token ids [n, tokens]: ``expected[i, j]`` is the token
    that ``logits[i, j]`` foretells (already shifted by one). Every token counts alike, whatever sample it is in.

    Attributes:
        ignore: the id of positions that do not count (padding).
    """

    ignore: int = -100

    unit: ClassVar[str] = "perplexity"
    direction: ClassVar[Direction] = "lower"
    kind: ClassVar[Kind] = "integer"
    takes: ClassVar[str] = "token ids [n, tokens], already shifted by one"
    ranks: ClassVar[tuple[int, ...]] = (3,)

    def _faults(self, output: np.ndarray, expected: np.ndarray) -> Sequence[Fault]:
        if expected.shape != output.shape[:2]:
            return [Fault("expected", f"shape {expected.shape}, but the logits' positions are {output.shape[:2]}")]
        counted = expected[expected != self.ignore]
        if counted.size and (counted.min() < 0 or counted.max() >= output.shape[2]):
            size = output.shape[2]
            return [
                Fault("expected", f"token ids from {counted.min()} to {counted.max()}, but the vocabulary has {size}")
            ]
        return []

    def _rows(self, output: np.ndarray, expected: np.ndarray) -> np.ndarray:
        loss = np.zeros(expected.shape)
        step = max(1, _BLOCK_VALUES // output.shape[2])
        for sample, (logits, tokens) in enumerate(zip(output, expected, strict=True)):
            for start in range(0, len(tokens), step):
                part = tokens[start : start + step]
                likelihood = log_softmax(logits[start : start + step])
                loss[sample, start : start + step] = -likelihood[np.arange(len(part)), np.maximum(part, 0)]
        counts = expected != self.ignore
        return np.stack([(loss * counts).sum(axis=1), counts.sum(axis=1)], axis=1)

    def _of_sums(self, sums: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(sums[..., 0] / sums[..., 1]))
