"""The bootstrap: determinism, bounded blocks, signs, coverage by simulation, and what is degenerate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from haversack.base.quality import Drop
from haversack.tools.numerics import bootstrap

SCORES = hnp.arrays(np.float64, st.integers(2, 30), elements=st.floats(-100, 100))


def test_resamples_do_not_depend_on_the_size_of_blocks(monkeypatch):
    whole = np.concatenate(list(bootstrap.resamples(10, 50)))
    monkeypatch.setattr(bootstrap, "BLOCK_INDICES", 70)
    blocks = list(bootstrap.resamples(10, 50))
    assert [len(block) for block in blocks] == [7] * 7 + [1]
    assert np.array_equal(np.concatenate(blocks), whole)


def test_resamples_are_drawn_evenly_and_by_seed():
    counts = np.bincount(np.concatenate(list(bootstrap.resamples(5, 4000))).reshape(-1), minlength=5)
    assert counts / 20000 == pytest.approx(np.full(5, 0.2), abs=0.01)
    first, second = (next(bootstrap.resamples(5, 9, seed=seed)) for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        next(bootstrap.resamples(0))
    with pytest.raises(ValueError, match="no samples"):
        bootstrap.paired_drop(np.zeros(0), np.zeros(0), "higher")


def test_other_samples_are_refused():
    with pytest.raises(ValueError, match="not of the same samples"):
        bootstrap.paired_drop(np.zeros(3), np.zeros(4), "higher")


@given(SCORES, st.integers(0, 3))
def test_the_same_scores_give_the_same_interval(scores, seed):
    other = scores[::-1].copy()
    first = bootstrap.paired_drop(scores, other, "higher", seed=seed)
    assert bootstrap.paired_drop(scores, other, "higher", seed=seed) == first
    assert first.low <= first.value <= first.high


@given(SCORES)
def test_direction_turns_the_sign(scores):
    other = scores + np.arange(scores.size)
    higher = bootstrap.paired_drop(scores, other, "higher")
    lower = bootstrap.paired_drop(scores, other, "lower")
    assert lower.value == -higher.value
    assert lower.value > 0  # other is larger, and lower is better


def test_equal_scores_without_a_bound_have_no_width():
    assert bootstrap.paired_drop(np.ones(9), np.zeros(9), "higher") == Drop(1, 1, 1, 9)


def test_equal_right_or_wrong_scores_stay_uncertain_about_what_was_not_seen():
    drop = bootstrap.paired_drop(np.ones(100), np.ones(100), "higher", span=1.0)
    assert drop.value == 0
    assert 0.01 < drop.high < 0.05  # the rule of three says .03
    assert -0.05 < drop.low < -0.01
    wider = bootstrap.paired_drop(np.ones(10), np.ones(10), "higher", span=1.0)
    assert wider.high > drop.high


def test_all_samples_lost_keeps_the_value_inside():
    drop = bootstrap.paired_drop(np.ones(6), np.zeros(6), "higher", span=1.0)
    assert drop.value == drop.high == 1
    assert drop.low < 1


def flips(draw, samples, lost, gained):
    """Return right-or-wrong scores of float and artefact whose true drop is lost - gained."""
    baseline = (draw.random(samples) < 0.7).astype(float)
    chance = draw.random(samples)
    artifact = np.where((baseline == 1) & (chance < lost / 0.7), 0.0, baseline)
    artifact = np.where((baseline == 0) & (chance < gained / 0.3), 1.0, artifact)
    return baseline, artifact


@pytest.mark.parametrize("samples, lost, gained", [(100, 0.04, 0.01), (372, 0.02, 0.01), (372, 0.005, 0.0)])
def test_the_interval_covers_the_true_drop_95_times_in_100(samples, lost, gained):
    draw = np.random.default_rng(7)
    hits = 0
    for seed in range(200):
        drop = bootstrap.paired_drop(*flips(draw, samples, lost, gained), "higher", span=1.0, seed=seed)
        hits += drop.low <= lost - gained <= drop.high
    assert hits / 200 >= 0.92


def test_without_pseudo_samples_rare_changes_are_missed():
    draw = np.random.default_rng(7)
    hits = 0
    for seed in range(200):
        drop = bootstrap.paired_drop(*flips(draw, 372, 0.005, 0.0), "higher", seed=seed)
        hits += drop.low <= 0.005 <= drop.high
    assert hits / 200 < 0.9


def test_the_interval_of_a_mean_covers_and_is_no_wider_than_it_must_be():
    draw = np.random.default_rng(1)
    hits, widths = 0, []
    for seed in range(200):
        baseline = draw.normal(size=80)
        artifact = baseline + 0.3 + draw.normal(size=80) / 2
        drop = bootstrap.paired_drop(baseline, artifact, "lower", seed=seed)
        hits += drop.low <= 0.3 <= drop.high
        widths.append(drop.high - drop.low)
    assert 0.91 <= hits / 200 <= 0.99
    assert np.mean(widths) == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(80), rel=0.08)


def test_pairing_makes_the_interval_narrower():
    draw = np.random.default_rng(2)
    hard = draw.normal(size=200) * 10
    paired = bootstrap.paired_drop(hard, hard - 0.1 * draw.random(200), "higher")
    assert paired.high - paired.low < 0.02


def test_any_statistic_agrees_with_the_mean():
    draw = np.random.default_rng(3)
    baseline, artifact = draw.normal(size=50), draw.normal(size=50)
    mean = bootstrap.paired_drop(baseline, artifact, "higher")
    general = bootstrap.paired_drop_of(
        lambda block: baseline[block].mean(axis=1), lambda block: artifact[block].mean(axis=1), 50, "higher"
    )
    assert general.value == pytest.approx(mean.value)
    assert (general.low, general.high) == pytest.approx((mean.low, mean.high))


def test_resamples_without_a_value_are_left_out():
    def sometimes(block):
        means = block.mean(axis=1)
        return np.where(means > 4, np.nan, means)

    drop = bootstrap.paired_drop_of(sometimes, lambda block: np.zeros(len(block)), 8, "higher")
    assert math.isfinite(drop.low)
    assert drop.high <= 4
    never = bootstrap.paired_drop_of(
        lambda block: np.full(len(block), np.nan), lambda block: np.zeros(len(block)), 8, "higher"
    )
    assert math.isnan(never.low)
    assert math.isnan(never.high)


def test_standard_error_of_a_mean():
    values = np.random.default_rng(4).normal(size=100)
    error = bootstrap.standard_error(lambda block: values[block].mean(axis=1), 100, count=2000)
    assert error == pytest.approx(values.std() / 10, rel=0.06)
    assert math.isnan(bootstrap.standard_error(lambda block: values[block].mean(axis=1), 1))
    assert math.isnan(bootstrap.standard_error(lambda block: np.full(len(block), np.nan), 5))


@given(SCORES)
def test_the_jackknife_of_a_mean_is_exact(values):
    without_one = (values.sum() - values) / (values.size - 1)
    truth = values.std(ddof=1) / math.sqrt(values.size)
    assert bootstrap.jackknife_error(without_one) == pytest.approx(truth, rel=1e-6, abs=1e-9)


def test_the_jackknife_of_one_sample_is_nan():
    assert math.isnan(bootstrap.jackknife_error(np.zeros(1)))


@pytest.mark.parametrize(
    "drop, limit, is_met, is_established",
    [
        (Drop(0.005, 0.001, 0.009, 100), 0.01, True, True),
        (Drop(0.005, 0.001, 0.012, 100), 0.01, True, False),
        (Drop(0.011, 0.009, 0.020, 100), 0.01, False, False),
        (Drop(0.030, 0.020, 0.040, 100), 0.01, False, True),
        (Drop(0.010, 0.010, 0.010, 100), 0.01, True, True),
        (Drop(0.005, math.nan, math.nan, 2), 0.01, True, False),
        (Drop(math.nan, math.nan, math.nan, 2), 0.01, False, False),
    ],
)
def test_met_by_the_point_established_by_the_interval(drop, limit, is_met, is_established):
    assert bootstrap.met(drop, limit) is is_met
    assert bootstrap.established(drop, limit) is is_established
