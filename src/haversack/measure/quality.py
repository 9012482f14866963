"""How good an artefact is: one metric over an evaluation set, for any callable that predicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from haversack.base.errors import JobError, VerificationError
from haversack.base.model import Sample
from haversack.metrics.contract import Metric, State

Predict = Callable[[Sample], tuple[np.ndarray, ...]]
"""A model or an artefact: inputs in its order, batch first -> outputs in its order, batch first."""


class NotFinite(VerificationError):
    """An output holds NaN or an infinity, so that no metric can score it; ``where`` is the output's name."""


def score(
    predict: Predict,
    evaluation: Iterable[tuple[Sample, np.ndarray]],
    metric: Metric,
    *,
    float_predict: Predict | None = None,
    names: Sequence[str] = (),
) -> State:
    """Score an evaluation set batch by batch; outputs are not kept.

    Args:
        predict: what is scored.
        evaluation: (inputs, expected) pairs, batch first: the metric's ``group`` rows of every input for each entry
            of expected.
        metric: how; a metric *against float* gets the float model's outputs in place of ``expected``.
        float_predict: the float model, for a metric against float.
        names: of the outputs, for messages.

    Returns:
        The metric's state: ``quality()`` is the number with its standard error, ``scores()`` one per sample, and
        ``float_state.drop(state)`` the paired drop.

    Raises:
        JobError: there are no samples, or inputs and expected values do not belong together.
        NotFinite: an output holds NaN or an infinity.
        ValueError: a metric against float, and no ``float_predict``.
    """
    if metric.against == "float" and float_predict is None:
        raise ValueError(f"{metric.name} is a metric against float: it needs the float model")
    state = metric.start(names)
    for inputs, expected in evaluation:
        _refuse_strangers(inputs, expected, metric.group, state.samples)
        outputs = predict(inputs)
        _refuse_not_finite(outputs, names)
        if metric.against == "float" and float_predict is not None:
            state.update(outputs, float_predict(inputs)[metric.output])
        else:
            state.update(outputs, expected)
    if not state.samples:
        raise JobError(
            "the evaluation set is empty",
            where="evaluation()",
            next_step="let evaluation() yield at least one sample",
        )
    return state


def _refuse_strangers(inputs: Sample, expected: np.ndarray, group: int, number: int) -> None:
    """Refuse inputs that are not ``group`` rows for each expected entry; ``number`` samples came before."""
    count = len(expected)
    if any(array.ndim == 0 or len(array) != count * group for array in inputs):
        shapes = ", ".join(str(array.shape) for array in inputs)
        raise JobError(
            f"inputs of shape {shapes} do not belong to {count} expected values ({group} rows each)",
            where=f"evaluation(), the batch after sample {number}",
            next_step="let evaluation() yield (inputs, expected), both batch first",
        )


def _refuse_not_finite(outputs: tuple[np.ndarray, ...], names: Sequence[str]) -> None:
    for index, output in enumerate(outputs):
        if output.dtype.kind == "f" and not np.isfinite(output).all():
            bad = output.size - int(np.isfinite(output).sum())
            name = names[index] if index < len(names) else f"output {index}"
            raise NotFinite(f"{bad} of its {output.size} values are NaN or infinite", where=name)
