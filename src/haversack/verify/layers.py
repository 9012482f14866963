"""The error of each layer: the reference's tensors against float's, streamed as sums over a few rows."""

from __future__ import annotations

import math

import numpy as np

from haversack.base.model import Model, Sample
from haversack.targets.reference.interpret import Interpreter
from haversack.tools.graph.execute import Executor
from haversack.tools.graph.roles import Role, role
from haversack.tools.numerics.relative import Error


class LayerErrors:
    """Collects the relative error of every float tensor; memory is bounded by the activations of one piece of a batch.

    Args:
        model: in float.
        interpreter: the same model, or one prepared from it, with its encodings; tensors of one key are compared.
        rows: how many rows to look at.
    """

    def __init__(self, model: Model, interpreter: Interpreter, rows: int) -> None:
        self.interpreter, self.rows = interpreter, rows
        self.errors: dict[str, Error] = {}
        self._float = Executor(model)
        # A tensor that is only moved repeats the error of its source.
        self._moved = {node.out for node in model.graph.nodes if role(node) is Role.SAME}
        self._free = all(port.spec.shape and isinstance(port.spec.shape[0], str) for port in model.inputs)

    def add(self, sample: Sample) -> None:
        """Take the rows of one batch that are still wanted; the whole batch where its length is fixed."""
        if self.rows <= 0:
            return
        cut = tuple(array[: self.rows] for array in sample) if self._free else sample
        self.rows -= len(cut[0])
        for piece in self.interpreter.pieces(cut):
            self._add(piece)

    def _add(self, piece: Sample) -> None:
        exact: dict[str, np.ndarray] = {}
        self._float.run(piece, observe=lambda node, value: exact.update({node.out: value.numpy()}))

        def add(key: str, value: np.ndarray) -> None:
            if key in exact and key not in self._moved and value.dtype == np.float32:
                self.errors.setdefault(key, Error()).add(value, exact[key])

        self.interpreter.run(piece, observe=add)

    def worst_first(self) -> dict[str, float]:
        """Return tensor key -> relative error, NaN before all."""
        found = {key: error.relative for key, error in self.errors.items()}
        return dict(sorted(found.items(), key=lambda item: (not math.isnan(item[1]), -item[1])))
