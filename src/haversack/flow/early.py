"""What can be known to be wrong early: a metric without a value, limits in the wrong unit, sizes beyond reach."""

from __future__ import annotations

import numpy as np

from haversack.base.errors import JobError
from haversack.flow.making import CHOOSE, REPORT
from haversack.metrics.contract import Metric


def refuse_undefined(metric: Metric, rows: np.ndarray) -> None:
    """Refuse a half of the evaluation set on which the metric has no value for the float model.

    Args:
        metric: the job's.
        rows: of the float model, [samples, columns].

    Raises:
        JobError: the value of a half is NaN or infinite, or the user's callable raised on it.
    """
    for half, what in ((CHOOSE, "chooses"), (REPORT, "is reported")):
        value = float(metric.values(rows[half][None])[0])
        if not np.isfinite(value):
            raise JobError(
                f"metric {metric.name} is {value} on the half of the evaluation set that {what}",
                where="evaluation()",
                tried=f"scoring the float model on {len(rows[half])} samples: every second one chooses, "
                "the others are reported",
                next_step="give more samples, of every class, so ordered that each half holds what the metric needs",
            )


def baseline_step(stated: float, found: float, unit: str) -> str:
    """Return what to do when the float model scores less than its job states."""
    if unit == "fraction" and stated > 1 >= found:
        return f"baseline = {stated / 100:g}, if percent were meant: the metric is a fraction"
    return "look at preprocess, labels and weights before compressing anything, or mend baseline"
