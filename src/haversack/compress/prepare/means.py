"""Means of layers' outputs: in float over calibration samples, and of a quantized layer from what arrives at it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from haversack.base.counted import counted
from haversack.base.encodings import Affine, Codebook, Encodings
from haversack.base.finding import Finding
from haversack.base.graph import Node
from haversack.base.model import Model, Sample
from haversack.base.progress import Event, steps
from haversack.compress.prepare.contract import PrepareContext, only_reader
from haversack.tools.data.stock import Stock, given
from haversack.tools.graph.batches import rebatch
from haversack.tools.graph.execute import Executor
from haversack.tools.graph.roles import Role, role, units
from haversack.tools.graph.simulate import Arrival, Mended, Simulator
from haversack.tools.numerics import palette
from haversack.tools.numerics.affine import dequantize
from haversack.tools.numerics.granularity import output_axis

if TYPE_CHECKING:
    import torch

BATCH = 8


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
    beside = Encodings.none() if weigh else None
    stock = Stock.of(model.inputs, context.samples)
    batches, wanted = float_means(model, layers, context, stock, limits, beside=weigh is not None)
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
        bias = (wanted[node.key] - mean_output(node, weight, arrival.inputs)).astype(np.float32)
        changed.update({str(node.bias): bias} if new is None else {str(node.weight): new, str(node.bias): bias})
        told()
        return Mended(new, bias)

    told()
    Simulator(model).run(encodings, batches, arrive=arrive, beside=beside)
    rows = sum(batch[0].shape[0] for batch in batches)
    use = "to round by" if weigh else "to take means over"
    tell_few(rows, Wanted(limits[0], stock.total, limits[1], use), context.tell, unseen)
    return model.with_weights(changed, f"{step}: {counted(len(layers), 'layer')}, {counted(rows, 'sample')}")


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
    if known:
        text += f" (rounded by half of them, a layer loses {np.median(known):.1f} times as much on the other half)"
    tell(Finding("few-samples", text))


def float_means(
    model: Model,
    layers: Mapping[str, Node],
    context: PrepareContext,
    stock: Stock,
    limits: tuple[int, float],
    *,
    beside: bool = False,
) -> tuple[list[Sample], dict[str, np.ndarray]]:
    """Return calibration batches, and over them the mean float output of every layer, float64 [channels], by node key.

    Where the activations do not fit, it begins again with as many rows as fit, spread as evenly over all.

    Args:
        model: the float model.
        layers: layers by node key.
        context: has the encodings under which the batches are to be run side by side.
        stock: the calibration samples.
        limits: rows at most, and megabytes that the activations of all batches may take in that run.
        beside: whether the float model is run beside them, and takes memory as well.
    """
    assert context.encodings is not None, "steps that need encodings run after these exist"
    executor, room = Executor(model), limits[1] * 1e6
    fit = count = -(-limits[0] // BATCH)
    while True:
        means, found = FloatMeans(layers), list[Sample]()
        total, source = stock.rows(count, BATCH), rebatch(model, stock.take(count, BATCH), BATCH)
        batches = -(-total // (BATCH if stock.free else max(stock.lengths)))
        for batch in steps(source, context.sink, "compress", "mean outputs of layers", batches):
            means.start()
            executor.run(batch, observe=means.observe)
            found.append(batch)
            held = means.row_bytes(model, context.encodings)
            held += means.row_bytes(model, Encodings.none()) if beside else 0
            if total * held > room:
                fit = max(1, min(fit, int(room / held) // max(BATCH, len(batch[0]))))
            if fit < count:
                break
        if fit == count:
            return found, means.mean()
        count = fit


@dataclass
class FloatMeans:
    """Sums of every layer's float output by channel, batch by batch."""

    layers: Mapping[str, Node]
    sums: list[dict[str, np.ndarray]] = field(default_factory=list)
    counts: list[dict[str, int]] = field(default_factory=list)
    elements: dict[str, int] = field(default_factory=dict)

    def start(self) -> None:
        """Begin a batch."""
        self.sums.append({})
        self.counts.append({})

    def observe(self, node: Node, value: torch.Tensor) -> None:
        """Take in what a node made of the batch, of any shape and dtype."""
        size = value.numel() // max(1, value.shape[0] if value.ndim else 1)
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
        parts = units(model.graph)
        made = {unit.last.key for unit in parts}
        last_use = {key: index for index, unit in enumerate(parts) for key in unit.head.inputs}
        held, peak = 0, 0
        for index, unit in enumerate(parts):
            held += self._bytes(unit.last.key, encodings)
            peak = max(peak, held)
            done = {key for key in unit.head.inputs if last_use[key] == index and key in made}
            held -= sum(self._bytes(key, encodings) for key in done)
        return peak

    def _bytes(self, key: str, encodings: Encodings) -> int:
        return self.elements.get(key, 0) * (4 if encodings.affine(f"{key}:out") is None else 1)


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
