"""What tests of rounding share: pictures, weights in few bits, and how far outputs then are from float."""

from __future__ import annotations

import numpy as np

from haversack.base.encodings import Encodings
from haversack.tools.graph.simulate import Simulator
from haversack.tools.numerics.affine import quantize, symmetric


def images(seed, count=8, shape=(3, 9, 9)):
    """Return batches whose neighbouring pixels and channels are much alike, as pictures' are."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        coarse = rng.normal(size=(8, 1, 3, 3)).repeat(3, axis=2).repeat(3, axis=3)
        found.append(((coarse + 0.3 * rng.normal(size=(8, *shape))).astype(np.float32),))
    return found


def narrow(model, bits=4):
    """Weights of every layer in few bits, activations in float."""
    tensors, integers = {}, {}
    for node in model.graph.nodes:
        if node.op in ("linear", "conv2d"):
            weight = model.weights[node.weight]
            scale = np.abs(weight.reshape(len(weight), -1)).max(axis=1) / ((1 << (bits - 1)) - 1)
            key = f"{node.key}:weight"
            tensors[key] = symmetric(scale.astype(np.float32), bits, 0)
            integers[key] = quantize(weight, tensors[key])
    return Encodings(tensors, integers)


def stored(model, encodings):
    """Return the encodings with the integers that a model's weights are rounded to."""
    weights = {f"{node.key}:weight": model.weights[node.weight] for node in model.graph.nodes if node.weight}
    return Encodings(encodings.tensors, {k: quantize(weights[k], encodings.tensors[k]) for k in encodings.integers})


def error(model, encodings, exact, samples):
    found, wanted = (
        np.concatenate([row[0] for row in Simulator(one).run(under, samples)])
        for one, under in ((model, encodings), (exact, Encodings.none()))
    )
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
