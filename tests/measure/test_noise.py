from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from haversack.measure.noise import Difference, _rank, differ

times = st.lists(
    st.tuples(st.floats(1e3, 1e9, allow_nan=False), st.floats(1e3, 1e9, allow_nan=False)), min_size=1, max_size=60
)


def simulate(count, pairs, *, ratio=1.0, correlation=0.0, sigma=0.05, outliers=0.0, seed=0):
    """Return a [count, pairs] and b [count, pairs]: log-normal times whose log-ratios are an AR(1) series."""
    draw = np.random.default_rng(seed)
    noise = np.zeros((count, pairs))
    noise[:, 0] = draw.standard_normal(count)
    for step in range(1, pairs):
        noise[:, step] = correlation * noise[:, step - 1] + math.sqrt(1 - correlation**2) * draw.standard_normal(count)
    b = np.exp(draw.normal(10, 0.3, (count, pairs)))
    a = b * ratio * np.exp(sigma * noise)
    hit = draw.random((count, pairs)) < outliers
    return np.where(hit, a * draw.uniform(1, 20, (count, pairs)), a), b


def rate(a, b, **settings):
    return float(np.mean([differ(x, y, **settings).different for x, y in zip(a, b, strict=True)]))


@pytest.mark.parametrize("pairs", [10, 40, 150])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_equal_artefacts_are_called_different_as_often_as_stated(pairs, confidence):
    found = rate(*simulate(1000, pairs), confidence=confidence)
    stated = 1 - confidence
    # An interval of order statistics has steps: it is at most as often wrong as stated, and not much more seldom.
    assert found <= stated + 4 * math.sqrt(stated * (1 - stated) / 1000)
    assert found >= stated / 8


@pytest.mark.parametrize(("correlation", "at_most"), [(0.3, 0.10), (0.6, 0.12), (0.8, 0.15)])
def test_a_machine_that_drifts_rarely_makes_equal_artefacts_different(correlation, at_most):
    found = rate(*simulate(400, 200, correlation=correlation))
    assert found <= at_most
    naive = rate_without_blocks(*simulate(400, 200, correlation=correlation))
    assert found < naive


def rate_without_blocks(a, b):
    """The plain sign test, which takes neighbours for independent."""
    wrong = 0
    for x, y in zip(a, b, strict=True):
        logs = np.sort(np.log(x / y))
        rank = _rank(logs.size, 0.05)
        wrong += logs[rank - 1] > 0 or logs[logs.size - rank] < 0
    return wrong / len(a)


def test_pairs_that_lean_in_turns_are_not_different():
    # What is called second is slower, and the order alternates: that is no difference.
    lean = np.where(np.arange(60) % 2, 1.1, 1 / 1.1)
    draw = np.random.default_rng(0)
    b = draw.uniform(1, 2, 60)
    assert not differ(b * lean * np.exp(draw.normal(0, 0.01, 60)), b).different


@pytest.mark.parametrize("ratio", [1.05, 0.95])
def test_a_difference_of_five_percent_is_seen_in_forty_pairs(ratio):
    a, b = simulate(200, 40, ratio=ratio, sigma=0.04)
    assert rate(a, b) > 0.98
    for x, y in zip(a, b, strict=True):
        result = differ(x, y)
        assert not result.different or (result.ratio > 1) == (ratio > 1)


def test_outliers_do_not_hide_a_difference_nor_make_one():
    assert rate(*simulate(200, 80, ratio=0.9, outliers=0.1)) > 0.98
    a, b = simulate(400, 80)
    draw = np.random.default_rng(5)
    for times_of in (a, b):
        times_of[draw.random(times_of.shape) < 0.1] *= 10
    assert rate(a, b) <= 0.05 + 0.04


def test_the_interval_covers_the_truth_as_often_as_stated():
    a, b = simulate(1000, 50, ratio=0.6)
    results = [differ(x, y) for x, y in zip(a, b, strict=True)]
    covered = np.mean([result.low <= 0.6 <= result.high for result in results])
    assert 0.93 <= covered <= 0.99


