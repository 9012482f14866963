"""Equalization: channels that differ in range share one scale badly; the layers around them can even them out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from haversack.base.counted import counted
from haversack.base.graph import Node
from haversack.base.model import Model
from haversack.compress.prepare.channels import Group, groups, groups_of
from haversack.compress.prepare.contract import PrepareContext, PrepareStep
from haversack.tools.graph.batches import rebatch
from haversack.tools.graph.execute import Executor
from haversack.tools.numerics.granularity import output_axis

if TYPE_CHECKING:
    import torch

BATCH = 8


@dataclass(frozen=True)
class Equalize(PrepareStep):
    """Evens out the channels of activations against the weights that read them, through relu, adds and linear paths.

    Cross-layer equalization (Nagel et al. 2019, arXiv:1906.04721, section 4.1) of every group of channels that can be
    scaled together (see ``channels``), a residual stream with all its makers and readers included. As weights have a
    scale for each output channel, what counts is the range of the activations (Xiao et al. 2022, arXiv:2211.10438):
    channel i is divided by a power of two near sqrt(activation range / range of the weights that read it), the
    latter relative to the largest weight of the same output channel. Powers of two leave every bit of the float
    output as it was. Through relu6 nothing scales: its groups are left alone.

    Attributes:
        samples: rows of calibration samples at most, from which activation ranges are taken.
        rounds: passes over a group at most; fewer when nothing changes any more.
        limit: largest factor of one channel, as a power of two.

    Raises:
        ValueError: a setting is negative, or there are no samples to take.
    """

    leaves: ClassVar[frozenset[str]] = frozenset({"outputs", "graph"})
    samples: int = 32
    rounds: int = 8
    limit: int = 8

    def __post_init__(self) -> None:
        if self.samples < 1 or self.rounds < 0 or self.limit < 0:
            text = f"{self.samples}, {self.rounds} and {self.limit}"
            raise ValueError(f"samples must be positive, rounds and limit must not be negative, not {text}")

    def _inner(self, model: Model, context: PrepareContext) -> Model:
        found = list(groups(model))
        if not found or not self.rounds:
            return model
        peaks = self._peaks(model, context, found)
        weights = dict(model.weights)
        moved = 0
        for group, peak in zip(found, peaks, strict=True):
            power = self._powers(weights, group, peak)
            moved += bool(power.any())
            _apply(weights, group, power)
        changed = {name: value for name, value in weights.items() if value is not model.weights[name]}
        return model.with_weights(changed, f"equalize: {counted(moved, 'group')} of channels") if moved else model

    def _peaks(self, model: Model, context: PrepareContext, found: list[Group]) -> list[np.ndarray]:
        """Return the largest absolute activation of each channel of each group, float64 [channels]."""
        peaks = [np.zeros(group.channels) for group in found]
        of_tensor = {key: index for index, group in enumerate(found) for key in group.tensors}
        axes = {key: output_axis(group.makers[0].op) for group in found for key in group.tensors}

        def observe(node: Node, value: torch.Tensor) -> None:
            if node.key in of_tensor:
                axis = axes[node.key] if value.ndim > 2 else -1
                largest = value.abs().movedim(axis, 0).flatten(1).amax(dim=1).double().numpy()
                index = of_tensor[node.key]
                peaks[index] = np.maximum(peaks[index], largest)

        executor = Executor(model)
        for batch in islice(rebatch(model, context.samples(), BATCH), -(-self.samples // BATCH)):
            executor.run(batch, observe=observe)
        return peaks

    def _powers(self, weights: dict[str, np.ndarray], group: Group, peak: np.ndarray) -> np.ndarray:
        """Return the power of two by which each channel is divided, int64 [channels]."""
        power = np.zeros(group.channels, np.int64)
        alive = (peak > 0) & (_reading(weights, group, power) > 0)
        if not alive.any():
            return power
        for _ in range(self.rounds):
            made = np.ldexp(peak, -power)[alive]
            ratio = np.log2(made / _reading(weights, group, power)[alive])
            step = np.zeros_like(power)
            step[alive] = np.rint((ratio - np.median(ratio)) / 2).astype(np.int64)
            after = np.clip(power + step, -self.limit, self.limit)
            if (after == power).all():
                break
            power = after
        return power


def _reading(weights: dict[str, np.ndarray], group: Group, power: np.ndarray) -> np.ndarray:
    """Return how large the weights that read each channel are, relative to their row's largest: float64 [channels]."""
    largest = np.zeros(group.channels)
    for reader in group.readers:
        parts = np.abs(_by_input(_scaled(weights[str(reader.weight)], power, groups_of(reader)), groups_of(reader)))
        rows = parts.max(axis=(2, 3), keepdims=True)
        relative = np.divide(parts, rows, out=np.zeros_like(parts), where=rows > 0)
        largest = np.maximum(largest, relative.max(axis=(1, 3)).reshape(-1))
    return largest


def _apply(weights: dict[str, np.ndarray], group: Group, power: np.ndarray) -> None:
    """Divide what makers give by 2^power, and multiply what readers take by it, in place of the named weights."""
    if not power.any():
        return
    for maker in group.makers:
        weight = weights[str(maker.weight)]
        shape = (-1, *[1] * (weight.ndim - 1))
        weights[str(maker.weight)] = np.ldexp(weight, -power.reshape(shape)).astype(np.float32)
        if maker.bias is not None:
            weights[maker.bias] = np.ldexp(weights[maker.bias], -power).astype(np.float32)
    for reader in group.readers:
        weights[str(reader.weight)] = _scaled(weights[str(reader.weight)], power, groups_of(reader))


def _by_input(weight: np.ndarray, count: int) -> np.ndarray:
    """Return a weight [out, in / groups, ...] as [groups, out / groups, in / groups, taps]."""
    return weight.reshape(count, weight.shape[0] // count, weight.shape[1], -1)


def _scaled(weight: np.ndarray, power: np.ndarray, count: int) -> np.ndarray:
    """Return a weight with what it reads of each input channel multiplied by 2^power."""
    scaled = np.ldexp(_by_input(weight, count), power.reshape(count, 1, weight.shape[1], 1))
    return np.asarray(scaled, np.float32).reshape(weight.shape)
