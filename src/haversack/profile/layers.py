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
        VerificationError: a target reports no time at all, a node that the graph does not have, or a time that is no
            number of seconds; what was not measured must not look measured.
    """
    return {target: _checked(graph, target, measure()) for target, measure in time_layers.items()}


def _checked(graph: Graph, target: str, seconds: Mapping[str, float]) -> dict[str, float]:
    if foreign := sorted(set(seconds) - set(graph.by_key)):
        raise VerificationError(f"{target} times nodes that the model does not have", where=", ".join(foreign))
    if wrong := sorted(key for key, value in seconds.items() if not math.isfinite(value) or value < 0):
        raise VerificationError(f"{target} gives times that are no seconds", where=", ".join(wrong))
    if not any(seconds.values()):
        raise VerificationError(
            f"{target} reports no time for any layer", tried="its own profiler on the float artefact"
        )
    return {node.key: float(seconds[node.key]) for node in graph.nodes if node.key in seconds}
