"""Means of layers' outputs: in float over calibration samples, and of a quantized layer from what arrives at it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from haversack.base.counted import counted
from haversack.base.encodings import Affine, Codebook, Encodings
from haversack.base.finding import Finding
from haversack.base.graph import Node
from haversack.base.model import Model
from haversack.base.progress import Event
from haversack.compress.prepare.contract import PrepareContext, only_reader
from haversack.compress.prepare.float_means import float_means, rows_of
from haversack.compress.prepare.stages import staged
from haversack.tools.data.stock import Stock, given
from haversack.tools.graph.roles import Role, role
from haversack.tools.graph.simulate import Arrival, Join, Mended, Simulator
from haversack.tools.numerics import palette
from haversack.tools.numerics.affine import dequantize

if TYPE_CHECKING:
    import torch


def correctable(model: Model, encodings: Encodings) -> dict[str, Node]:
    """Return the layers with a weight in integers or in a palette and a bias of their own, by node key."""
    return {
        node.key: node
        for node in model.graph.nodes
        if role(node) is Role.LAYER
        and isinstance(encodings.tensors.get(f"{node.key}:weight"), Affine | Codebook)
        and node.bias is not None
        and only_reader(model, node, node.bias)
    }


def _values(encodings: Encodings, key: str) -> np.ndarray:
    """Return the values of a weight of a correctable layer, float32."""
    encoding = encodings.tensors[key]
    if isinstance(encoding, Codebook):
        return palette.values(encodings.integers[key], encoding)
    assert isinstance(encoding, Affine), "correctable layers have integers or a palette"
    return dequantize(encodings.integers[key], encoding)


FEW = 32
"""What learns from fewer samples tells so."""
TOLD = 1.1
"""From so many times as much on it is said what rounding loses on samples that it was not chosen by."""


@dataclass(frozen=True)
class Wanted:
    """How many rows of samples a part wants to learn from, and what may leave it with fewer.

    Attributes:
        rows: that it wants: its setting ``samples``.
        there: rows of all calibration samples.
        megabytes: that its activations may take: its setting ``megabytes``.
        use: what it learns, in words.
    """

    rows: int
    there: int
    megabytes: float
    use: str = "to round by"

    def few(self, rows: int) -> str:
        """Say of how few rows it learns, and what would give it more."""
        text = f"{counted(rows, 'calibration sample')} {self.use}"
        if rows < min(self.rows, self.there):
            text += f", as memory holds no more of {min(self.rows, self.there)} (megabytes = {self.megabytes:g})"
            return f"{text}: raise megabytes, or pack a model with smaller inputs or a smaller fixed batch"
        more = f"give {given(self.rows)}" if self.rows >= FEW else f"set samples = {FEW} (it is {self.rows})"
        return f"{text}: {more}, or what fits these fits others less"


def with_means(
    step: str,
    model: Model,
    layers: Mapping[str, Node],
    context: PrepareContext,
    limits: tuple[int, float],
    weigh: Callable[[Node, Arrival], np.ndarray | None] | None = None,
    unseen: Sequence[float] = (),
) -> Model:
    """Return the model with a bias for each layer that gives it its mean float output, each seeing those before it.

    Args:
        step: the part's name, for the note that it leaves.
        model: what counts as float.
        layers: correctable ones, by node key.
        context: has the samples and the encodings.
        limits: rows of calibration samples at most, and megabytes that their activations may take.
        weigh: returns a layer's new weight, float32, from what arrives at it and at its exact twin; None where the
            integers of the encodings stay: of this layer, or of all.
        unseen: where samples are few: what rounding loses on others, as ``tell_few`` takes it; filled by ``weigh``.
    """
    encodings = context.encodings
    assert encodings is not None, "the contract checks that they are there"
    if not layers:
        return model
    stock = Stock.of(model.inputs, context.samples)
    if weigh is None:
        batches, wanted = float_means(model, layers, context, stock, limits)
        joins: Mapping[str, Join] = {}
        rows = (sum(map(rows_of, batches)),) * 2
    else:
        stages = staged(model, encodings, stock, *limits)
        batches, wanted, joins, rows = list(stages.begin), {}, stages.joins, stages.rows
    changed: dict[str, np.ndarray] = {}
    text = "layers rounded by their outputs" if weigh else "biases of layers"
    done = itertools.count()

    def told() -> None:
        context.sink(Event("compress", "progress", text, next(done), len(layers)))

    def arrive(node: Node, arrival: Arrival) -> Mended | None:
        if node.key not in layers:
            return None
        key = f"{node.key}:weight"
        new = weigh(node, arrival) if weigh else None
        weight = _values(encodings, key) if new is None else new
        mean = _exact_mean(model, node, arrival) if weigh else wanted[node.key]
        bias = (mean - mean_output(node, weight, arrival.inputs)).astype(np.float32)
        changed.update({str(node.bias): bias} if new is None else {str(node.weight): new, str(node.bias): bias})
        told()
        return Mended(new, bias)

    told()
    Simulator(model).run(encodings, batches, arrive=arrive, beside=Encodings.none() if weigh else None, joins=joins)
    use = "to round by" if weigh else "to take means over"
    tell_few(rows[0], Wanted(limits[0], stock.total, limits[1], use), context.tell, unseen)
    first = f"{rows[0]} to " if rows[0] < rows[1] else ""
    return model.with_weights(changed, f"{step}: {counted(len(layers), 'layer')}, {first}{counted(rows[1], 'sample')}")


def _exact_mean(model: Model, node: Node, arrival: Arrival) -> np.ndarray:
    """Return a layer's mean output in float, float64 [channels], over what arrives at it there."""
    _, exact = arrival.both()
    weight, bias = (model.weights[str(name)] for name in (node.weight, node.bias))
    mean: np.ndarray = mean_output(node, weight.astype(np.float32), exact) + bias
    return mean


