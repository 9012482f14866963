"""Bits: output values that differ from the reference's, and the rows that leave it furthest."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from haversack.base.model import Sample
from haversack.targets.reference.interpret import Interpreter
from haversack.verify.error import Error

Outputs = tuple[np.ndarray, ...]
FURTHEST = 2
"""How many rows are kept that leave the reference furthest."""


class Bits:
    """Counts output values that differ from the reference's, over a limited number of rows.

    Args:
        interpreter: the reference, opened; None to compare nothing.
        rows: how many at most.

    Attributes:
        differing, compared: output values.
        error: of the reference against float.
        distance: of the artefact from the reference.
    """

    def __init__(self, interpreter: Interpreter | None, rows: int) -> None:
        self.interpreter, self.rows = interpreter, rows
        self.differing = self.compared = 0
        self.error, self.distance = Error(), Error()
        self._furthest: list[tuple[float, Sample]] = []

    def takes(self, sample: Sample) -> int:
        """Return how many rows of a batch are compared; 0 where it does not fit and cutting could change a value."""
        if self.interpreter is None or self.rows <= 0:
            return 0
        count = len(sample[0])
        return min(count, self.rows) if count <= self.rows or self.interpreter.separable else 0

    def add(self, sample: Sample, got: Outputs, meant: Outputs, exact: Outputs) -> None:
        """Take the rows of one batch that ``takes`` allows, with the outputs of artefact, reference and float."""
        self.rows -= len(sample[0])
        for mine, theirs in zip(got, meant, strict=True):
            self.differing += differing_bits(mine, theirs)
            self.compared += theirs.size
        for place in judged(meant):
            self.error.add(meant[place], exact[place])
            self.distance.add(got[place], meant[place])
        if self.interpreter is None or not self.interpreter.separable:
            self._keep(sample, got, meant)
            return
        for row in range(len(sample[0])):
            one = slice(row, row + 1)
            self._keep(*(tuple(array[one] for array in each) for each in (sample, got, meant)))

    def furthest(self) -> tuple[Sample, ...]:
        """Return the rows that leave the reference furthest, at most ``FURTHEST``, or batches that cannot be cut."""
        return tuple(sample for _, sample in self._furthest)

    def _keep(self, sample: Sample, got: Outputs, meant: Outputs) -> None:
        if not any(differing_bits(mine, theirs) for mine, theirs in zip(got, meant, strict=True)):
            return
        distance = Error()
        for place in judged(meant):
            distance.add(got[place], meant[place])
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


def judged(outputs: Sequence[np.ndarray]) -> tuple[int, ...]:
    """Return the places of the outputs whose size means something: float ones, or all where none is float."""
    floats = tuple(place for place, array in enumerate(outputs) if array.dtype.kind == "f")
    return floats or tuple(range(len(outputs)))
