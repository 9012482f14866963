"""Whether two timings differ: nothing is ranked inside the noise.

Timings are skewed, with outliers, so nothing here assumes a distribution. The interval of the median of paired
log-ratios comes from order statistics, which is the sign test turned round (Conover, Practical Nonparametric
Statistics, 3.2): exact for independent pairs. Neighbouring pairs on a real machine are not independent, because the
clock and other processes drift, so pairs are first joined in blocks as long as their signs hang together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from haversack.base.counted import counted

CONFIDENCE = 0.95
DRIFT = 0.02
"""How far the ratio of one and the same file to itself may lie from 1, by where its memory lies: seen up to 0.010."""
_EXACT_UP_TO = 1000
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Difference:
    """How two paired timings compare.

    Attributes:
        different: whether the interval leaves out the ratio 1 by more than the tolerance.
        ratio: median of a / b.
        low, high: its interval; (0, inf) when there are too few pairs to say anything.
        why: the same in words.
    """

    different: bool
    ratio: float
    low: float
    high: float
    why: str

    @property
    def spread(self) -> float:
        """Half the width of the interval, relative to the ratio; infinite when there are too few pairs."""
        return math.log(self.high / self.low) / 2 if self.low > 0 and math.isfinite(self.high) else math.inf


def differ(a: np.ndarray, b: np.ndarray, *, confidence: float = CONFIDENCE, tolerance: float = 0.0) -> Difference:
    """Compare paired timings, positive and of shape [pairs] each, in the order in which they were taken.

    Args:
        a, b: calls of two artefacts, by turns; any unit, the same for both.
        confidence: of the interval; 1 - confidence is how often equal artefacts are called different (at .95 and
            200 pairs, 7 % where neighbours correlate by .6, and 8 to 11 % by .8: simulated in the tests).
        tolerance: ratios closer to 1 than this are not called different, however certain they are.

    Raises:
        ValueError: the shapes differ, there are no pairs, or a time is not positive.
    """
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise ValueError(f"timings {a.shape} and {b.shape} are not pairs")
    if not (np.all(a > 0) and np.all(b > 0)):
        raise ValueError("a time is not positive")
    logs = np.log(a.astype(np.float64)) - np.log(b.astype(np.float64))
    ratio = math.exp(float(np.median(logs)))
    blocks = _blocks(logs)
    bounds = _median_interval(blocks, confidence)
    if bounds is None:
        why = f"{blocks.size} independent pairs of {a.size} are too few for a {confidence:.0%} interval"
        return Difference(False, ratio, 0.0, math.inf, why)  # noqa: FBT003 - the record's first field
    low, high = (math.exp(bound) for bound in bounds)
    different = low > 1 + tolerance or high < 1 / (1 + tolerance)
    words = "differ" if different else "do not differ"
    pairs = counted(a.size, "pair")
    why = f"\u00d7{ratio:.3f}, {confidence:.0%} interval {low:.3f} to {high:.3f} over {pairs}: they {words}"
    return Difference(different, ratio, low, high, why)


def together(first: Difference, second: Difference) -> Difference:
    """Return what two measurements of the same two artefacts say together, each in openings of its own.

    They differ where both do, on the same side of 1, and where the ratio nearer to 1 is farther from it than half of
    what the two measurements are apart. The ratio is the one nearer to 1, the interval covers both.
    """
    logs = math.log(first.ratio), math.log(second.ratio)
    same_side = (logs[0] > 0) == (logs[1] > 0)
    beyond = min(map(abs, logs)) > abs(logs[0] - logs[1]) / 2
    different = first.different and second.different and same_side and beyond
    nearer = min(first, second, key=lambda one: abs(math.log(one.ratio)))
    why = f"{first.why}; opened again in the other order {second.why}"
    return Difference(different, nearer.ratio, min(first.low, second.low), max(first.high, second.high), why)


def _blocks(logs: np.ndarray) -> np.ndarray:
    """Return medians of runs of neighbours, each run long enough to be about independent of the next."""
    centred = logs - np.median(logs)
    signs = np.sign(np.where(np.abs(centred) < _ROUNDING, 0, centred))
    energy = float(np.dot(signs, signs))
    if logs.size < 2 or energy == 0:
        return logs
    correlation = float(np.dot(signs[1:], signs[:-1])) / energy
    if correlation < 1 / math.sqrt(logs.size):  # within what independent pairs show by chance
        return logs
    # For normal noise the correlation of signs r belongs to a correlation of values sin(r * pi / 2).
    values = min(math.sin(correlation * math.pi / 2), 0.99)
    length = math.ceil((1 + values) / (1 - values))
    count = max(1, logs.size // length)
    return np.array([np.median(part) for part in np.array_split(logs, count)])


def _median_interval(values: np.ndarray, confidence: float) -> tuple[float, float] | None:
    rank = _rank(values.size, 1 - confidence)
    if rank < 1:
        return None
    ordered = np.sort(values)
    return float(ordered[rank - 1]), float(ordered[values.size - rank])


def _rank(count: int, error: float) -> int:
    """Return the largest k for which the k-th smallest and k-th largest of ``count`` bound the median; 0 if none."""
    if count > _EXACT_UP_TO:
        return max(0, math.floor((count + NormalDist().inv_cdf(error / 2) * math.sqrt(count)) / 2))
    limit = error / 2 * 2.0**count
    total, rank = 0, 0
    for k in range(count // 2 + 1):
        total += math.comb(count, k)
        if total > limit:
            break
        rank = k + 1
    return rank
