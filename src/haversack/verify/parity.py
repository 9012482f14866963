"""Parity: an artefact's outputs against the float model's, and bit for bit against the reference's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from haversack.base.candidate import Parity
from haversack.base.encodings import Encodings
from haversack.base.errors import JobError
from haversack.base.model import Model, Sample
from haversack.targets.reference import Reference
from haversack.tools.graph.execute import Executor
from haversack.tools.numerics.relative import Errors, judged
from haversack.verify.bits import Bits, Outputs, check_shapes
from haversack.verify.layers import LayerErrors

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
    furthest: Callable[[Sample], None] | None = None,
    choosing: slice | None = None,
) -> Parity:
    """Return the parity of an artefact; memory is bounded by one batch.

    Args:
        model: what was encoded.
        encodings: as the artefact holds them.
        run: the artefact.
        samples: batches, read once.
        float_predict: the float model, for ``float_model`` in PyTorch.
        reference_samples: rows that are compared with the reference bit for bit, at most. A batch that does not fit is
            cut, or left out if that could change a value (``Interpreter.separable``).
        layer_samples: on how many rows each layer's error is measured, the reference against float; 0 for none.
        reference: the reference with its settings.
        float_model: what layers' errors are measured against, for ``model``: the one before its biases were corrected,
            with channels scaled as its are.
        furthest: told of the rows that leave the reference furthest, batches of one.
        choosing: which of all rows choices go by: their error is told by itself as well.

    Raises:
        JobError: there are no samples.
        VerificationError: outputs differ in number or shape.
    """
    exact, layer_samples = float_predict or Executor(float_model or model).run, layer_samples * bool(encodings.tensors)
    interpreter = (reference or Reference()).opened(model, encodings) if reference_samples or layer_samples else None
    bits = Bits(model.name, interpreter, reference_samples)
    layers = LayerErrors(float_model or model, interpreter, layer_samples) if interpreter and layer_samples else None
    outputs = _AgainstFloat(choosing)
    for sample in samples:
        got, wanted = run(sample), exact(sample)
        check_shapes(model.name, got, wanted)
        outputs.add(got, wanted, len(sample[0]))
        bits.add(sample, got, wanted)
        if layers is not None:
            layers.add(sample)
    if not outputs.error.count:
        raise JobError("there is nothing to compare on: no samples", next_step="give evaluation() at least one sample")
    bits.tell(furthest)
    return Parity(
        agreement=outputs.agreement,
        relative_error=outputs.error.relative,
        reference_differing=bits.differing if bits.compared else -1,
        reference_compared=bits.compared,
        layers=layers.worst_first() if layers is not None else {},
        reference_error=bits.relative(bits.error),
        reference_distance=bits.relative(bits.distance),
        choosing_error=outputs.chosen.relative,
    )


class _AgainstFloat:
    """Sums over the outputs that are judged; agreement of the arg-max where they are [n, classes], several classes."""

    def __init__(self, choosing: slice | None) -> None:
        self.error, self.agreeing, self.judged = Errors(), 0, 0
        self.chosen = _Chosen(choosing)

    def add(self, got: Outputs, wanted: Outputs, rows: int) -> None:
        self.error.add(got, wanted)
        self.chosen.add(rows, got, wanted)
        for place in judged(wanted):
            mine, theirs = got[place], wanted[place]
            if mine.ndim == 2 and mine.shape[1] > 1:
                self.agreeing += int(np.count_nonzero(mine.argmax(-1) == theirs.argmax(-1)))
                self.judged += len(mine)

    @property
    def agreement(self) -> float:
        return self.agreeing / self.judged if self.judged else math.nan


class _Chosen:
    """The error on some of all rows, told by their places; an output that is not of rows counts whole."""

    def __init__(self, places: slice | None) -> None:
        self.places, self.rows, self.error = places, 0, Errors()

    def add(self, rows: int, got: Outputs, wanted: Outputs) -> None:
        """Take the outputs of the next rows."""
        if self.places is None:
            return
        first, self.rows = self.rows, self.rows + rows
        mask = np.isin(np.arange(first, self.rows), range(*self.places.indices(self.rows)))
        mine, exact = (
            tuple(array[mask] if array.shape[:1] == mask.shape else array for array in outputs)
            for outputs in (got, wanted)
        )
        self.error.add(mine, exact)

    @property
    def relative(self) -> float:
        """The relative error; -1 where nothing was taken."""
        return self.error.relative if self.error.count else -1.0
