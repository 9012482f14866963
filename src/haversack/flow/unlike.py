"""Whether calibration samples look like those that are scored: integers fitted to the first serve the second."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from haversack.base.finding import Finding
from haversack.base.model import Port, Sample
from haversack.flow.data import Data

KIND = "calibration-mismatch"
ROWS = 256
"""Rows of each set that are looked at, at most; whole batches."""
APART = 3.0
"""How many times as large one set's values may be as the other's: pictures of 0 to 255 for 0 to 1 are 255 times."""
ASIDE = 2.0
"""How far apart the means may lie, in the larger standard deviation: a mean that was not taken off shows so."""


@dataclass(frozen=True)
class _Spread:
    """Of all values of an input: the least, the largest, their mean and their standard deviation."""

    least: float
    most: float
    mean: float
    deviation: float

    @property
    def size(self) -> float:
        """Root of the mean square."""
        return math.hypot(self.mean, self.deviation)

    def __str__(self) -> str:
        return f"{self.least:.3g} to {self.most:.3g} (mean {self.mean:.3g})"


def unlike(data: Data, ports: Sequence[Port]) -> Finding | None:
    """Return the finding ``calibration-mismatch`` where an input's values are on another scale in the two sets.

    Args:
        data: the job's, checked.
        ports: the model's inputs; those of floats are held against each other, as the model gets them.

    Raises:
        JobError: a batch does not fit the model.
    """
    floats = [place for place, port in enumerate(ports) if np.dtype(port.spec.dtype).kind == "f"]
    if not floats:
        return None
    mine = _spreads(_first(data.whole()), floats)
    theirs = _spreads(_first(inputs for inputs, _ in data.evaluation()), floats)
    faults = [
        f"{ports[place].name} is {mine[place]} in calibration() and {theirs[place]} in evaluation()"
        for place in floats
        if _apart(mine[place], theirs[place])
    ]
    if not faults:
        return None
    return Finding(KIND, f"{'; '.join(faults)}: integers fitted to the one do not fit the other; prepare both alike")


def _apart(one: _Spread, other: _Spread) -> bool:
    sizes = sorted((one.size, other.size))
    return sizes[1] > APART * sizes[0] or abs(one.mean - other.mean) > ASIDE * max(one.deviation, other.deviation)


def _first(samples: Iterable[Sample]) -> Iterator[Sample]:
    rows = 0
    for sample in samples:
        yield sample
        rows += len(sample[0])
        if rows >= ROWS:
            return


def _spreads(samples: Iterable[Sample], places: Sequence[int]) -> dict[int, _Spread]:
    """Return place of an input -> the spread of its values over all batches, sums in float64."""
    sums = {place: np.zeros(3) for place in places}
    ends = dict.fromkeys(places, (math.inf, -math.inf))
    for sample in samples:
        for place in places:
            values = sample[place].astype(np.float64, copy=False)
            sums[place] += (values.size, values.sum(), np.square(values).sum())
            low, high = ends[place]
            ends[place] = (min(low, float(values.min(initial=low))), max(high, float(values.max(initial=high))))
    found = {}
    for place, (count, total, squares) in sums.items():
        mean = float(total / max(count, 1))
        found[place] = _Spread(*ends[place], mean, math.sqrt(max(0.0, float(squares / max(count, 1)) - mean * mean)))
    return found
