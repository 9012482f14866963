"""The relative error of a stream of arrays: |y - exact| / |exact|, Euclidean, over everything seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

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


def relative_error(y: np.ndarray, exact: np.ndarray) -> float:
    """Return |y - exact| / |exact| over all elements of two arrays of one shape."""
    error = Error()
    error.add(y, exact)
    return error.relative
