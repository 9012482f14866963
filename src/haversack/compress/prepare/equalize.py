"""Equalization: channels that differ in range share one scale badly; the layers around them can even them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from haversack.base.counted import counted
from haversack.base.graph import Node
from haversack.base.model import Model, Sample
from haversack.compress.prepare.channels import Group, groups, groups_of
from haversack.compress.prepare.contract import PrepareContext, PrepareStep
from haversack.compress.prepare.means import operation
from haversack.tools.data.stock import Stock
from haversack.tools.graph.batches import rebatch
from haversack.tools.graph.execute import Executor
from haversack.tools.graph.roles import units
from haversack.tools.numerics.affine import dequantize, from_range, quantize, symmetric
from haversack.tools.numerics.granularity import along, output_axis

if TYPE_CHECKING:
    import torch

STRENGTHS = (0.5, 0.75, 1.0)
"""How much of what is uneven goes into the weights: all of it at 1."""
LEAD = 0.03
"""A group is scaled where that lowers the error of what its readers give by at least this fraction."""
JUDGED = 4
"""One of so many samples judges; the others set ranges."""
WEIGHT_CODES = 127


@dataclass(frozen=True)
class Equalize(PrepareStep):
    """Evens out the channels of activations against the weights that read them, along streams, relus and joins.

    All channels that can be scaled together (see ``channels``) are: in pairs of layers (Nagel et al. 2019,
    arXiv:1906.04721, section 4.1), in a residual stream with all its makers and readers, and beside each other in a
    concatenation, where the narrow branch is widened. Channel i is divided by range^s / weight^(1 - s) (after Xiao et
    al. 2022, arXiv:2211.10438): its largest activation, and the root of the sum of squares of the weights that read
    it, relative to all that their layer reads. Which s of ``STRENGTHS``, or none, is measured for each group: on
    samples that give no factor, by the error of what its readers give with 8-bit inputs and weights, but for its mean,
    which the bias takes. Channels that are made or read by what does not scale (relu6, an output, a shared weight)
    stay; those beside them are brought to their range.

    Attributes:
        samples: rows of calibration samples at most, evenly spread over all; one of four judges what the others give.
        limit: a channel's factor is at most two to this power, and at least its inverse.

    Raises:
        ValueError: fewer than two samples, or a limit that is negative.
    """

    leaves: ClassVar[frozenset[str]] = frozenset({"outputs", "graph"})
    samples: int = 128
    limit: int = 10

    def __post_init__(self) -> None:
        if self.samples < 2 or self.limit < 0:
            text = f"samples must be two at least, limit must not be negative, not {self.samples} and {self.limit}"
            raise ValueError(text)

    def _inner(self, model: Model, context: PrepareContext) -> Model:
        found = list(groups(model))
        stock = Stock.of(model.inputs, context.samples if found else tuple)
        rows = list(rebatch(model, stock.take(self.samples, 1), 1))
        if len(rows) < 2:  # nothing to scale, or nobody to judge
            return model
        judges = rows[1::JUDGED]
        spans = _spans(model, found, [row for index, row in enumerate(rows) if index % JUDGED != 1])
        trials = [self._trials(model, group, spans) for group in found]
        grids = _joined(spans, _spans(model, found, judges))  # outliers widen a grid, as they will in the plan's own
        losses = _losses(model, found, trials, grids, judges)
        weights = dict(model.weights)
        moved = 0
        for group, factors, loss in zip(found, trials, losses, strict=True):
            best = int(np.argmin(loss))
            if best and loss[best] < (1.0 - LEAD) * loss[0]:
                _scale(weights, group, factors[best])
                moved += 1
        changed = {name: value for name, value in weights.items() if value is not model.weights[name]}
        return model.with_weights(changed, f"equalize: {counted(moved, 'group')} of channels") if moved else model

    def _trials(self, model: Model, group: Group, spans: Mapping[str, _Span]) -> list[np.ndarray]:
        """Return what each channel may be divided by, float64 [channels], nothing first."""
        peak, reading = np.zeros(group.channels), np.zeros(group.channels)
        for key, index in group.tensors.items():
            if key in spans:
                np.maximum.at(peak, index, spans[key].largest)
        for reader in group.readers:
            index = group.tensors[reader.inputs[0]]
            parts = _by_input(model.weights[str(reader.weight)], reader).astype(np.float64)
            squares = np.square(parts).sum(axis=(1, 3)).reshape(-1)
            np.add.at(reading, index, squares / ((squares * peak[index] ** 2).sum() or 1.0))
        reading = np.sqrt(reading)
        still = np.ones(group.channels)
        free = group.free & (peak > 0) & (reading > 0)
        if not free.any():
            return [still]
        held = peak[~group.free].max(initial=0.0)
        found = [still]
        for strength in STRENGTHS:
            factors = peak[free] ** strength / reading[free] ** (1.0 - strength)
            if held:
                factors *= (peak[free] / factors).max() / held
            else:
                factors /= np.exp(np.log(factors).mean())
            found.append(still.copy())
            found[-1][free] = np.clip(factors, 2.0**-self.limit, 2.0**self.limit)
        return found


@dataclass
class _Span:
    """The least and the largest value of each channel of a tensor, with 0 in between, float64 [tensor's channels]."""

    low: np.ndarray
    high: np.ndarray

    @property
    def largest(self) -> np.ndarray:
        """The largest size of a value."""
        return np.asarray(np.maximum(-self.low, self.high))


@dataclass
class _Sums:
    """Sums over places of each channel, from which the variance of what went in follows."""

    count: int = 0
    total: np.ndarray = field(default_factory=lambda: np.zeros(1))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(1))

    def add(self, value: torch.Tensor, axis: int) -> None:
        """Take in a tensor with channels on an axis."""
        flat = value.movedim(axis, 0).flatten(1).double()
        self.count += flat.shape[1]
        self.total = self.total + flat.sum(dim=1).numpy()
        self.squares = self.squares + flat.square().sum(dim=1).numpy()

    @property
    def variance(self) -> float:
        """Of all channels together, each about its own mean."""
        return float((self.squares - self.total**2 / max(1, self.count)).sum())


