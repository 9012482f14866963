"""Bias correction: quantized weights and inputs shift a layer's mean output; its bias takes the shift back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.base.graph import Node
from haversack.base.model import Model
from haversack.base.progress import Event
from haversack.compress.prepare.contract import PrepareContext, PrepareStep
from haversack.compress.prepare.means import correctable, float_means, mean_output
from haversack.tools.graph.simulate import Arrival, Mended, Simulator
from haversack.tools.numerics.affine import dequantize


@dataclass(frozen=True)
class BiasCorrect(PrepareStep):
    """Gives every quantized layer the mean output it has in float (Nagel et al. 2019, arXiv:1906.04721, appendix D).

    Layer after layer, each seeing the corrected layers before it: b' = mean of the float output - mean of what the
    quantized layer makes of its quantized input, for each output channel, over samples and positions, before the
    clamp. Layers without a bias of their own are left alone. The model that comes in is what counts as float: doing it
    twice corrects twice.

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
        encodings = context.encodings
        assert encodings is not None, "the contract checks that they are there"
        layers = correctable(model, encodings)
        if not layers:
            return model
        batches, wanted = float_means(model, layers, context, self.samples, self.megabytes)
        biases: dict[str, np.ndarray] = {}

        def told(done: int) -> None:
            context.sink(Event("compress", "progress", "biases of layers", done, len(layers)))

        def arrive(node: Node, arrival: Arrival) -> Mended | None:
            if node.key not in layers:
                return None
            key = f"{node.key}:weight"
            encoding = encodings.affine(key)
            assert encoding is not None, "correctable layers have integer weights"
            weight = dequantize(encodings.integers[key], encoding)
            bias = (wanted[node.key] - mean_output(node, weight, arrival.inputs)).astype(np.float32)
            biases[str(node.bias)] = bias
            told(len(biases))
            return Mended(bias=bias)

        told(0)
        Simulator(model).run(encodings, batches, arrive=arrive)
        rows = sum(batch[0].shape[0] for batch in batches)
        return model.with_weights(biases, f"bias_correct: {len(biases)} layers, {rows} samples")
