"""Metrics: one file, one quality number. A metric is a streaming state, scored on the artefact itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from haversack.base.errors import JobError
from haversack.base.shelf import Shelf
from haversack.metrics.contract import Metric
from haversack.metrics.custom import from_callable

SHELF = Shelf("haversack.metrics", "metric", also=frozenset({"custom"}))


def resolve(metric: str | Callable[[Any, Any], Any]) -> Metric:
    """Return the metric that a job means: a name on the shelf, a Metric with its settings, or a user's callable.

    Raises:
        UsageError: no metric has that name (the nearest is shown).
        JobError: it is neither a name nor callable.
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        part: Metric = SHELF.build(metric)
        return part
    if not callable(metric):
        raise JobError(
            f"metric is a {type(metric).__name__}, neither a metric's name nor a callable",
            where="metric",
            next_step=f"metric = 'top1'    (has: {', '.join(SHELF.names())})",
        )
    return from_callable(metric)
