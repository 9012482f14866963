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
        spread: where weights are stored; each layer is a task.

    Raises:
        JobError: a weight holds NaN or an infinity.
    """
    tried = {
        node.key: {kind: layer for kind, layer in ways(node).items() if bears(node, layer.precision)}
        for node in model.graph.nodes
        if role(node) in (Role.LAYER, Role.EMBEDDING)
    }
    tried = {key: kinds for key, kinds in tried.items() if kinds}
    bits = spread(bits_of, model, [(key, tuple(kinds.values())) for key, kinds in tried.items()])
    return {key: dict(zip(kinds, found, strict=True)) for (key, kinds), found in zip(tried.items(), bits, strict=True)}


def bits_of(model: Model, task: tuple[str, tuple[LayerPlan, ...]]) -> list[float]:
    """Return the bits that a weight of one layer takes, its share of the scales too, for each plan.

    Args:
        model: the prepared model.
        task: node key of the layer, and how its weights may be stored.

    Raises:
        JobError: a weight holds NaN or an infinity.
    """
    key, layers = task
    found = []
    for layer in layers:
        stored = store(model, model.graph.by_key[key], layer, None)
        (codes,) = stored.integers.values()
        scales = _scale_bits(stored.tensors[f"{key}:weight"])
        found.append(bits_per_code(codes) + scales / max(codes.size, 1))
    return found


def _scale_bits(encoding: Encoding) -> float:
    """Return the bits that the scales of a weight take together."""
    if not isinstance(encoding, Affine):
        return 0.0
    planes = np.ascontiguousarray(encoding.scale.reshape(-1)).view(np.uint8).reshape(-1, 4)
    return sum(bits_per_code(plane) * len(plane) for plane in planes.T)
