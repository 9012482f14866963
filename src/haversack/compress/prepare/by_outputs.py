"""Rounding by outputs, what its parts share: layer after layer is refitted, rounded, and its bias takes the mean."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from haversack.base.counted import counted
from haversack.base.encodings import Affine, Encodings
from haversack.base.finding import Finding
from haversack.base.graph import Node
from haversack.base.keys import split_node
from haversack.base.model import Model
from haversack.compress.prepare.contract import PrepareContext, PrepareStep, only_reader
from haversack.compress.prepare.means import are_few, correctable, with_means
from haversack.compress.prepare.moments import Moments, moments
from haversack.tools.graph.simulate import Arrival
from haversack.tools.numerics.affine import dequantize, is_power
from haversack.tools.numerics.compensate import compensated, refitted, ridge

RIDGES = (0.003, 0.03, 0.3, 1.0, 3.0, 10.0, math.inf)
"""Dampings of the refit that are tried on samples held back from it; the last one changes nothing."""
MOST_DAMPING = 1.0
FEW_CODES = 4
"""Bits up to which scales are looked for anew: with so few codes the best one is not that of rounding to nearest."""
FACTORS = (1.0, 0.7, 0.78, 0.86, 0.93, 1.08, 1.16, 1.25, 1.35)
"""Scales that are tried then, as fractions of those that the weights have."""


@dataclass(frozen=True)
class Rows:
    """What a layer's integers are chosen for, by group of a convolution.

    Attributes:
        exact: float64 [groups, rows, n], the float weight.
        scale: float32 [groups, rows], of each row's integers.
        encoding: of the weight.
        refit: damping of the refit, as the held half of the samples judges it; infinite where nothing is refitted.
        damping: what the Hessian gets before weights are rounded by it.
        whole: moments over all batches.
        halves: moments over every other batch; one alone where there is one batch.
    """

    exact: np.ndarray
    scale: np.ndarray
    encoding: Affine
    refit: float
    damping: float
    whole: Moments
    halves: tuple[Moments, ...]

    def target(self, seen: Moments) -> np.ndarray:
        """Return the weight as it is refitted to what arrives, float64 [groups, rows, n]."""
        return refitted(self.exact, seen.hessian, seen.cross, damping=self.refit)

    def compensated(self, seen: Moments) -> np.ndarray:
        """Return integers whose columns make up for each other on what arrives, int32 [groups, rows, n]."""
        return self._compensated(self.target(seen), seen, self.scale)

    def _compensated(self, target: np.ndarray, seen: Moments, scale: np.ndarray) -> np.ndarray:
        high, binary = self.encoding.high, self.encoding.binary
        return compensated(target, seen.hessian, scale, high, damping=self.damping, binary=binary)

    def lost(self, seen: Moments, codes: np.ndarray) -> float:
        """Return the mean squared error of all outputs against float, up to what is the same for all codes.

        Args:
            seen: moments, of what arrives and of that with exact inputs.
            codes: integers [groups, rows, n].
        """
        return float(_losses(self.exact @ seen.cross, self.scale, seen, codes).sum())

    def rescaled(self) -> Rows:
        """Return the rows with the scales, of ``FACTORS``, at which their compensated integers lose least.

        A row's integers depend on no other row's, so that all scales are tried at once, as rows of their own.
        """
        groups, count = self.scale.shape
        scales = self.scale[:, None, :] * np.array(FACTORS, np.float32)[:, None]
        many, tile = scales.reshape(groups, -1), (1, len(FACTORS), 1)
        codes = self._compensated(np.tile(self.target(self.whole), tile), self.whole, many)
        lost = _losses(np.tile(self.exact @ self.whole.cross, tile), many, self.whole, codes)
        best = lost.reshape(groups, len(FACTORS), count).argmin(axis=1)
        return replace(self, scale=np.take_along_axis(scales, best[:, None], axis=1)[:, 0])

    def unseen(self) -> float:
        """Return how many times as much rounding loses on the half that it was not chosen by; NaN without halves."""
        if len(self.halves) < 2:
            return math.nan
        fitted, held = self.halves
        off = self.target(fitted) - self.scale[:, :, None] * self.compensated(fitted)
        mine, theirs = (float(np.sum((off @ one.hessian) * off)) / _size(one) for one in (fitted, held))
        return theirs / mine if mine > 0 else math.nan


def _losses(wanted: np.ndarray, scale: np.ndarray, seen: Moments, codes: np.ndarray) -> np.ndarray:
    """Return the mean squared error of each row, float64 [groups, rows], up to what is the same for all codes.

    Args:
        wanted: exact weights times cross moments, float64 [groups, rows, n].
        scale: float32 [groups, rows].
        seen: moments of what arrives.
        codes: integers [groups, rows, n].
    """
    made = scale[:, :, None].astype(np.float64) * codes
    found: np.ndarray = np.sum((made @ seen.hessian - 2.0 * wanted) * made, axis=2)
    return found


def _size(seen: Moments) -> float:
    """Return the mean square of inputs, or the least number above 0."""
    return max(float(np.einsum("gii->", seen.hessian)), float(np.finfo(np.float64).tiny))


@dataclass(frozen=True)
class ByOutputs(PrepareStep):
    """A step that rounds weights by what layers give; an author says how rows of integers are chosen.

    Weights of up to four bits get new scales first, channel by channel: those at which integers that make up for each
    other lose least. Powers of two, and one scale for a whole tensor, stay.

    Attributes:
        samples: rows of calibration samples at most.
        damping: fraction of the Hessian's mean diagonal that is added to it at least; more where the refit needs more.
        megabytes: memory that the activations of all rows may take, in integers and in float side by side; where they
            do not fit, fewer rows are there, and others join as soon as there is room (``stages``).

    Raises:
        ValueError: a setting is not positive.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"encodings"})
    leaves: ClassVar[frozenset[str]] = frozenset({"graph"})
    samples: int = 128
    damping: float = 0.01
    megabytes: float = 500.0

    def __post_init__(self) -> None:
        if self.samples < 1 or not self.megabytes > 0 or not self.damping > 0:
            text = f"{self.samples}, {self.damping} and {self.megabytes}"
            raise ValueError(f"samples, damping and megabytes must be positive, not {text}")

    @abc.abstractmethod
    def _round(self, rows: Rows) -> np.ndarray:
        """Return integers for a layer's rows, int32 [groups, rows, n]."""

    def _inner(self, model: Model, context: PrepareContext) -> Model:
        encodings = context.encodings
        assert encodings is not None, "the contract checks that they are there"
        layers = mendable(model, encodings)
        unseen: list[float] = []

        def weigh(node: Node, arrival: Arrival) -> np.ndarray | None:
            encoding = encodings.affine(f"{node.key}:weight")
            if encoding is None:
                return None  # a palette: its values stay, its bias takes the mean
            found = self.rounded(node, model.weights[str(node.weight)], encoding, arrival, context)
            if are_few(arrival.inputs):
                unseen.append(found.rows.unseen())
            return dequantize(found.codes, found.encoding)

        return with_means(self.name, model, layers, context, (self.samples, self.megabytes), weigh, unseen)

    def rounded(
        self, node: Node, exact: np.ndarray, encoding: Affine, arrival: Arrival, context: PrepareContext
    ) -> Rounded:
        """Return a layer's integers, and tell of dead inputs and of new scales.

        Args:
            node: the layer.
            exact: its float weight.
            encoding: of the weight.
            arrival: what arrives at it, and at its exact twin.
            context: takes findings and scales.
        """
        whole, halves = moments(node, exact.shape, *arrival.both())
        _tell_dead(node, whole, context.tell)
        rows = self._rows(exact, encoding, whole, halves)
        free = encoding.bits <= FEW_CODES and encoding.axis is not None and not bool(is_power(encoding.scale).all())
        if free and context.rescale is not None:
            rows = rows.rescaled()
            encoding = replace(encoding, scale=rows.scale.reshape(encoding.scale.shape))
            context.rescale(f"{node.key}:weight", encoding.scale)
        return Rounded(self._round(rows).reshape(exact.shape), encoding, rows)

    def _rows(self, exact: np.ndarray, encoding: Affine, whole: Moments, halves: tuple[Moments, ...]) -> Rows:
        """Return a layer's rows, with the damping that half of the samples chooses for a refit on the other half."""
        groups = len(whole.hessian)
        weight = exact.reshape(groups, len(exact) // groups, -1).astype(np.float64)
        chosen = math.inf  # a single batch judges nothing but itself
        if len(halves) == 2:
            fitted, held = ((half.hessian, half.cross) for half in halves)
            chosen = ridge(weight, fitted, held, RIDGES)
        scale = np.broadcast_to(encoding.scale, len(exact)).reshape(groups, -1)
        return Rows(weight, scale, encoding, chosen, max(self.damping, min(chosen, MOST_DAMPING)), whole, halves)


@dataclass(frozen=True)
class Rounded:
    """A layer's integers, int32 in the weight's shape, their encoding, and the rows that they were chosen for."""

    codes: np.ndarray
    encoding: Affine
    rows: Rows


def mendable(model: Model, encodings: Encodings) -> dict[str, Node]:
    """Return the layers that are rounded so, by node key: with weight and bias of their own."""
    return {
        key: node for key, node in correctable(model, encodings).items() if only_reader(model, node, str(node.weight))
    }


def _tell_dead(node: Node, whole: Moments, tell: Callable[[Finding], None]) -> None:
    """Tell of inputs whose moments are 0: the Hessian is singular there, and only rounding to nearest is left.

    Some that never vary are the model's; where none does, the samples are more likely at fault.
    """
    variances = np.einsum("gii->gi", whole.hessian)
    dead = int((variances <= 0).sum())
    if dead == variances.size:
        text = f"its {counted(dead, 'input')} never vary: the calibration data are constant, or what comes before it is"
        tell(Finding("constant-inputs", f"{text}; it is rounded to nearest", split_node(node.key)[0] or node.key))
    elif dead:
        text = f"{dead} of {counted(variances.size, 'input')} never vary on the calibration samples: rounded to nearest"
        tell(Finding("dead-inputs", text, split_node(node.key)[0] or node.key))
