"""The bootstrap: how far a number measured on n samples may lie from the truth.

Efron and Tibshirani, An Introduction to the Bootstrap (1993): percentile intervals (chapter 13), the jackknife
(chapter 11). Paired: float and artefact are resampled with the same indices, so what all samples share cancels.
Resamples come from a seeded Philox stream in blocks of bounded size, so every run gives the same interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from haversack.base.quality import Direction, Drop

CONFIDENCE = 0.95
RESAMPLES = 2000
BLOCK_INDICES = 1 << 21

Resampled = Callable[[np.ndarray], np.ndarray]
"""Takes indices [resamples, samples] and returns the statistic of each row, float64 [resamples]."""


def resamples(samples: int, count: int = RESAMPLES, *, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield int64 indices [block, samples] drawn with replacement, ``count`` rows in all, 2^21 indices a block at most.

    The rows do not depend on the size of the blocks.

    Raises:
        ValueError: there are no samples.
    """
    if samples < 1:
        raise ValueError("nothing can be resampled from no samples")
    draw = np.random.Generator(np.random.Philox(seed))
    rows = max(1, BLOCK_INDICES // samples)
    for start in range(0, count, rows):
        yield draw.integers(0, samples, size=(min(rows, count - start), samples))


def standard_error(statistic: Resampled, samples: int, *, count: int = 400, seed: int = 0) -> float:
    """Return the standard deviation of a statistic over resamples; NaN for fewer than two samples.

    Resamples on which the statistic is not defined (a rank correlation of equal values) are left out.
    """
    if samples < 2:
        return float("nan")
    values = np.concatenate([statistic(block) for block in resamples(samples, count, seed=seed)])
    values = values[np.isfinite(values)]
    return float(np.std(values, ddof=1)) if values.size > 1 else float("nan")


def jackknife_error(without_one: np.ndarray) -> float:
    """Return the jackknife standard error from a statistic's values with each sample left out, float64 [samples].

    For a mean this is exactly s / sqrt(n). NaN for fewer than two samples.
    """
    samples = without_one.size
    if samples < 2:
        return float("nan")
    centred = without_one - without_one.mean()
    return float(np.sqrt((samples - 1) / samples * np.dot(centred, centred)))


def paired_drop(
    baseline: np.ndarray, artifact: np.ndarray, direction: Direction, *, span: float = 0.0, seed: int = 0
) -> Drop:
    """Return how much worse the mean of ``artifact`` is than that of ``baseline``: scores [n] of the same samples.

    ``span`` is the largest difference one sample can make (1 for right-or-wrong scores; 0 where there is no bound).
    With it, one pseudo-sample of +span and one of -span join the resampled population, as Bonett and Price (2012,
    J. Educ. Behav. Stat. 37:479) do for paired proportions: without them an artefact that differs from float on no
    sample seen would claim an interval of width zero, and miss the truth far more often than 5 % of the time.

    Raises:
        ValueError: the scores are not of the same samples, or there are none.
    """
    if baseline.shape != artifact.shape or baseline.ndim != 1:
        raise ValueError(f"scores {baseline.shape} and {artifact.shape} are not of the same samples")
    if baseline.size == 0:
        raise ValueError("no samples were scored")
    worse = (baseline - artifact if direction == "higher" else artifact - baseline).astype(np.float64)
    population = np.concatenate([worse, [span, -span]]) if span else worse
    means = [population[block].mean(axis=1) for block in resamples(population.size, seed=seed)]
    return _drop(float(worse.mean()), np.concatenate(means), baseline.size)


def paired_drop_of(
    baseline: Resampled,
    artifact: Resampled,
    samples: int,
    direction: Direction,
    *,
    count: int = RESAMPLES,
    seed: int = 0,
) -> Drop:
    """Return how much worse ``artifact`` is for a statistic that is no mean (a rank correlation, a perplexity).

    Both callables get the same blocks of indices. Resamples on which either is not defined are left out; where that
    leaves none, the interval is (NaN, NaN), which establishes nothing.

    Raises:
        ValueError: there are no samples.
    """
    sign = 1.0 if direction == "higher" else -1.0
    differences = [sign * (baseline(block) - artifact(block)) for block in resamples(samples, count, seed=seed)]
    everything = np.arange(samples)[None]
    value = sign * float(baseline(everything)[0] - artifact(everything)[0])
    return _drop(value, np.concatenate(differences), samples)


def met(drop: Drop, limit: float) -> bool:
    """Say whether the point estimate keeps the limit (a NaN does not)."""
    return drop.value <= limit


def established(drop: Drop, limit: float) -> bool:
    """Say whether the interval lies on one side of the limit, so that met or missed holds beyond these samples."""
    return drop.high <= limit or drop.low > limit


def _drop(value: float, differences: np.ndarray, samples: int) -> Drop:
    finite = differences[np.isfinite(differences)]
    if finite.size == 0:
        return Drop(value, float("nan"), float("nan"), samples)
    tail = (1 - CONFIDENCE) / 2
    low, high = (float(bound) for bound in np.quantile(finite, [tail, 1 - tail]))
    return Drop(value, min(low, value), max(high, value), samples)