def _spans(model: Model, found: Sequence[Group], rows: Sequence[Sample]) -> dict[str, _Span]:
    """Return the spans of what holds codes: tensors that leave a unit and belong to a group."""
    axes = {key: axis for group in found for key, axis in _axes(model, group).items()}
    axes = {unit.last.key: axes[unit.last.key] for unit in units(model.graph) if unit.last.key in axes}
    spans: dict[str, _Span] = {}

    def observe(node: Node, value: torch.Tensor) -> None:
        if node.key in axes:
            flat = value.movedim(axes[node.key], 0).flatten(1).double()
            low, high = flat.amin(dim=1).clamp(max=0.0).numpy(), flat.amax(dim=1).clamp(min=0.0).numpy()
            if node.key in spans:
                low, high = np.minimum(low, spans[node.key].low), np.maximum(high, spans[node.key].high)
            spans[node.key] = _Span(low, high)

    executor = Executor(model)
    for row in rows:
        executor.run(row, observe=observe)
    return spans


def _joined(one: Mapping[str, _Span], other: Mapping[str, _Span]) -> dict[str, _Span]:
    """Return spans that hold both."""
    return {
        key: _Span(np.minimum(span.low, other[key].low), np.maximum(span.high, other[key].high))
        for key, span in one.items()
    }