@given(times)
def test_swapping_turns_everything_round(pairs):
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    one, other = differ(a, b), differ(b, a)
    assert one.different == other.different
    assert one.ratio == pytest.approx(1 / other.ratio)
    if math.isfinite(one.high):
        assert one.low == pytest.approx(1 / other.high)
        assert one.low <= one.ratio * (1 + 1e-12)
        assert one.ratio <= one.high * (1 + 1e-12)


@given(times, st.floats(1e-3, 1e3))
def test_the_unit_of_time_does_not_matter(pairs, unit):
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    assert differ(a * unit, b * unit).ratio == pytest.approx(differ(a, b).ratio)


@given(times)
def test_the_same_times_never_differ(pairs):
    a = np.array([pair[0] for pair in pairs])
    result = differ(a, a)
    assert not result.different
    assert result.ratio == 1


@given(times, st.floats(0, 0.5), st.floats(0, 0.5))
def test_more_tolerance_never_finds_more(pairs, one, other):
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    less, more = sorted((one, other))
    assert differ(a, b, tolerance=less).different or not differ(a, b, tolerance=more).different


@given(times)
def test_more_confidence_never_gives_a_narrower_interval(pairs):
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    results = [differ(a, b, confidence=confidence) for confidence in (0.5, 0.8, 0.95, 0.99)]
    assume(math.isfinite(results[0].high))
    for narrow, wide in pairwise(results):
        assert wide.low <= narrow.low
        assert wide.high >= narrow.high


@pytest.mark.parametrize("count", [1, 2, 5])
def test_too_few_pairs_say_so(count):
    result = differ(np.full(count, 3.0), np.full(count, 1.0))
    assert not result.different
    assert (result.low, result.high) == (0, math.inf)
    assert result.spread == math.inf
    assert "too few" in result.why


def test_words_and_numbers_agree():
    draw = np.random.default_rng(0)
    b = draw.uniform(1, 2, 40)
    result = differ(b * draw.uniform(0.49, 0.51, 40), b)
    assert result.different
    assert "\u00d70.499" in result.why
    assert "40 pairs: they differ" in result.why
    assert result.spread == pytest.approx(math.log(result.high / result.low) / 2)
    assert "do not differ" in differ(b, b).why


def test_a_small_certain_difference_is_left_to_the_tolerance():
    b = np.linspace(1, 2, 50)
    assert differ(b * 1.005, b).different
    assert not differ(b * 1.005, b, tolerance=0.01).different
    assert not differ(b / 1.005, b, tolerance=0.01).different
    assert differ(b * 1.02, b, tolerance=0.01).different


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.ones(3), np.ones(4)),
        (np.ones(0), np.ones(0)),
        (np.ones((2, 2)), np.ones((2, 2))),
        (np.zeros(3), np.ones(3)),
        (np.ones(3), np.array([1.0, -1.0, 1.0])),
        (np.array([1.0, np.nan]), np.ones(2)),
    ],
)
def test_what_are_no_pairs_of_times_is_refused(a, b):
    with pytest.raises(ValueError, match="not pairs|not positive"):
        differ(a, b)


@pytest.mark.parametrize(
    ("count", "rank"),
    # Conover, table A3 (binomial, p = .5): the largest r with P(X <= r - 1) <= .025.
    [(1, 0), (5, 0), (6, 1), (8, 1), (9, 2), (10, 2), (20, 6), (30, 10), (50, 18), (100, 40)],
)
def test_ranks_are_those_of_the_sign_test(count, rank):
    assert _rank(count, 0.05) == rank


def test_ranks_go_on_smoothly_where_the_exact_sum_ends():
    ranks = [_rank(count, 0.05) for count in range(950, 1051)]
    assert all(0 <= after - before <= 1 for before, after in pairwise(ranks))


def test_a_spread_is_relative():
    assert Difference(different=True, ratio=1.0, low=0.9, high=0.9 * math.exp(0.2), why="").spread == pytest.approx(0.1)
