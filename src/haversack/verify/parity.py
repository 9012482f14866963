"""Parity: an artefact's outputs against the float model's, and bit for bit against the reference's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from haversack.base.candidate import Parity
from haversack.base.encodings import Encodings
from haversack.base.errors import JobError, VerificationError
from haversack.base.model import Model, Sample
from haversack.targets.reference import Reference
from haversack.targets.reference.interpret import Interpreter
from haversack.tools.graph.execute import Executor
from haversack.verify.error import Error
from haversack.verify.layers import LayerErrors

Outputs = tuple[np.ndarray, ...]
Predict = Callable[[Sample], Outputs]
"""One batch of inputs -> the outputs in the model's order."""


def compare(
    model: Model,
    encodings: Encodings,
    run: Predict,
    samples: Iterable[Sample],
    *,
    float_predict: Predict | None = None,
    reference_samples: int = 64,
    layer_samples: int = 8,
    reference: Reference | None = None,
    float_model: Model | None = None,
) -> Parity:
    """Return the parity of an artefact; memory is bounded by one batch.

    Args:
        model: what was encoded.
        encodings: as the artefact holds them.
        run: the artefact.
        samples: batches, read once.
        float_predict: the float model to compare with; ``float_model`` in PyTorch where absent.
        reference_samples: how many rows at most are compared with the reference bit for bit; 0 for none. A batch that
            does not fit is cut, or left out if cutting could change a value (see ``Interpreter.separable``).
        layer_samples: on how many rows the error of each layer is measured, the reference against float; 0 for none.
            Nothing is measured where nothing is encoded.
        reference: the reference with its settings.
        float_model: the model that the error of each layer is measured against; ``model`` where absent. Give it when
            preparation corrected biases; where it scaled channels, their tensors are no longer the same.

    Raises:
        JobError: there are no samples.
        VerificationError: outputs differ in number or shape.
    """
    exact = float_predict or Executor(float_model or model).run
    layer_samples = layer_samples if encodings.tensors else 0
    interpreter = (reference or Reference()).opened(model, encodings) if reference_samples or layer_samples else None
    bits = _Bits(model, interpreter, reference_samples)
    layers = None
    if interpreter is not None and layer_samples:
        layers = LayerErrors(float_model or model, interpreter, layer_samples)
    outputs = _AgainstFloat()
    for sample in samples:
        got, wanted = run(sample), exact(sample)
        _check_shapes(model, got, wanted)
        outputs.add(got, wanted)
        bits.add(sample, got)
        if layers is not None:
            layers.add(sample)
    if not outputs.error.count:
        raise JobError("there is nothing to compare on: no samples", next_step="give evaluation() at least one sample")
    return Parity(
        agreement=outputs.agreement,
        relative_error=outputs.error.relative,
        reference_differing=bits.differing if bits.compared else -1,
        reference_compared=bits.compared,
        layers=layers.worst_first() if layers is not None else {},
    )


def differing_bits(one: np.ndarray, other: np.ndarray) -> int:
    """Return how many values of two arrays of one shape differ, float32 bit for bit (so -0.0 is not 0.0)."""
    if one.dtype != other.dtype:
        return one.size
    if one.dtype == np.float32:
        one, other = (np.ascontiguousarray(array).view(np.uint32) for array in (one, other))
    return int(np.count_nonzero(one != other))


class _AgainstFloat:
    """Sums over all outputs; agreement of the arg-max over [n, classes] outputs with more than one class."""

    def __init__(self) -> None:
        self.error, self.agreeing, self.judged = Error(), 0, 0

    def add(self, got: Outputs, wanted: Outputs) -> None:
        for mine, theirs in zip(got, wanted, strict=True):
            self.error.add(mine, theirs)
            if mine.ndim == 2 and mine.shape[1] > 1:
                self.agreeing += int(np.count_nonzero(mine.argmax(-1) == theirs.argmax(-1)))
                self.judged += len(mine)

    @property
    def agreement(self) -> float:
        return self.agreeing / self.judged if self.judged else math.nan


class _Bits:
    """Counts output values that differ from the reference's, over a limited number of rows."""

    def __init__(self, model: Model, interpreter: Interpreter | None, rows: int) -> None:
        self.model, self.interpreter, self.rows = model, interpreter, rows
        self.differing = self.compared = 0

    def add(self, sample: Sample, got: Outputs) -> None:
        if self.interpreter is None or self.rows <= 0:
            return
        if len(sample[0]) > self.rows:
            if not self.interpreter.separable:
                return
            sample = tuple(array[: self.rows] for array in sample)
            got = tuple(array[: self.rows] for array in got)
        self.rows -= len(sample[0])
        meant = self.interpreter.run(sample)
        _check_shapes(self.model, got, meant)
        self.differing += sum(differing_bits(mine, theirs) for mine, theirs in zip(got, meant, strict=True))
        self.compared += sum(array.size for array in meant)


def _check_shapes(model: Model, got: Outputs, wanted: Outputs) -> None:
    shapes = [array.shape for array in got], [array.shape for array in wanted]
    if shapes[0] != shapes[1]:
        raise VerificationError(
            f"outputs of shapes {shapes[0]} where {shapes[1]} are meant",
            where=model.name,
            next_step="check the job's output_names and dims",
        )
