"""Seconds of each layer, as a runtime's own profiler saw them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from haversack.base.errors import VerificationError
from haversack.base.graph import Graph

TimeLayers = Callable[[], Mapping[str, float]]


def layers(graph: Graph, time_layers: Mapping[str, TimeLayers]) -> dict[str, dict[str, float]]:
    """Return target -> node key -> seconds, in execution order: what ``Profile.seconds`` holds.

    Args:
        graph: the graph that the timed artefacts were lowered from.
        time_layers: target -> callable that measures the target's float artefact on this device.

    Raises:
        VerificationError: a target reports a node that the graph does not have, or a time that is no number of
            seconds; what was not measured must not look measured.

    A target that reports no time for any layer (none of its kernels is one layer's alone) is left out.
    """
    found = {target: _checked(graph, target, measure()) for target, measure in time_layers.items()}
    return {target: seconds for target, seconds in found.items() if any(seconds.values())}


def _checked(graph: Graph, target: str, seconds: Mapping[str, float]) -> dict[str, float]:
    if foreign := sorted(set(seconds) - set(graph.by_key)):
        raise VerificationError(f"{target} times nodes that the model does not have", where=", ".join(foreign))
    if wrong := sorted(key for key, value in seconds.items() if not math.isfinite(value) or value < 0):
        raise VerificationError(f"{target} gives times that are no seconds", where=", ".join(wrong))
    return {node.key: float(seconds[node.key]) for node in graph.nodes if node.key in seconds}
