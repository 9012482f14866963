"""A released model in training: what may change of it as numbers with derivatives, all else as it is stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from haversack.base.encodings import Affine, Encodings
from haversack.base.graph import Node
from haversack.base.model import Model, Sample
from haversack.tools.graph.roles import units
from haversack.tools.graph.segments import Segments, encoded
from haversack.tools.graph.simulate import stored_weight
from haversack.tools.numerics.affine import quantize, raise_for_bias

if TYPE_CHECKING:
    import torch

Way = Literal["channels", "weights"]
"""How a layer may change: its bias and a factor for each channel's scale, the integers staying; or its integers and its
bias, the scales staying."""
WAYS: tuple[Way, ...] = ("channels", "weights")
GAIN, BIAS = 0.01, 0.01
"""What a scale and a bias move by while a weight moves by one step: a fraction of the scale, and of the range that the
layer's output has."""
BOUND = 2.0
"""A channel's scale is at most so many times what it was, and at least one so-many-th of it."""


class Tuned:
    """A released model of which some layers may change.

    The forward pass is that of the artefact, simulated: weights are rounded to their codes and activations to theirs,
    with derivatives by straight-through estimation (Esser et al. 2020, arXiv:1902.08153, section 2). A weight is a
    number of its own steps: one that has moved by less than half a step has not changed.

    Args:
        model: the float model; biases are its own.
        encodings: of the release.
        ways: key of a layer -> how it may change; a layer that is absent stays as it is stored.
    """

    def __init__(self, model: Model, encodings: Encodings, ways: Mapping[str, Way]) -> None:
        import torch

        self.model, self.encodings, self.ways = model, encodings, dict(ways)
        self._segments = Segments(model)
        stored = {str(node.weight): stored_weight(model, encodings, node) for node in model.graph.nodes if node.weight}
        self._frozen = {name: torch.from_numpy(value) for name, value in stored.items() if value is not None}
        self._layers = [_Layer(model, encodings, model.graph.by_key[key], way) for key, way in ways.items()]

    def numbers(self) -> dict[str, torch.Tensor]:
        """Return what is trained, float32 by name, all at one rate."""
        return {f"{one.node.key} {name}": value for one in self._layers for name, value in one.numbers.items()}

    def load(self, values: Mapping[str, np.ndarray]) -> None:
        """Take numbers as ``numbers`` gave them, by name.

        Raises:
            KeyError: one is missing.
        """
        import torch

        with torch.no_grad():
            for name, number in self.numbers().items():
                number.copy_(torch.from_numpy(np.asarray(values[name])))

    def __call__(self, batch: Sample, active: Collection[str] | None = None) -> tuple[torch.Tensor, ...]:
        """Return the outputs for one batch, in the order of the model's outputs, with derivatives.

        Args:
            batch: arrays in the order of the model's inputs.
            active: keys of the layers that are as trained, the others as they were; None for all.
        """
        constants = dict(self._frozen)
        for one in self._layers:
            if active is None or one.node.key in active:
                constants |= one.values()
        hooks = encoded(self.encodings, constants)
        alive = self._segments.run(range(len(self._segments)), self._segments.start(batch, hooks), hooks)
        return self._segments.outputs(alive)

    def hardened(self) -> tuple[Model, Encodings]:
        """Return the model with what was learnt, and its encodings: those of the release but for what changed."""
        weights: dict[str, np.ndarray] = {}
        tensors, integers = dict(self.encodings.tensors), dict(self.encodings.integers)
        for one in self._layers:
            key = f"{one.node.key}:weight"
            weights |= one.hardened()
            encoding, codes = one.encoding(), one.codes()
            if encoding is not None:
                tensors[key], integers[key] = self._roomy(one.node, encoding, codes, weights)
        return self.model.with_weights(weights), Encodings(tensors, integers)

    def _roomy(
        self, node: Node, encoding: Affine, codes: np.ndarray, weights: Mapping[str, np.ndarray]
    ) -> tuple[Affine, np.ndarray]:
        """Return how a weight is stored, its scale raised where the bias has outgrown 32 bits at it."""
        source = self.encodings.affine(f"{node.inputs[0]}:out")
        if source is None or node.bias is None:
            return encoding, codes
        scale, raised = raise_for_bias(encoding.scale, weights[node.bias], source.scale)
        if not raised.any():
            return encoding, codes
        wider = replace(encoding, scale=scale)
        return wider, quantize(weights[str(node.weight)], wider)


