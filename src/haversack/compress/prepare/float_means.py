"""Mean outputs of layers in float, and what is alive of a sample while a model runs unit by unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from haversack.base.encodings import Encodings
from haversack.base.graph import Node
from haversack.base.model import Model, Sample
from haversack.base.progress import steps
from haversack.compress.prepare.contract import PrepareContext
from haversack.tools.data.stock import Stock
from haversack.tools.graph.batches import rebatch
from haversack.tools.graph.execute import Executor
from haversack.tools.graph.roles import units
from haversack.tools.numerics.granularity import output_axis

if TYPE_CHECKING:
    import torch

BATCH = 8


def float_means(
    model: Model,
    layers: Mapping[str, Node],
    context: PrepareContext,
    stock: Stock,
    limits: tuple[int, float],
) -> tuple[list[Sample], dict[str, np.ndarray]]:
    """Return calibration batches, and over them the mean float output of every layer, float64 [channels], by node key.

    Where the activations do not fit, it begins again with as many rows as fit, spread as evenly over all.

    Args:
        model: the float model.
        layers: layers by node key.
        context: has the encodings under which the batches are to be run.
        stock: the calibration samples.
        limits: rows at most, and megabytes that the activations of all batches may take in that run.
    """
    assert context.encodings is not None, "steps that need encodings run after these exist"
    executor, room = Executor(model), limits[1] * 1e6
    fit = count = -(-limits[0] // BATCH)
    while True:
        means, found = FloatMeans(layers), list[Sample]()
        total, source = stock.rows(count, BATCH), rebatch(model, stock.take(count, BATCH), BATCH)
        batches = -(-total // (BATCH if stock.free else max(stock.lengths)))
        for batch in steps(source, context.sink, "compress", "mean outputs of layers", batches):
            means.start(rows_of(batch))
            executor.run(batch, observe=means.observe)
            found.append(batch)
            held = means.row_bytes(model, context.encodings)
            if total * held > room:
                fit = max(1, min(fit, int(room / held) // max(BATCH, rows_of(batch))))
            if fit < count:
                break
        if fit == count:
            return found, means.mean()
        count = fit


def rows_of(batch: Sample) -> int:
    """Return the rows of a batch: of its first input, or 1 where that has no axes."""
    return max(1, len(batch[0])) if batch[0].ndim else 1


@dataclass
class FloatMeans:
    """Sums of every layer's float output by channel, batch by batch."""

    layers: Mapping[str, Node]
    sums: list[dict[str, np.ndarray]] = field(default_factory=list)
    counts: list[dict[str, int]] = field(default_factory=list)
    elements: dict[str, int] = field(default_factory=dict)
    rows: int = 1

    def start(self, rows: int) -> None:
        """Begin a batch of so many rows: the first axis of what a node makes need not be theirs."""
        self.rows = rows
        self.sums.append({})
        self.counts.append({})

    def observe(self, node: Node, value: torch.Tensor) -> None:
        """Take in what a node made of the batch, of any shape and dtype."""
        size = -(-value.numel() // self.rows)
        self.elements[node.key] = max(self.elements.get(node.key, 0), size)
        if node.key in self.layers:
            axis = output_axis(node.op) % value.ndim
            others = [index for index in range(value.ndim) if index != axis]
            # A layer whose input is one row alone has channels and no other axis; to sum over none would sum over all.
            self.sums[-1][node.key] = (value.sum(dim=others) if others else value).double().numpy()
            self.counts[-1][node.key] = value.numel() // value.shape[axis]

    def mean(self) -> dict[str, np.ndarray]:
        """Return the mean output of every layer, float64 [channels], by node key."""
        return {
            key: np.sum([part[key] for part in self.sums], axis=0) / sum(part[key] for part in self.counts)
            for key in self.layers
        }

    def row_bytes(self, model: Model, encodings: Encodings) -> int:
        """Return the most bytes that one row's activations take at once, when run unit by unit under encodings."""
        return max(self.alive_bytes(model, encodings), default=0)

    def alive_bytes(self, model: Model, encodings: Encodings) -> list[int]:
        """Return the bytes that one row's activations take while each unit runs, in execution order."""
        parts = units(model.graph)
        made = {unit.last.key for unit in parts}
        last_use = {key: index for index, unit in enumerate(parts) for key in unit.head.inputs}
        held, found = 0, []
        for index, unit in enumerate(parts):
            held += self._bytes(unit.last.key, encodings)
            found.append(held)
            done = {key for key in unit.head.inputs if last_use[key] == index and key in made}
            held -= sum(self._bytes(key, encodings) for key in done)
        return found

    def _bytes(self, key: str, encodings: Encodings) -> int:
        return self.elements.get(key, 0) * (4 if encodings.affine(f"{key}:out") is None else 1)
