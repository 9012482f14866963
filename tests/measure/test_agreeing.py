"""Two measurements as one, the sign test against SciPy's, and summaries against what NumPy says of the same calls."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from haversack.base.errors import UsageError
from haversack.measure.device import Times
from haversack.measure.findings import NOISY_SPREAD, of_outputs, of_speed
from haversack.measure.latency import summarise
from haversack.measure.noise import Difference, _median_interval, _rank, differ, together
from haversack.measure.ssh import Address

ratios = st.floats(0.2, 5.0)


@st.composite
def differences(draw):
    ratio = draw(ratios)
    low, high = ratio / draw(st.floats(1.0, 1.5)), ratio * draw(st.floats(1.0, 1.5))
    return Difference(low > 1 or high < 1, ratio, low, high, "it was")


@given(differences(), differences())
def test_together_is_the_same_from_both_sides(one, other):
    first, second = together(one, other), together(other, one)
    assert first.different == second.different
    assert (first.low, first.high) == (second.low, second.high)
    assert abs(math.log(first.ratio)) == abs(math.log(second.ratio))


@given(differences(), differences())
def test_together_claims_no_more_than_either_claims(one, other):
    both = together(one, other)
    assert not both.different or (one.different and other.different)
    assert both.ratio in {one.ratio, other.ratio}
    assert abs(math.log(both.ratio)) == min(abs(math.log(one.ratio)), abs(math.log(other.ratio)))
    assert both.low <= min(one.low, other.low)
    assert both.high >= max(one.high, other.high)
    if both.different:
        assert (one.ratio > 1) == (other.ratio > 1)


@given(differences())
def test_the_same_measurement_twice_says_what_it_said(one):
    both = together(one, one)
    assert (both.different, both.ratio, both.low, both.high) == (one.different, one.ratio, one.low, one.high)


@pytest.mark.parametrize(
    ("first", "second", "different"),
    # They are 20 % apart, and the lesser must be more than half of that from 1: more than 10 % in logarithms.
    [(1.10 * 1.2, 1.11, True), (1.09 * 1.2, 1.09, False), (1 / 1.32, 1 / 1.11, True), (1.2, 1 / 1.2, False)],
)
def test_what_openings_differ_by_must_be_less_than_twice_the_difference(first, second, different):
    made = [Difference(True, ratio, ratio / 1.001, ratio * 1.001, "") for ratio in (first, second)]
    assert together(*made).different is different


@given(st.integers(1, 300), st.sampled_from([0.5, 0.8, 0.95, 0.99]))
def test_ranks_are_scipys_binomial(count, confidence):
    # The interval from the k-th smallest to the k-th largest misses the median with probability 2 P(X < k).
    rank = _rank(count, 1 - confidence)
    assert 2 * stats.binom.cdf(rank - 1, count, 0.5) <= (1 - confidence) * (1 + 1e-9)
    assert 2 * stats.binom.cdf(rank, count, 0.5) > (1 - confidence) * (1 - 1e-9)


@settings(max_examples=40)
@given(st.lists(st.integers(-1000, 1000), min_size=6, max_size=60, unique=True))
def test_the_interval_of_a_median_is_scipys_quantile_test_turned_round(values):
    low, high = _median_interval(np.array(values, np.float64), 0.95)
    inside = [stats.quantile_test(values, q=value, p=0.5).pvalue for value in (low + 1e-6, high - 1e-6)]
    outside = [stats.quantile_test(values, q=value, p=0.5).pvalue for value in (low - 1e-6, high + 1e-6)]
    assert min(inside) > 0.05
    assert max(outside) <= 0.05


@given(st.integers(6, 80), ratios)
def test_a_constant_ratio_is_found_with_an_interval_of_no_width(pairs, ratio):
    b = np.linspace(1.0, 2.0, pairs)
    found = differ(b * ratio, b)
    assert found.ratio == pytest.approx(ratio)
    assert found.low == pytest.approx(ratio)
    assert found.high == pytest.approx(ratio)
    assert found.spread == pytest.approx(0, abs=1e-9)


calls = st.lists(st.tuples(st.integers(1, 10**9), st.integers(1, 10**9)), min_size=1, max_size=40)


@given(calls, st.integers(2, 9))
def test_a_summary_scales_with_the_clock_and_its_ratios_do_not(pairs, factor):
    wall = np.array(pairs, np.int64)
    one = summarise(Times(wall, wall), 3.0, "local", 2)
    other = summarise(Times(wall * factor, wall), 3.0, "local", 2)
    for name in ("median_ms", "p95_ms", "float_median_ms"):
        assert getattr(other, name) == pytest.approx(getattr(one, name) * factor)
    for name in ("ratio", "ratio_low", "ratio_high", "cpu_ratio"):
        assert getattr(other, name) == pytest.approx(getattr(one, name))
    assert one.ratio_low <= one.ratio <= one.ratio_high
    assert (one.pairs, one.cold_ms, one.device, one.threads) == (len(pairs), 3.0, "local", 2)


@given(calls)
def test_a_summary_of_swapped_calls_has_the_other_files_milliseconds(pairs):
    wall = np.array(pairs, np.int64)
    one, other = (summarise(Times(side, side), 1.0, "local", 1) for side in (wall, wall[:, ::-1]))
    assert one.median_ms == other.float_median_ms
    assert one.float_median_ms == other.median_ms
    if len(pairs) % 2:  # the median of an even number is a mean, which has no reciprocal law
        assert one.ratio == pytest.approx(1 / other.ratio)


@given(differences())
def test_a_difference_is_told_once_or_not_at_all(difference):
    kinds = [finding.kind for finding in of_speed(difference)]
    slower = difference.different and difference.ratio > 1
    unknown = not difference.different and difference.spread > NOISY_SPREAD
    assert kinds == ["slower-than-float"] * slower + ["noisy"] * unknown


@given(st.dictionaries(st.sampled_from("abc"), st.integers(0, 1), max_size=3),
       st.dictionaries(st.sampled_from("abc"), st.integers(0, 1), max_size=3))  # fmt: skip
def test_runs_that_differ_are_told_by_every_name_that_differs(first, second):
    one, other = ({name: np.full(2, value) for name, value in run.items()} for run in (first, second))
    wrong = sorted(name for name in {*first, *second} if first.get(name) != second.get(name))
    found = of_outputs(one, other)
    assert [finding.kind for finding in found] == ["nondeterministic"] * bool(wrong)
    if wrong:
        assert sorted(found[0].text.partition(" differ in ")[2].split(", ")) == wrong


# ---- addresses ------------------------------------------------------------------------------------------------------

words = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(words, st.none() | words, st.none() | st.integers(1, 65535))
def test_an_address_is_read_as_it_is_written(host, user, port):
    text = (f"{user}@" if user else "") + host + (f":{port}" if port else "")
    found = Address.of(text)
    assert found == Address(host, user or "", port or 0)
    arguments = found.arguments()
    assert arguments[-2:] == ["--", host]
    assert ("-l" in arguments) == bool(user)
    assert (["-p", str(port)] == arguments[-4:-2]) == bool(port)


@given(st.text(max_size=24))
def test_what_is_read_as_an_address_begins_with_no_dash_and_holds_nothing_of_a_shell(text):
    try:
        found = Address.of(text)
    except UsageError:
        return
    for word in (found.host, found.user):
        assert not word.startswith("-")
        assert not set(word) & set(" ;&|$`'\"\\\n<>(){}*?!#~")
    assert 0 <= found.port <= 65535
