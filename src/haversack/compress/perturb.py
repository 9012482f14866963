"""Perturbing one layer: the encodings of a model in which nothing else is compressed."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from haversack.base.constraints import Constraints
from haversack.base.encodings import Encodings
from haversack.base.model import Model
from haversack.base.plan import GROUPS, NARROW, LayerPlan, Plan
from haversack.base.profile import TensorStatistics
from haversack.compress.encode import NONE, encode
from haversack.compress.selection import bears, group_of, lacks
from haversack.tools.graph import tied


def perturb(
    model: Model,
    key: str,
    layer: LayerPlan,
    *,
    ranges: Mapping[str, TensorStatistics],
    widths: Mapping[str, Collection[int]] | None = None,
    importance: Mapping[str, np.ndarray] = NONE,
) -> Encodings:
    """Return the encodings when one layer alone is stored and run in a way, under no target's constraints.

    With ``ranges`` bound (``functools.partial``) this is the callable that ``profile.sensitivity`` takes.

    Args:
        model: the prepared model.
        key: node key of the layer; what reads the same weight is perturbed with it.
        layer: what it gets; the encodings are empty if it, or what reads the same weight, cannot have it.
        ranges: statistics of activations on this model.
        widths: which bits the weights of each layer can have, or None when all have all.
        importance: node key -> float32 in the weight's shape, as ``encode`` takes it.
    """
    node, precision = model.graph.by_key[key], layer.precision
    nodes = next((calls for calls in tied.shared(model.graph) if node in calls), (node,))
    layers = tied.together((node, *(one for one in nodes if one is not node)), layer)
    if precision == "float32" or layers is None:
        return Encodings.none()
    for call, held in layers.items():
        lacking = widths is not None and lacks(call, held.precision, widths)
        if lacking or not bears(model.graph.by_key[call], held.precision):
            return Encodings.none()
    if precision == "w4_grouped" and (not node.weight or model.weights[node.weight].shape[-1] % group_of(layer)):
        return Encodings.none()
    plan = Plan("no-target", layers)
    kernels = Constraints(
        integer_ops=frozenset({node.op}),
        widths=dict.fromkeys(layers, NARROW),
        groups=dict.fromkeys(layers, frozenset(GROUPS)),
    )
    return encode(model, plan, ranges, kernels, importance)[0]
