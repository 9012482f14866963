"""Drops of the real metrics: signs and sizes in closed form, and intervals that cover what is true."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack import metrics
from haversack.tools.numerics import bootstrap


def states(name, float_outputs, outputs, expected, **options):
    metric = metrics.SHELF.build(name, options)
    pair = metric.start(), metric.start()
    for state, values in zip(pair, (float_outputs, outputs), strict=True):
        state.update((np.asarray(values, np.float32),), np.asarray(expected))
    return pair


def one_hot(choices, classes=3):
    return np.eye(classes, dtype=np.float32)[np.asarray(choices)]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_top1_drop_is_lost_minus_gained(rows):
    chosen, squeezed, labels = (np.array(column) for column in zip(*rows, strict=True))
    before, after = states("top1", one_hot(chosen), one_hot(squeezed), labels)
    lost = np.sum((chosen == labels) & (squeezed != labels))
    gained = np.sum((chosen != labels) & (squeezed == labels))
    drop = before.drop(after)
    assert drop.value == pytest.approx((lost - gained) / len(rows))
    assert -1 <= drop.low <= drop.value <= drop.high <= 1


@pytest.mark.parametrize("lost, gained", [(5, 2), (12, 12), (30, 5)])
def test_top1_interval_is_near_bonett_and_prices(lost, gained):
    samples = 400
    labels = np.zeros(samples, np.int64)
    chosen, squeezed = labels.copy(), labels.copy()
    squeezed[:lost] = 1
    chosen[lost : lost + gained] = 1
    drop = states("top1", one_hot(chosen), one_hot(squeezed), labels)
    drop = drop[0].drop(drop[1])
    p, q = (lost + 1) / (samples + 2), (gained + 1) / (samples + 2)
    half = 1.96 * math.sqrt((p + q - (p - q) ** 2) / (samples + 2))
    assert drop.low == pytest.approx(p - q - half, abs=0.004)
    assert drop.high == pytest.approx(p - q + half, abs=0.004)


def test_one_point_lost_is_not_established_at_one_hundred_samples():
    labels = np.zeros(100, np.int64)
    squeezed = labels.copy()
    squeezed[0] = 1
    before, after = states("top1", one_hot(labels), one_hot(squeezed), labels)
    drop = before.drop(after)
    assert bootstrap.met(drop, 0.01)
    assert not bootstrap.established(drop, 0.01)
    assert bootstrap.established(drop, 0.10)


def test_agreement_of_float_with_itself_is_one_and_what_is_lost_is_the_drop():
    logits = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    moved = logits.copy()
    moved[:10] = np.roll(moved[:10], 1, axis=1)
    before, after = states("agreement", logits, moved, logits)
    assert before.value() == 1
    assert before.drop(after).value == pytest.approx(0.2)


@pytest.mark.parametrize("name", ["relative_error", "mean_squared_error", "kl"])
def test_an_error_that_grows_is_a_positive_drop(name):
    draw = np.random.default_rng(1)
    wanted = draw.normal(size=(40, 6)).astype(np.float32)
    noise = draw.normal(size=wanted.shape).astype(np.float32)
    before, after = states(name, wanted + noise / 100, wanted + noise / 10, wanted)
    drop = before.drop(after)
    assert drop.value == pytest.approx(after.value() - before.value())
    assert 0 < drop.low < drop.value < drop.high


def test_relative_error_of_ten_percent_noise():
    wanted = np.random.default_rng(2).normal(size=(200, 50)).astype(np.float32)
    noise = np.random.default_rng(3).normal(size=wanted.shape).astype(np.float32) / 10
    before, after = states("relative_error", wanted, wanted + noise, wanted)
    drop = before.drop(after)
    assert before.value() == 0
    assert drop.value == pytest.approx(0.1, rel=0.02)
    assert drop.high - drop.low < 0.005


def test_perplexity_drop_weighs_tokens():
    logits = np.random.default_rng(4).normal(size=(30, 8, 12)).astype(np.float32)
    tokens = np.random.default_rng(5).integers(0, 12, (30, 8))
    sharper = logits + 2 * np.eye(12, dtype=np.float32)[tokens]
    before, after = states("perplexity", sharper, logits, tokens)
    drop = before.drop(after)
    assert drop.value == pytest.approx(after.value() - before.value())
    assert 0 < drop.low < drop.high


def test_f1_drop_of_a_forgotten_class():
    labels = np.repeat([0, 1, 2], 20)
    squeezed = labels.copy()
    squeezed[labels == 2] = 1
    before, after = states("f1", one_hot(labels), one_hot(squeezed), labels)
    assert before.value() == 1
    assert before.drop(after).value == pytest.approx(1 - (1 + 2 / 3 + 0) / 3)


def test_spearman_interval_covers_the_true_drop():
    draw = np.random.default_rng(6)
    metric = metrics.SHELF.build("spearman")

    def rows(samples):
        truth = draw.normal(size=samples)
        good = truth + 0.5 * draw.normal(size=samples)
        return [np.stack([scores, truth], axis=1) for scores in (good, good + 0.4 * draw.normal(size=samples))]

    large = rows(100_000)
    wanted = float(metric.values(large[0][None])[0] - metric.values(large[1][None])[0])
    hits = 0
    for seed in range(40):
        first, second = rows(60)
        drop = bootstrap.paired_drop_of(
            lambda block, r=first: metric.values(r[block]),
            lambda block, r=second: metric.values(r[block]),
            60,
            "higher",
            count=100,
            seed=seed,
        )
        hits += drop.low <= wanted <= drop.high
    assert hits >= 34  # of 40, when 38 are to be expected


def test_spearman_of_pairs_drop():
    draw = np.random.default_rng(7)
    base = draw.normal(size=(80, 16))
    angle = draw.random(80)[:, None]
    rows = np.stack([base, base * (1 - angle) + angle * draw.normal(size=base.shape)], axis=1).reshape(160, 16)
    noisy = rows + 0.8 * draw.normal(size=rows.shape)
    before, after = states("spearman", rows, noisy, 1 - angle[:, 0], pairs=True)
    assert before.samples == 80
    drop = before.drop(after)
    assert drop.value > 0
    assert drop.low < drop.value < drop.high
