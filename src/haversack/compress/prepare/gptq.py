"""GPTQ: integers are chosen so that a layer's outputs, not its weights, come nearest to float."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.base.counted import counted
from haversack.base.encodings import Affine
from haversack.base.finding import Finding
from haversack.base.graph import Node
from haversack.base.keys import split_node
from haversack.base.model import Model
from haversack.compress.prepare.contract import PrepareContext, PrepareStep, only_reader
from haversack.compress.prepare.means import correctable, with_means
from haversack.compress.prepare.moments import Moments, moments
from haversack.tools.graph.simulate import Arrival
from haversack.tools.numerics.affine import dequantize
from haversack.tools.numerics.compensate import compensated, refitted, ridge

RIDGES = (0.003, 0.03, 0.3, 1.0, 3.0, 10.0, math.inf)
"""Dampings of the refit that are tried on samples held back from it; the last one changes nothing."""
MOST_DAMPING = 1.0


@dataclass(frozen=True)
class Gptq(PrepareStep):
    """Rounds weights so that a layer's outputs come nearest to float on what the quantized layers before it give.

    Layer after layer: the float weights are refitted to the inputs as they arrive (ridge regression on exact against
    arriving inputs, damped as does best on half of the samples when fitted on the other half), then rounded column by
    column, each column making up for the error of those before it (Frantar et al. 2022, arXiv:2210.17323), with
    centred Hessians, one for each group of a convolution. The bias takes the rest of the mean, as in ``bias_correct``.
    The new weights are the values of integers at the scales that the encodings have. Layers without a bias of their
    own, or with a weight that others read, are left alone; of one with a palette only the bias changes.

    Attributes:
        samples: rows of calibration samples at most.
        damping: fraction of the Hessian's mean diagonal that is added to it at least; more where the refit needs more.
        megabytes: memory that the activations of all rows may take, in integers and in float side by side; fewer rows
            where they do not fit.

    Raises:
        ValueError: a setting is not positive.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"encodings"})
    leaves: ClassVar[frozenset[str]] = frozenset({"graph"})
    samples: int = 64
    damping: float = 0.01
    megabytes: float = 1000.0

    def __post_init__(self) -> None:
        if self.samples < 1 or not self.megabytes > 0 or not self.damping > 0:
            text = f"{self.samples}, {self.damping} and {self.megabytes}"
            raise ValueError(f"samples, damping and megabytes must be positive, not {text}")

    def _inner(self, model: Model, context: PrepareContext) -> Model:
        encodings = context.encodings
        assert encodings is not None, "the contract checks that they are there"
        layers = {
            key: node
            for key, node in correctable(model, encodings).items()
            if only_reader(model, node, str(node.weight))
        }

        def weigh(node: Node, arrival: Arrival) -> np.ndarray | None:
            encoding = encodings.affine(f"{node.key}:weight")
            if encoding is None:
                return None  # a palette: its values stay, its bias takes the mean
            exact = model.weights[str(node.weight)]
            whole, halves = moments(node, exact.shape, *arrival.both())
            _tell_dead(node, whole, context.tell)
            return dequantize(self._codes(exact, encoding, whole, halves), encoding)

        return with_means(self.name, model, layers, context, (self.samples, self.megabytes), weigh)

    def _codes(self, exact: np.ndarray, encoding: Affine, whole: Moments, halves: tuple[Moments, ...]) -> np.ndarray:
        """Return a layer's integers, int32 in the weight's shape."""
        groups = len(whole.hessian)
        target = exact.reshape(groups, len(exact) // groups, -1).astype(np.float64)
        chosen = math.inf  # a single batch judges nothing but itself
        if len(halves) == 2:
            fitted, held = ((half.hessian, half.cross) for half in halves)
            chosen = ridge(target, fitted, held, RIDGES)
        target = refitted(target, whole.hessian, whole.cross, damping=chosen)
        scale = np.broadcast_to(encoding.scale, len(exact)).reshape(groups, -1)
        damping = max(self.damping, min(chosen, MOST_DAMPING))
        codes = compensated(target, whole.hessian, scale, encoding.high, damping=damping, binary=encoding.binary)
        return codes.reshape(exact.shape)


def _tell_dead(node: Node, whole: Moments, tell: Callable[[Finding], None]) -> None:
    """Tell of inputs whose moments are 0: the Hessian is singular there, and only rounding to nearest is left."""
    variances = np.einsum("gii->gi", whole.hessian)
    dead = int((variances <= 0).sum())
    if dead:
        text = f"{dead} of {counted(variances.size, 'input')} never vary on the calibration samples: rounded to nearest"
        tell(Finding("dead-inputs", text, split_node(node.key)[0] or node.key))
