"""What a plan's file will weigh at least, known before anything is made: what is hopeless is not tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from haversack.base.budget import Budget
from haversack.base.graph import Graph
from haversack.base.plan import Plan
from haversack.choose.options import BYTES_PER_WEIGHT
from haversack.choose.verdict import amount

TOLERANCE = 1.02
"""A forecast over its limit by less than this factor is tried: measurement decides."""


def least_bytes(graph: Graph, weights: Mapping[str, np.ndarray], plan: Plan) -> float:
    """Return the bytes that a plan's weights take in a file: a lower bound of its size, structure and scales left out.

    Args:
        graph: the model's graph.
        weights: parameter name -> float array of any shape; one that several layers read is counted once, as the
            cheapest of them stores it, and one that nothing reads not at all. Parameters that are no layer's weight
            count as float32.
        plan: says the precision of each layer.
    """
    widths: dict[str, float] = {}
    for node in graph.nodes:
        for name in node.parameters:
            layer = plan.layers.get(node.key) if name == node.weight else None
            width = BYTES_PER_WEIGHT["float32" if layer is None else layer.precision]
            widths[name] = min(width, widths.get(name, width))
    return sum(weights[name].size * width for name, width in widths.items() if weights[name].dtype.kind == "f")


def hopeless_size(graph: Graph, weights: Mapping[str, np.ndarray], budget: Budget) -> Callable[[Plan], str]:
    """Return what says why a plan cannot meet the limit on size, in words; an empty string when it may.

    Args:
        graph: the model's graph.
        weights: parameter name -> float array of any shape.
        budget: only its ``size``, in bytes, is looked at: a lower bound says nothing about the others.
    """

    def hopeless(plan: Plan) -> str:
        size = least_bytes(graph, weights, plan)
        if budget.size is None or size <= budget.size * TOLERANCE:
            return ""
        return f"forecast size {amount('size', size)} is over the allowed {amount('size', budget.size)}"

    return hopeless
