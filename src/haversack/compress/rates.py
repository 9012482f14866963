"""Rates: how many bits a weight takes as a download, for each way in which a layer may be stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from haversack.base.encodings import Affine, Encoding
from haversack.base.graph import Node
from haversack.base.model import Model
from haversack.base.plan import LayerPlan
from haversack.base.spread import Spread, here
from haversack.compress.selection import bears
from haversack.compress.weights import store
from haversack.tools.graph.roles import Role, role
from haversack.tools.numerics.entropy import bits_per_code


def rates(
    model: Model, ways: Callable[[Node], Mapping[str, LayerPlan]], spread: Spread = here
) -> dict[str, dict[str, float]]:
    """Return node key of each layer -> kind -> bits of a weight, its share of the scales too: ``Profile.rates``.

    Codes count by their entropy, scales by that of each of their four bytes. Codes are rounded to nearest; rounding
    them by what a layer gives moves few of them, and the entropy hardly.

    Args:
        model: the prepared model.
        ways: node -> kind -> how its weights may be stored; what the node cannot have is left out.
        spread: where weights are stored; each way of each layer is a task.

    Raises:
        JobError: a weight holds NaN or an infinity.
    """
    tried = [
        (node.key, kind, layer)
        for node in model.graph.nodes
        if role(node) in (Role.LAYER, Role.EMBEDDING)
        for kind, layer in ways(node).items()
        if bears(node, layer.precision)
    ]
    bits = spread(rate, model, [(key, layer) for key, _, layer in tried])
    found: dict[str, dict[str, float]] = {}
    for (key, kind, _), value in zip(tried, bits, strict=True):
        found.setdefault(key, {})[kind] = value
    return found


def rate(model: Model, task: tuple[str, LayerPlan]) -> float:
    """Return the bits that a weight takes, its share of the scales too.

    Args:
        model: the prepared model.
        task: node key of a layer, and how its weights are stored.

    Raises:
        JobError: a weight holds NaN or an infinity.
    """
    key, layer = task
    stored = store(model, model.graph.by_key[key], layer, None)
    (codes,) = stored.integers.values()
    scales = _scale_bits(stored.tensors[f"{key}:weight"])
    return bits_per_code(codes) + scales / max(codes.size, 1)


def _scale_bits(encoding: Encoding) -> float:
    """Return the bits that the scales of a weight take together."""
    if not isinstance(encoding, Affine):
        return 0.0
    planes = np.ascontiguousarray(encoding.scale.reshape(-1)).view(np.uint8).reshape(-1, 4)
    return sum(bits_per_code(plane) * len(plane) for plane in planes.T)
