"""Bias correction: quantized weights and inputs shift a layer's mean output; its bias takes the shift back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from haversack.base.encodings import Affine, Encodings
from haversack.base.graph import Node
from haversack.base.model import Model, Sample
from haversack.base.progress import steps
from haversack.compress.prepare.contract import PrepareContext, PrepareStep, only_reader
from haversack.tools.graph.batches import rebatch
from haversack.tools.graph.execute import Executor
from haversack.tools.graph.roles import Role, role, units
from haversack.tools.graph.simulate import Simulator
from haversack.tools.numerics.affine import dequantize
from haversack.tools.numerics.granularity import output_axis

if TYPE_CHECKING:
    import torch

BATCH = 8


@dataclass(frozen=True)
class BiasCorrect(PrepareStep):
    """Gives every quantized layer the mean output it has in float (Nagel et al. 2019, arXiv:1906.04721, appendix D).

    Layer after layer, each seeing the corrected layers before it: b' = mean of the float output - mean of what the
    quantized layer makes of its quantized input, for each output channel, over samples and positions, before the
    clamp. As a layer is linear, its mean over samples is computed from the sum of its inputs. Layers without a bias
    of their own are left alone. The model that comes in is what counts as float: doing it twice corrects twice.

    Attributes:
        samples: rows of calibration samples at most.
        megabytes: memory that the activations of all rows may take, side by side; fewer rows where they do not fit.

    Raises:
        ValueError: a setting is not positive.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"encodings"})
    leaves: ClassVar[frozenset[str]] = frozenset({"graph"})
    samples: int = 128
    megabytes: float = 512.0

    def __post_init__(self) -> None:
        if self.samples < 1 or not self.megabytes > 0:
            raise ValueError(f"samples and megabytes must be positive, not {self.samples} and {self.megabytes}")

    def _inner(self, model: Model, context: PrepareContext) -> Model:
        assert context.encodings is not None
        layers = _correctable(model, context.encodings)
        if not layers:
            return model
        means = _FloatMeans(layers)
        batches: list[Sample] = []
        rows = 0
        executor = Executor(model)
        source = rebatch(model, context.samples(), BATCH)
        total = -(-self.samples // BATCH)
        for batch in steps(islice(source, total), context.sink, "compress", "bias_correct: float means", total):
            means.start()
            executor.run(batch, observe=means.observe)
            rows += batch[0].shape[0]
            if batches and rows * means.row_bytes(model, context.encodings) > self.megabytes * 1e6:
                means.drop()
                break
            batches.append(batch)
        biases = _corrected(model, context.encodings, layers, batches, means.mean())
        used = sum(batch[0].shape[0] for batch in batches)
        return model.with_weights(biases, f"bias_correct: {len(biases)} layers, {used} samples")


def _correctable(model: Model, encodings: Encodings) -> dict[str, Node]:
    """Return the layers with an integer weight and a bias of their own, by node key."""
    return {
        node.key: node
        for node in model.graph.nodes
        if role(node) is Role.LAYER
        and encodings.affine(f"{node.key}:weight") is not None
        and node.bias is not None
        and only_reader(model, node, node.bias)
    }


@dataclass
class _FloatMeans:
    """Sums of every layer's float output by channel, kept apart by batch so that a batch can be left out."""

    layers: Mapping[str, Node]
    sums: list[dict[str, np.ndarray]] = field(default_factory=list)
    counts: list[dict[str, int]] = field(default_factory=list)
    elements: dict[str, int] = field(default_factory=dict)

    def start(self) -> None:
        """Begin a batch."""
        self.sums.append({})
        self.counts.append({})

    def drop(self) -> None:
        """Forget the last batch."""
        self.sums.pop()
        self.counts.pop()

    def observe(self, node: Node, value: torch.Tensor) -> None:
        """Take in what a node made of the batch."""
        size = value.numel() // max(1, value.shape[0] if value.ndim else 1)
        self.elements[node.key] = max(self.elements.get(node.key, 0), size)
        if node.key in self.layers:
            axis = output_axis(node.op) % value.ndim
            others = [index for index in range(value.ndim) if index != axis]
            self.sums[-1][node.key] = value.sum(dim=others).double().numpy()
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
        made_by = {unit.last.key: unit for unit in parts}
        last_use = {key: index for index, unit in enumerate(parts) for key in unit.head.inputs}
        held, peak = 0, 0
        for index, unit in enumerate(parts):
            size = {key: self._bytes(key, encodings) for key in (unit.last.key, *unit.head.inputs)}
            held += size[unit.last.key]
            peak = max(peak, held)
            held -= sum(size[key] for key in set(unit.head.inputs) if last_use[key] == index and key in made_by)
        return peak

    def _bytes(self, key: str, encodings: Encodings) -> int:
        return self.elements.get(key, 0) * (4 if encodings.affine(f"{key}:out") is None else 1)


def _corrected(
    model: Model,
    encodings: Encodings,
    layers: Mapping[str, Node],
    batches: list[Sample],
    wanted: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Return parameter name -> corrected bias, float32."""
    biases: dict[str, np.ndarray] = {}

    def arrive(node: Node, inputs: Iterator[torch.Tensor]) -> np.ndarray | None:
        if node.key not in layers:
            return None
        assert node.bias is not None
        key = f"{node.key}:weight"
        encoding = encodings.affine(key)
        assert isinstance(encoding, Affine)
        made = _mean_output(node, dequantize(encodings.integers[key], encoding), inputs)
        biases[node.bias] = (wanted[node.key] - made).astype(np.float32)
        return biases[node.bias]

    Simulator(model).run(encodings, batches, arrive=arrive)
    return biases


def _mean_output(node: Node, weight: np.ndarray, inputs: Iterator[torch.Tensor]) -> np.ndarray:
    """Return a layer's mean output without bias over all inputs, float64 [channels], from the inputs' sum."""
    import torch

    operate = _linear(node, torch.from_numpy(weight).double())
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


def _linear(node: Node, weight: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    import torch.nn.functional as F  # noqa: N812 - the name that the field uses

    if node.op == "linear":
        return lambda value: F.linear(value, weight)
    convolve = F.conv1d if node.op == "conv1d" else F.conv2d
    settings = {name: node.attributes[name] for name in ("stride", "padding", "dilation", "groups")}
    return lambda value: convolve(value, weight, None, **settings)
