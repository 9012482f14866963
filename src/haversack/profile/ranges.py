"""Activation ranges, streamed: a histogram for each tensor that grows with what it sees, never the activations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from haversack.base.errors import JobError
from haversack.base.graph import Node
from haversack.base.keys import split_node
from haversack.base.model import Model, Sample
from haversack.base.profile import TensorStatistics
from haversack.base.progress import Sink, silent, steps
from haversack.tools.graph.batches import rebatch
from haversack.tools.graph.execute import Executor
from haversack.tools.graph.roles import units

if TYPE_CHECKING:
    import torch

BINS = 2048
BATCH = 8
COUNTED = 1 << 17
"""Of a larger batch of values, an evenly spaced part of this size is counted; minimum and maximum are over all."""


def ranges(model: Model, samples: Iterable[Sample], sink: Sink = silent) -> Mapping[str, TensorStatistics]:
    """Return the statistics of every float tensor that leaves a unit of the graph, by tensor key.

    Memory: one batch of at most 8 rows runs at a time, and 2048 counts are kept for each tensor, however many
    samples there are.

    Args:
        model: what is run, in float32.
        samples: batches of inputs; streamed once.
        sink: told of the progress.

    Raises:
        JobError: no samples, or an input or activation holds NaN or an infinity (named by module path).
    """
    wanted = {unit.last.key for unit in units(model.graph)}
    seen: dict[str, Histogram] = {}

    def observe(node: Node, value: torch.Tensor) -> None:
        if node.key in wanted and value.is_floating_point():
            _check(node, value)
            if node.out not in seen:
                seen[node.out] = Histogram()
            seen[node.out].add(value)

    executor = Executor(model)
    count = 0
    total = -(-sum(_rows(sample) for sample in samples) // BATCH) if isinstance(samples, Sequence) else 0
    for batch in steps(rebatch(model, samples, BATCH), sink, "profile", "ranges of activations", total):
        executor.run(batch, observe=observe)
        count += _rows(batch)
    if not count:
        raise JobError("calibration() gives no samples", next_step="let it yield at least one batch of inputs")
    return {key: histogram.statistics(count) for key, histogram in seen.items()}


def _rows(sample: Sample) -> int:
    return int(sample[0].shape[0]) if sample[0].ndim else 1


def _check(node: Node, value: torch.Tensor) -> None:
    import torch

    if value.numel() and not bool(torch.isfinite(torch.stack(torch.aminmax(value))).all()):
        module = split_node(node.key)[0]
        is_input = node.op == "input"
        raise JobError(
            "a calibration input holds NaN or an infinity" if is_input else "it returns NaN or an infinity in float32",
            where=module or node.key,
            tried="running the float model on the calibration samples",
            next_step="clean calibration()" if is_input else f"look at the inputs and weights of {module or node.key}",
        )


class Histogram:
    """Counts in equal bins over a span that doubles, neighbouring bins merging, until it holds every value."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.low = self.high = 0.0
        self.minimum, self.maximum = math.inf, -math.inf
        self._calls = 0

    def add(self, values: torch.Tensor) -> None:
        """Take in finite values of any shape."""
        import torch

        if not values.numel():
            return
        flat = values.detach().reshape(-1).float()
        low, high = (float(bound) for bound in torch.aminmax(flat))
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self._cover(low, high)
        stride = -(-flat.numel() // COUNTED) | 1 if flat.numel() > COUNTED else 1
        part = flat[self._calls % stride :: stride].double()
        self._calls += 1
        bins = ((part - self.low) * (BINS / (self.high - self.low))).long().clamp_(0, BINS - 1)
        self.counts += torch.bincount(bins, minlength=BINS).numpy()

    def statistics(self, samples: int) -> TensorStatistics:
        """Return what was seen, of so many samples."""
        return TensorStatistics(self.minimum, self.maximum, self.counts, self.low, self.high, samples)

    def _cover(self, low: float, high: float) -> None:
        if self.low == self.high:
            self.low, self.high = low, high
            if low == high:
                self.high = low + max(abs(low), 1.0) * 2.0**-20
        while high > self.high:
            self.high += self.high - self.low
            self.counts = np.concatenate([_halved(self.counts), np.zeros(BINS // 2, np.int64)])
        while low < self.low:
            self.low -= self.high - self.low
            self.counts = np.concatenate([np.zeros(BINS // 2, np.int64), _halved(self.counts)])


def _halved(counts: np.ndarray) -> np.ndarray:
    """Return the counts with neighbouring bins merged, int64 [bins / 2]."""
    return np.asarray(counts.reshape(-1, 2).sum(axis=1))
