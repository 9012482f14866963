"""How good an artefact is: one metric over one half of the evaluation set, for any callable that predicts.

Samples with even numbers choose between candidates, those with odd numbers are reported; so no choice is made on the
samples that a report speaks of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np

from haversack.base.errors import JobError, VerificationError
from haversack.base.model import Sample
from haversack.metrics.contract import Metric, State

Predict = Callable[[Sample], tuple[np.ndarray, ...]]
"""A model or an artefact: inputs in its order, batch first -> outputs in its order, batch first."""

Half = Literal["choose", "report", "all"]
_FIRST = {"choose": 0, "report": 1}


class NotFinite(VerificationError):
    """An output holds NaN or an infinity, so that no metric can score it; ``where`` is the output's name."""


def score(
    predict: Predict,
    evaluation: Iterable[tuple[Sample, np.ndarray]],
    metric: Metric,
    *,
    half: Half = "all",
    float_predict: Predict | None = None,
    names: Sequence[str] = (),
) -> State:
    """Score one half of an evaluation set, batch by batch; outputs are not kept.

    Args:
        predict: what is scored.
        evaluation: (inputs, expected) pairs, batch first.
        metric: how; a metric *against float* gets the float model's outputs in place of ``expected``.
        half: which samples: ``choose`` those with even numbers, ``report`` those with odd ones, or ``all``.
        float_predict: the float model, for a metric against float.
        names: of the outputs, for messages.

    Returns:
        The metric's state: ``quality()`` is the number with its standard error, ``scores()`` one per sample, and
        ``float_state.drop(state)`` the paired drop.

    Raises:
        JobError: the half has no samples, or inputs and expected values do not belong together.
        NotFinite: an output holds NaN or an infinity.
        ValueError: a metric against float, and no ``float_predict``.
    """
    if metric.against == "float" and float_predict is None:
        raise ValueError(f"{metric.name} is a metric against float: it needs the float model")
    state = metric.start(names)
    for inputs, expected in take_half(evaluation, half, metric.group):
        outputs = predict(inputs)
        _refuse_not_finite(outputs, names)
        if metric.against == "float" and float_predict is not None:
            state.update(outputs, float_predict(inputs)[metric.output])
        else:
            state.update(outputs, expected)
    if not state.samples:
        needed = "one sample" if half == "all" else "two samples: even numbers choose, odd numbers are reported"
        raise JobError(
            "the evaluation set is empty" if half == "all" else f"the evaluation set has no samples to {half}",
            where="evaluation()",
            next_step=f"let evaluation() yield at least {needed}",
        )
    return state


def take_half(
    evaluation: Iterable[tuple[Sample, np.ndarray]], half: Half, group: int = 1
) -> Iterator[tuple[Sample, np.ndarray]]:
    """Yield the batches of one half of an evaluation set, batch first; a batch without samples of it is left out.

    Args:
        evaluation: (inputs, expected): ``group`` rows of every input for each entry of expected.
        half: as ``score``.
        group: rows that make one sample.

    Raises:
        JobError: the number of rows does not fit the number of expected entries.
    """
    number = 0
    for inputs, expected in evaluation:
        count = len(expected)
        if any(array.ndim == 0 or len(array) != count * group for array in inputs):
            shapes = ", ".join(str(array.shape) for array in inputs)
            raise JobError(
                f"inputs of shape {shapes} do not belong to {count} expected values ({group} rows each)",
                where=f"evaluation(), the batch after sample {number}",
                next_step="let evaluation() yield (inputs, expected), both batch first",
            )
        if half == "all":
            yield inputs, expected
        else:
            kept = (number + np.arange(count)) % 2 == _FIRST[half]
            rows = np.repeat(kept, group)
            if kept.any():
                yield tuple(array[rows] for array in inputs), expected[kept]
        number += count


def _refuse_not_finite(outputs: tuple[np.ndarray, ...], names: Sequence[str]) -> None:
    for index, output in enumerate(outputs):
        if output.dtype.kind == "f" and not np.isfinite(output).all():
            bad = output.size - int(np.isfinite(output).sum())
            name = names[index] if index < len(names) else f"output {index}"
            raise NotFinite(f"{bad} of its {output.size} values are NaN or infinite", where=name)
