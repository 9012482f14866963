"""Metrics: one file, one quality number. A metric is a streaming state, scored on the artefact itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from haversack.base.errors import JobError
from haversack.base.shelf import Shelf
from haversack.metrics.contract import Metric
from haversack.metrics.custom import from_callable

SHELF = Shelf("haversack.metrics", "metric", also=frozenset({"custom"}))

_SMALL = frozenset("error err loss mse rmse mae nll wer cer perplexity ppl distance divergence".split())


def resolve(metric: str | Callable[[Any, Any], Any]) -> Metric:
    """Return the metric that a job means: a name on the shelf, a Metric with its settings, or a user's callable.

    Raises:
        UsageError: no metric has that name (the nearest is shown).
        JobError: it is neither a name nor callable, or a bare callable whose name speaks of what is to be small: it
            would be judged the wrong way.
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
    made = from_callable(metric)
    if word := _less_is_better(made.name):
        say = (
            f"from haversack.metrics import from_callable; metric = from_callable({made.name}, direction=..., unit=...)"
        )
        raise JobError(
            f"a callable is taken for a fraction of which more is better, and its name says {word}",
            where=f"metric {made.name}",
            next_step=f'{say}: direction="lower" where less is better, "higher" where more is',
        )
    return made


def _less_is_better(name: str) -> str:
    """Return the word of a callable's name that speaks of what is to be small, or nothing."""
    words = re.split(r"[\W_\d]+|(?<=[a-z])(?=[A-Z])", name)
    return next((word for word in words if word.lower() in _SMALL), "")