def _losses(
    model: Model,
    found: Sequence[Group],
    trials: Sequence[Sequence[np.ndarray]],
    spans: Mapping[str, _Span],
    rows: Sequence[Sample],
) -> list[list[float]]:
    """Return for each group and trial the error of what its readers give, as a fraction of its variance, summed."""
    read: dict[str, list[tuple[int, int, _Trial]]] = {reader.key: [] for group in found for reader in group.readers}
    for number, group in enumerate(found):
        for reader in group.readers:
            index = group.tensors[reader.inputs[0]]
            read[reader.key] += [
                (number, place, _Trial.of(model, reader, factors[index], spans[reader.inputs[0]]))
                for place, factors in enumerate(trials[number])
            ]
    whole = {key: _Sums() for key in read}

    def compute(node: Node, flowing: tuple[torch.Tensor, ...]) -> None:
        if node.key in read:
            import torch

            (value,) = flowing
            exact = operation(node, torch.from_numpy(model.weights[str(node.weight)]))(value)
            axis = output_axis(node.op)
            whole[node.key].add(exact, axis)
            for *_, trial in read[node.key]:
                trial.error.add(trial(value) - exact, axis)

    executor = Executor(model)
    for row in rows:
        executor.run(row, compute=compute)
    losses = [[0.0] * len(factors) for factors in trials]
    for key, mine in read.items():
        for number, place, trial in mine:
            losses[number][place] += trial.error.variance / max(whole[key].variance, np.finfo(np.float64).tiny)
    return losses


@dataclass
class _Trial:
    """A layer with its input and its weight in 8 bits, both scaled for it, and scaled back behind it."""

    factors: torch.Tensor
    scale: float
    zero_point: int
    operate: Callable[[torch.Tensor], torch.Tensor]
    error: _Sums = field(default_factory=_Sums)

    @classmethod
    def of(cls, model: Model, reader: Node, factors: np.ndarray, span: _Span) -> _Trial:
        """Return the trial of a reader whose input channels are divided by factors, float64 [its channels]."""
        import torch

        weight = _multiplied(model.weights[str(reader.weight)], reader, factors)
        largest = np.abs(weight).reshape(len(weight), -1).max(axis=1) / np.float32(WEIGHT_CODES)
        codes = symmetric(np.maximum(largest, np.finfo(np.float32).tiny), axis=0)
        stored = dequantize(quantize(weight, codes), codes)
        grid = from_range(float((span.low / factors).min()), float((span.high / factors).max()))
        rank = len(model.graph.by_key[reader.inputs[0]].output.shape)
        spread = torch.from_numpy(along(factors.astype(np.float32), output_axis(reader.op) % rank, rank))
        return cls(spread, float(grid.scale), int(grid.zero_point), operation(reader, torch.from_numpy(stored)))

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        """Return what the layer gives for a float32 input, without its bias."""
        codes = (value / self.factors / self.scale).round_().add_(self.zero_point).clamp_(0, 255)
        return self.operate(codes.sub_(self.zero_point).mul_(self.scale))


def _axes(model: Model, group: Group) -> dict[str, int]:
    """Return node key -> the axis of its channels; a group has one, counted from the front."""
    axis = {output_axis(maker.op) % len(maker.output.shape) for maker in group.makers}.pop()
    return {key: min(axis, len(model.graph.by_key[key].output.shape) - 1) for key in group.tensors}


def _scale(weights: dict[str, np.ndarray], group: Group, factors: np.ndarray) -> None:
    """Divide what makers give by factors, and multiply what readers take by them, in place of the named weights."""
    for maker in group.makers:
        mine = factors[group.tensors[maker.key]]
        weight = weights[str(maker.weight)]
        weights[str(maker.weight)] = (weight / along(mine, 0, weight.ndim)).astype(np.float32)
        if maker.bias is not None:
            weights[maker.bias] = (weights[maker.bias] / mine).astype(np.float32)
    for reader in group.readers:
        weights[str(reader.weight)] = _multiplied(
            weights[str(reader.weight)], reader, factors[group.tensors[reader.inputs[0]]]
        )


def _by_input(weight: np.ndarray, node: Node) -> np.ndarray:
    """Return a weight [out, in / groups, ...] as [groups, out / groups, in / groups, taps]."""
    return weight.reshape(groups_of(node), weight.shape[0] // groups_of(node), weight.shape[1], -1)


def _multiplied(weight: np.ndarray, node: Node, factors: np.ndarray) -> np.ndarray:
    """Return a weight, float32, with what it reads of each input channel multiplied by a factor."""
    scaled = _by_input(weight, node) * factors.reshape(groups_of(node), 1, weight.shape[1], 1)
    return np.asarray(scaled, np.float32).reshape(weight.shape)
