"""Bits: output values that differ from the reference's, and the rows that leave it furthest."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from haversack.base.errors import VerificationError
from haversack.base.model import Sample
from haversack.targets.reference.interpret import Interpreter
from haversack.tools.numerics.relative import Errors

Outputs = tuple[np.ndarray, ...]
FURTHEST = 2
"""How many rows are kept that leave the reference furthest."""


class Bits:
    """Counts output values that differ from the reference's, over a limited number of rows.

    Args:
        name: of the model, for messages.
        interpreter: the reference, opened; None to compare nothing.
        rows: how many at most.

    Attributes:
        differing, compared: output values.
        error: of the reference against float.
        distance: of the artefact from the reference.
    """

    def __init__(self, name: str, interpreter: Interpreter | None, rows: int) -> None:
        self.name, self.interpreter, self.rows = name, interpreter, rows
        self.differing = self.compared = 0
        self.error, self.distance = Errors(), Errors()
        self._furthest: list[tuple[float, Sample]] = []

    def add(self, sample: Sample, got: Outputs, exact: Outputs) -> None:
        """Take one batch with the outputs of artefact and float: as many of its rows as are still wanted.

        A batch that does not fit is cut, or left out where cutting could change a value.

        Raises:
            VerificationError: outputs differ from the reference's in number or shape.
        """
        rows = len(sample[0])
        if self.interpreter is None or self.rows <= 0 or (rows > self.rows and not self.interpreter.separable):
            return
        if rows > self.rows:
            sample, got, exact = (tuple(array[: self.rows] for array in each) for each in (sample, got, exact))
        self.rows -= len(sample[0])
        meant = self.interpreter.run(sample)
        check_shapes(self.name, got, meant)
        for mine, theirs in zip(got, meant, strict=True):
            self.differing += differing_bits(mine, theirs)
            self.compared += theirs.size
        self.error.add(meant, exact)
        self.distance.add(got, meant)
        if not self.interpreter.separable:
            self._keep(sample, got, meant)
            return
        for row in range(len(sample[0])):
            one = slice(row, row + 1)
            self._keep(*(tuple(array[one] for array in each) for each in (sample, got, meant)))

    def relative(self, error: Errors) -> float:
        """Return one of the two errors, relative; -1 when nothing was compared."""
        return error.relative if self.compared else -1.0

    def tell(self, sink: Callable[[Sample], None] | None) -> None:
        """Give the rows that leave the reference furthest, at most ``FURTHEST``, or batches that cannot be cut."""
        if sink is not None:
            for _, sample in self._furthest:
                sink(sample)

    def _keep(self, sample: Sample, got: Outputs, meant: Outputs) -> None:
        if not any(differing_bits(mine, theirs) for mine, theirs in zip(got, meant, strict=True)):
            return
        distance = Errors()
        distance.add(got, meant)
        size = distance.relative
        self._furthest.append((math.inf if math.isnan(size) else size, sample))
        self._furthest.sort(key=lambda item: -item[0])
        del self._furthest[FURTHEST:]


def differing_bits(one: np.ndarray, other: np.ndarray) -> int:
    """Return how many values of two arrays of one shape differ, float32 bit for bit (so -0.0 is not 0.0)."""
    if one.dtype != other.dtype:
        return one.size
    if one.dtype == np.float32:
        one, other = (np.ascontiguousarray(array).view(np.uint32) for array in (one, other))
    return int(np.count_nonzero(one != other))


def check_shapes(name: str, got: Outputs, wanted: Outputs) -> None:
    """Refuse outputs of other shapes than are meant.

    Raises:
        VerificationError: they differ in number or shape; ``name`` is the model's.
    """
    shapes = [array.shape for array in got], [array.shape for array in wanted]
    if shapes[0] != shapes[1]:
        raise VerificationError(
            f"outputs of shapes {shapes[0]} where {shapes[1]} are meant",
            where=name,
            next_step="check the job's output_names and dims",
        )
