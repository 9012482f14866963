"""What pays: how much less loss each layer's change brings, and how many bytes of a delta it takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from haversack.base.encodings import Encodings
from haversack.base.model import Model
from haversack.compress.finetune.course import Pair, mean_loss
from haversack.compress.finetune.losses import Loss
from haversack.compress.finetune.tuned import Tuned, Way
from haversack.tools.numerics.entropy import bits_per_code

SCALE_BITS = 24.0
"""Of a scale that another one took the place of: the lower bits of two floats have nothing in common."""
BIAS_BITS = 14.0
"""Of a bias that moved, as an int32 difference."""


@dataclass(frozen=True)
class Offer:
    """One layer's change in one way.

    Attributes:
        layer: its key.
        way: how it changes.
        gain: how much less loss it brings, on samples held back.
        bytes: forecast of a delta, by the entropy of what changes.
        chosen: whether it is taken.
    """

    layer: str
    way: Way
    gain: float
    bytes: float
    chosen: bool = False

    @property
    def pay(self) -> float:
        """Gain for each byte."""
        return self.gain / max(self.bytes, 1.0)


def offers(tuned: Tuned, ways: Mapping[str, Way], held: Sequence[Pair], loss: Loss) -> tuple[Offer, ...]:
    """Return what each layer of a model that was trained as a whole brings, best paid first.

    A layer's gain is the mean of two: what it brings alone, the others as they were released; and what is lost where
    it alone is taken back. The first counts what others could bring as well, the second what only it can: they are the
    first and the last term of its Shapley value. Cost: two forward passes a layer over ``held``.

    Args:
        tuned: trained.
        ways: of its layers.
        held: (inputs, expected) that were not trained on.
        loss: of a batch.
    """
    none, every = mean_loss(tuned, held, loss, ()), mean_loss(tuned, held, loss)
    sizes = forecast(tuned)
    found = []
    for key, way in ways.items():
        alone = none - mean_loss(tuned, held, loss, (key,))
        last = mean_loss(tuned, held, loss, [other for other in ways if other != key]) - every
        found.append(Offer(key, way, (alone + last) / 2, sizes[key]))
    return tuple(sorted(found, key=lambda one: -one.pay))


def forecast(tuned: Tuned) -> dict[str, float]:
    """Return key of a layer -> bytes that its change takes in a delta, by the entropy of the differences of codes."""
    model, encodings = tuned.hardened()
    return {key: _bytes(tuned.model, tuned.encodings, model, encodings, key) for key in tuned.ways}


def _bytes(old: Model, before: Encodings, new: Model, after: Encodings, key: str) -> float:
    node = old.graph.by_key[key]
    one, two = before.affine(f"{key}:weight"), after.affine(f"{key}:weight")
    if one is None or two is None:
        changed = old.weights[str(node.weight)] != new.weights[str(node.weight)]
        bits = SCALE_BITS * float(np.count_nonzero(changed))
    else:
        moved = after.integers[f"{key}:weight"] - before.integers[f"{key}:weight"]
        bits = bits_per_code(moved) * moved.size
        bits += SCALE_BITS * float(np.count_nonzero(one.scale != two.scale))
    if node.bias:
        bits += BIAS_BITS * float(np.count_nonzero(old.weights[node.bias] != new.weights[node.bias]))
    return bits / 8


def scaled(given: Iterable[Offer], factor: float) -> tuple[Offer, ...]:
    """Return offers whose bytes are so many times as many: what a real delta took of what was forecast."""
    return tuple(replace(one, bytes=one.bytes * factor) for one in given)


def afforded(given: Iterable[Offer], limit: float) -> tuple[Offer, ...]:
    """Return at most one offer a layer, those that bring most within a limit of bytes.

    A multiple-choice knapsack, greedily: steps from one way of a layer to a dearer one that brings more, the best paid
    first, each while it fits. Optimal but for the last step where ways of a layer pay less the dearer they are.

    Args:
        given: offers; several of a layer exclude each other.
        limit: bytes.
    """
    by_layer: dict[str, list[Offer]] = {}
    for one in given:
        if one.gain > 0:
            by_layer.setdefault(one.layer, []).append(one)
    chosen: dict[str, Offer] = {}
    left = limit
    while True:
        steps = [
            (one.gain - _of(chosen, layer, "gain"), one.bytes - _of(chosen, layer, "bytes"), one)
            for layer, those in by_layer.items()
            for one in those
        ]
        fitting = [step for step in steps if step[0] > 0 and step[1] <= left]
        if not fitting:
            return tuple(chosen.values())
        _, taken, best = max(fitting, key=lambda step: (step[0] / max(step[1], 1.0), step[0]))
        chosen[best.layer] = best
        left -= taken


def _of(chosen: Mapping[str, Offer], layer: str, name: str) -> float:
    return float(getattr(chosen[layer], name)) if layer in chosen else 0.0
