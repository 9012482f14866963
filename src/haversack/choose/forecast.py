"""What a plan's file will weigh at least, known before anything is made: what is hopeless is not tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from haversack.base.budget import Budget
from haversack.base.graph import Graph
from haversack.base.plan import STATIC, LayerPlan, Plan
from haversack.choose.options import BYTES_PER_WEIGHT
from haversack.choose.verdict import amount
from haversack.tools.graph.lifetimes import steps

TOLERANCE = 1.02
"""A forecast over its limit by less than this factor is tried: measurement decides."""
FLOAT_RATIO = 0.9
"""A file that computes in float is not expected to take less than this fraction of the float file's time."""
_INTEGER = 0.25
"""Bytes of an 8-bit code as a fraction of a float's."""
FREED = 8_000_000
"""Bytes that importing a runtime may have freed again: a file takes them first, and they are not counted as its own."""
COMPUTING = STATIC | {"int8_dynamic", "w4_grouped"}
"""Precisions that compute in integers, and do not only store them."""


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
            width = BYTES_PER_WEIGHT["float32"] if layer is None else _width(layer)
            widths[name] = min(width, widths.get(name, width))
    return sum(weights[name].size * width for name, width in widths.items() if weights[name].dtype.kind == "f")


def _width(layer: LayerPlan) -> float:
    """Return the bytes that a weight takes at the least: an index into a palette has bits of its own."""
    return layer.bits / 8 if layer.precision == "palette" else BYTES_PER_WEIGHT[layer.precision]


def least_memory(graph: Graph, weights: Mapping[str, np.ndarray], plan: Plan) -> float:
    """Return bytes that a process running a plan's file has resident at the least: its weights and its largest tensor.

    Every weight but an embedding's is read in full, mapped or not. In what order the runtime computes and what it
    writes over is its own affair, but the largest tensor is there once; one byte a value where the plan is integer.
    ``FREED`` bytes are taken off.

    Args:
        graph: the model's graph.
        weights: parameter name -> float array of any shape.
        plan: says the precision of each layer.
    """
    tables = {node.weight: weights[node.weight] for node in graph.nodes if node.op == "embedding" and node.weight}
    others = {name: array for name, array in weights.items() if name not in tables}
    read = replace(graph, nodes=tuple(node for node in graph.nodes if node.weight not in tables))
    width = _INTEGER if any(layer.precision in STATIC for layer in plan.layers.values()) else 1.0
    largest = max((tensor.bytes for tensor in steps(graph).tensors), default=0)
    return max(0.0, least_bytes(read, others, plan) + largest * width - FREED)


def hopeless(graph: Graph, weights: Mapping[str, np.ndarray], budget: Budget) -> Callable[[Plan], str]:
    """Return what says why a plan cannot meet its limits, in words; an empty string when it may.

    Args:
        graph: the model's graph.
        weights: parameter name -> float array of any shape.
        budget: its ``size``, in bytes, against a lower bound; its ``latency_ratio``, for plans that compute in float
            alone and so take float's time; its ``memory``, in bytes, against a lower bound. It says nothing about the
            other limits.
    """

    def why(plan: Plan) -> str:
        size = least_bytes(graph, weights, plan)
        if budget.size is not None and size > budget.size * TOLERANCE:
            return f"forecast size {amount('size', size)} is over the allowed {amount('size', budget.size)}"
        ratio = budget.latency_ratio
        if ratio is not None and ratio < FLOAT_RATIO and not computes_integers(plan):
            took, allowed = amount("latency_ratio", 1.0), amount("latency_ratio", ratio)
            return f"it computes in float: forecast latency {took} is over the allowed {allowed}"
        if budget.memory is not None:
            memory = least_memory(graph, weights, plan)
            if memory > budget.memory * TOLERANCE:
                least = f"at least {amount('memory', memory)} of weights and of the largest tensor"
                return f"forecast memory, {least}, is over the allowed {amount('memory', budget.memory)}"
        return ""

    return why


def overshoot(graph: Graph, weights: Mapping[str, np.ndarray], budget: Budget) -> Callable[[Plan], float]:
    """Return what says by how much a plan is forecast to miss its limits, summed as fractions of them.

    Args:
        graph: the model's graph.
        weights: parameter name -> float array of any shape.
        budget: the limits that ``hopeless`` looks at count.
    """

    def over(plan: Plan) -> float:
        size, ratio = budget.size, budget.latency_ratio
        by_size = max(0.0, least_bytes(graph, weights, plan) / size - 1.0) if size else 0.0
        by_time = max(0.0, 1.0 / ratio - 1.0) if ratio and not computes_integers(plan) else 0.0
        by_memory = max(0.0, least_memory(graph, weights, plan) / budget.memory - 1.0) if budget.memory else 0.0
        return by_size + by_time + by_memory

    return over


def computes_integers(plan: Plan) -> bool:
    """Say whether some layer computes in integers, and so does not take float's time."""
    return any(layer.precision in COMPUTING for layer in plan.layers.values())
