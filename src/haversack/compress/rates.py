"""Rates: how many bits a weight takes as a download, for each way in which a layer may be stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from haversack.base.graph import Node
from haversack.base.model import Model
from haversack.base.plan import LayerPlan
from haversack.compress.selection import bears
from haversack.compress.weights import store
from haversack.tools.graph.roles import Role, role
from haversack.tools.numerics.entropy import bits_per_code


def rates(model: Model, ways: Callable[[Node], Mapping[str, LayerPlan]]) -> dict[str, dict[str, float]]:
    """Return node key of each layer -> kind -> bits of a weight, by the entropy of its codes: ``Profile.rates``.

    Codes are rounded to nearest; rounding them by what a layer gives moves few of them, and the entropy hardly.

    Args:
        model: the prepared model.
        ways: node -> kind -> how its weights may be stored; what the node cannot have is left out.

    Raises:
        JobError: a weight holds NaN or an infinity.
    """
    found: dict[str, dict[str, float]] = {}
    for node in model.graph.nodes:
        if role(node) not in (Role.LAYER, Role.EMBEDDING):
            continue
        for kind, layer in ways(node).items():
            if bears(node, layer.precision):
                (codes,) = store(model, node, layer, None).integers.values()
                found.setdefault(node.key, {})[kind] = bits_per_code(codes)
    return found