class _Layer:
    """One layer in training."""

    def __init__(self, model: Model, encodings: Encodings, node: Node, way: Way) -> None:
        import torch

        self.node, self.way = node, way
        self._affine = encodings.affine(f"{node.key}:weight")
        exact = model.weights[str(node.weight)].astype(np.float32)
        begun = encodings.integers[f"{node.key}:weight"] if self._affine is not None else exact / _spread(exact)
        self._begun = torch.from_numpy(begun.astype(np.float32))
        scale = self._affine.scale if self._affine is not None else np.array(_spread(exact), np.float32)
        self._scale = torch.from_numpy(np.array(scale, np.float32))
        self._bias = torch.from_numpy(model.weights[node.bias].astype(np.float32)) if node.bias else None
        self._unit = _bias_unit(model, encodings, node)
        self.numbers: dict[str, torch.Tensor] = {}
        if way == "weights":
            self.numbers["steps"] = self._begun.clone().requires_grad_()
        else:
            self.numbers["gain"] = torch.zeros_like(self._scale).requires_grad_()
        if self._bias is not None:
            self.numbers["bias"] = torch.zeros_like(self._bias).requires_grad_()

    def values(self) -> dict[str, torch.Tensor]:
        """Return weight and bias as they are now, float32 by parameter name."""
        found = {str(self.node.weight): self._rounded() * self._shaped(self._scaled())}
        if self._bias is not None:
            found[str(self.node.bias)] = self._shifted()
        return found

    def hardened(self) -> dict[str, np.ndarray]:
        import torch

        with torch.no_grad():
            return {name: value.numpy().copy() for name, value in self.values().items()}

    def encoding(self) -> Affine | None:
        """Return the encoding of the weight as it is now; None where it has none."""
        import torch

        if self._affine is None or self.way == "weights":
            return self._affine
        with torch.no_grad():
            return replace(self._affine, scale=self._scaled().numpy().astype(np.float32))

    def codes(self) -> np.ndarray:
        import torch

        with torch.no_grad():
            return np.asarray(self._rounded().numpy(), np.int32)

    def _rounded(self) -> torch.Tensor:
        if self.way != "weights":
            return self._begun
        steps = self.numbers["steps"]
        if self._affine is None:
            return steps
        inside = steps.clamp(self._affine.low, self._affine.high)
        return inside + (inside.detach().round() - inside.detach())

    def _scaled(self) -> torch.Tensor:
        if self.way == "weights":
            return self._scale
        return self._scale * (1 + GAIN * self.numbers["gain"]).clamp(1 / BOUND, BOUND)

    def _shifted(self) -> torch.Tensor:
        assert self._bias is not None, "only layers with a bias are shifted"
        return self._bias + self._unit * self.numbers["bias"]

    def _shaped(self, scale: torch.Tensor) -> torch.Tensor:
        shape = [1] * self._begun.ndim
        if self._affine is not None and self._affine.axis is not None:
            shape[self._affine.axis] = -1
        return scale.reshape(shape)


def _spread(weight: np.ndarray) -> float:
    """Return what stands for a step where a weight has none: the largest absolute value has 127."""
    return max(float(np.abs(weight).max(initial=0.0)), float(np.finfo(np.float32).tiny)) / 127


def _bias_unit(model: Model, encodings: Encodings, node: Node) -> float:
    """Return what a bias moves by: a part of its output's range where that is fixed, or of the bias itself."""
    last = next(unit.out for unit in units(model.graph) if unit.head.key == node.key)
    found = encodings.affine(last)
    if found is not None:
        return BIAS * float(found.scale) * (found.high - found.low)
    own = float(np.abs(model.weights[node.bias]).mean()) if node.bias else 0.0
    return BIAS * (own or 1.0)
