"""Relative errors: |y - exact| / |exact|, Euclidean, of one stream of arrays or of several outputs, each by itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Error:
    """Sums of squares so far, in float64.

    Attributes:
        difference: sum of (y - exact)^2.
        size: sum of exact^2.
        count: values seen.
    """

    difference: float = 0.0
    size: float = 0.0
    count: int = 0

    def add(self, y: np.ndarray, exact: np.ndarray) -> None:
        """Take two arrays of one shape and any real dtype."""
        exact = exact.astype(np.float64).ravel()
        self.size += float(exact @ exact)
        exact -= y.ravel()
        self.difference += float(exact @ exact)
        self.count += exact.size

    @property
    def relative(self) -> float:
        """0 where nothing differs; infinite where everything exact is 0 and something differs; NaN stays NaN."""
        if self.difference == 0.0:
            return 0.0
        return math.sqrt(self.difference / self.size) if self.size else math.inf * self.difference


@dataclass
class Errors:
    """The errors of several outputs: the root of the mean of their squared relative errors.

    Each output counts by its own size: one in units a hundred times as small is worth as much as the others. One that
    is all zero has no size; what differs there is held against the squares of all outputs together.

    Attributes:
        each: place of an output -> its sums.
    """

    each: dict[int, Error] = field(default_factory=dict)

    def add(self, got: Sequence[np.ndarray], exact: Sequence[np.ndarray]) -> None:
        """Take all outputs of a batch, in the model's order; those whose size means something count (``judged``).

        Args:
            got: arrays of any real dtype.
            exact: what they are held against, of the same number and shapes.

        Raises:
            ValueError: they differ in number or shape.
        """
        if len(got) != len(exact):
            raise ValueError(f"{len(got)} outputs against {len(exact)}")
        for place in judged(exact):
            self.each.setdefault(place, Error()).add(got[place], exact[place])

    @property
    def count(self) -> int:
        """Values seen."""
        return sum(error.count for error in self.each.values())

    @property
    def size(self) -> float:
        """Sum of exact^2 over all outputs."""
        return sum(error.size for error in self.each.values())

    @property
    def relative(self) -> float:
        """As ``Error.relative``, over all outputs; of one output its very bits."""
        return together([(error.difference, error.size) for error in self.each.values()])

    @property
    def moved(self) -> float:
        """As ``relative``; where all that is exact is 0, the absolute |y - exact|."""
        return self.relative if self.size else math.sqrt(sum(error.difference for error in self.each.values()))


def together(squares: Iterable[tuple[float, float]]) -> float:
    """Return the root of the mean of squared relative errors; see ``Errors`` for what has no size.

    Args:
        squares: for each output the sum of (y - exact)^2 and that of exact^2.
    """
    pairs = list(squares)
    whole = sum(size for _, size in pairs)
    found = [Error(difference, size or whole).relative for difference, size in pairs]
    if len(found) < 2:
        return found[0] if found else 0.0
    return math.sqrt(sum(one * one for one in found) / len(found))


def judged(outputs: Sequence[np.ndarray]) -> tuple[int, ...]:
    """Return the places of the outputs whose size means something: float ones, or all where none is float."""
    floats = tuple(place for place, array in enumerate(outputs) if array.dtype.kind == "f")
    return floats or tuple(range(len(outputs)))


def relative_error(y: np.ndarray, exact: np.ndarray) -> float:
    """Return |y - exact| / |exact| over all elements of two arrays of one shape."""
    error = Error()
    error.add(y, exact)
    return error.relative