def are_few(inputs: Iterable[torch.Tensor]) -> bool:
    """Say whether so few rows arrive that rounding by them tells so."""
    return not any(rows >= FEW for rows in itertools.accumulate(len(one) for one in inputs))


def tell_few(rows: int, wanted: Wanted, tell: Callable[[Finding], None], unseen: Sequence[float] = ()) -> None:
    """Tell of samples that are too few to learn from, and of what it costs.

    Args:
        rows: of samples.
        wanted: how many there should be, and what for.
        tell: takes the finding.
        unseen: for layers, how many times as much rounding loses on samples that it was not chosen by; NaN where
            nobody knows.
    """
    if rows >= FEW:
        return
    known = [one for one in unseen if not math.isnan(one)]
    text = wanted.few(rows)
    if not known:
        text += " (what that costs is part of the drop, which is measured on other samples)"
    elif np.median(known) >= TOLD:
        text += f" (rounded by half of them, a layer loses {np.median(known):.1f} times as much on the other half)"
    tell(Finding("few-samples", text))


def mean_output(node: Node, weight: np.ndarray, inputs: Iterable[torch.Tensor]) -> np.ndarray:
    """Return a layer's mean output without bias over all inputs, float64 [channels], from the inputs' sum.

    A layer is linear: the sum of its outputs is its output for the sum of its inputs.

    Args:
        node: a layer.
        weight: float32, as the layer has it.
        inputs: float32 batches; those of one shape are summed.
    """
    import torch

    operate = operation(node, torch.from_numpy(weight).double())
    sums: dict[tuple[int, ...], torch.Tensor] = {}
    rows: dict[tuple[int, ...], int] = {}
    for value in inputs:
        flat = value.reshape(-1, value.shape[-1]) if node.op == "linear" else value
        shape = tuple(flat.shape[1:])
        part = flat.sum(dim=0, keepdim=True).double()
        sums[shape] = sums[shape] + part if shape in sums else part
        rows[shape] = rows.get(shape, 0) + flat.shape[0]
    total, count = np.zeros(weight.shape[0]), 0
    for shape, value in sums.items():
        made = operate(value).reshape(weight.shape[0], -1)
        total += made.sum(dim=1).numpy()
        count += rows[shape] * made.shape[1]
    return total / count


def operation(node: Node, weight: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what a layer does with its input under another weight, in that weight's dtype, without a bias."""
    import torch.nn.functional as F  # noqa: N812 - the name that the field uses

    if node.op == "linear":
        return lambda value: F.linear(value, weight)
    convolve = F.conv1d if node.op == "conv1d" else F.conv2d
    settings = {name: node.attributes[name] for name in ("stride", "padding", "dilation", "groups")}
    return lambda value: convolve(value, weight, None, **settings)
