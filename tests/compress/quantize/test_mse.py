from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.compress.quantize.contract import full_scales, short
from haversack.compress.quantize.mse import MeanSquaredError


def error(weights, scales, bits=8, taps=1, alike=0.0):
    limit = (1 << (bits - 1)) - 1
    d = np.clip(np.rint(weights / scales[:, None]), -limit, limit) * scales[:, None] - weights
    sums = d.reshape(len(d), -1, taps).sum(axis=2)
    return (1 - alike) * np.square(d).sum(axis=1) + alike * np.square(sums).sum(axis=1)


@given(st.integers(0, 1000), st.sampled_from([3, 4, 8]), st.sampled_from([1, 9]))
def test_never_worse_than_the_full_scale_rounded_up_by_its_own_measure(seed, bits, taps):
    weights = np.random.default_rng(seed).standard_t(3, size=(4, 18)).astype(np.float32)
    part = MeanSquaredError(weight_least=0.3)
    alike = part.alike if taps > 1 else 0.0
    scales = part.weight_scales(weights, bits, taps)
    ours, full = (
        error(weights, scales, bits, taps, alike),
        error(weights, short(full_scales(weights, bits), 7 if taps > 1 else 6), bits, taps, alike),
    )
    assert (ours <= full * (1 + 1e-5)).all()


def test_the_best_of_the_grid_is_found():
    weights = np.random.default_rng(0).normal(size=(6, 18)).astype(np.float32)
    part = MeanSquaredError(ratios=5, weight_least=0.8, weight_most=1.2)
    full = full_scales(weights, 4)
    tried = [short(full * np.float32(r), 7) for r in (1.0, *np.linspace(0.8, 1.2, 5))]
    errors = np.array([error(weights, scales, 4, 9, 0.9) for scales in tried])
    want = np.array(tried)[errors.argmin(axis=0), np.arange(6)]
    np.testing.assert_allclose(part.weight_scales(weights, 4, 9), want, rtol=1e-6)


def test_alike_taps_balance_their_errors():
    """What a kernel makes of a flat input is nearer to float than with the full scale."""
    weights = np.random.default_rng(1).normal(size=(64, 9)).astype(np.float32)
    flat = lambda scales: np.abs((np.rint(weights / scales[:, None]) * scales[:, None] - weights).sum(axis=1)).mean()
    balanced = MeanSquaredError().weight_scales(weights, 8, 9)
    apart = MeanSquaredError(alike=0.0).weight_scales(weights, 8, 9)
    full = full_scales(weights, 8)
    assert flat(balanced) < flat(apart) / 2
    assert flat(balanced) < flat(full) / 5


def test_few_bits_and_heavy_tails_clip():
    weights = np.random.default_rng(2).standard_t(2, size=(8, 400)).astype(np.float32)
    scales = MeanSquaredError(weight_least=0.1).weight_scales(weights, 4)
    assert (scales < full_scales(weights, 4)).all()


def test_blocks_make_no_difference(monkeypatch):
    from haversack.compress.quantize import mse

    weights = np.random.default_rng(3).normal(size=(40, 27)).astype(np.float32)
    whole = MeanSquaredError().weight_scales(weights, 8, 9)
    monkeypatch.setattr(mse, "_BLOCK", 100)
    np.testing.assert_array_equal(MeanSquaredError().weight_scales(weights, 8, 9), whole)


def expected_error(values, low, high, bits):
    step = (high - low) / ((1 << bits) - 1)
    clipped = np.clip(values, low, high)
    return np.mean(np.square(np.rint((clipped - low) / step) * step + low - values))


@pytest.mark.parametrize("bits", [3, 4, 6])
def test_the_range_is_near_the_best_that_search_on_the_values_finds(statistics, bits):
    values = np.random.default_rng(4).laplace(size=20000).astype(np.float32)
    low, high = MeanSquaredError(least=0.05).activation_range(statistics(values), bits)
    best = min(
        expected_error(values, values.min() * a, values.max() * b, bits)
        for a in np.linspace(0.05, 1, 25)
        for b in np.linspace(0.05, 1, 25)
    )
    assert expected_error(values, low, high, bits) < best * 1.15


def test_eight_bits_hardly_clip_a_uniform_activation(statistics):
    values = np.random.default_rng(5).uniform(0, 6, size=5000)
    low, high = MeanSquaredError().activation_range(statistics(values))
    assert low == 0.0
    assert high == pytest.approx(6.0, rel=0.02)


def test_one_outlier_among_many_is_given_up(statistics):
    values = np.concatenate([np.random.default_rng(6).normal(size=100000), [40.0]])
    low, high = MeanSquaredError().activation_range(statistics(values), 4)
    assert high < 30
    assert low < -2


def test_five_million_weights_take_seconds():
    weights = np.random.default_rng(7).normal(size=(4000, 1200)).astype(np.float32)
    start = time.process_time()
    MeanSquaredError(ratios=8).weight_scales(weights)
    assert time.process_time() - start < 3.0


@pytest.mark.parametrize(
    "settings, name",
    [({"ratios": 0}, "ratios"), ({"least": 0.0}, "least"), ({"least": 1.1}, "least"), ({"weight_least": 0.0}, "weight"),
     ({"weight_least": 2.0}, "weight"), ({"alike": 1.0}, "alike"), ({"alike": -0.1}, "alike")],
)  # fmt: skip
def test_settings_that_mean_nothing(settings, name):
    with pytest.raises(ValueError, match=name):
        MeanSquaredError(**settings)


@given(st.lists(st.floats(2.0**-100, 2.0**100, width=32), min_size=1, max_size=20), st.integers(1, 12))
def test_short_scales_cover_what_they_are_made_of_in_few_bits(numbers, bits):
    scales = np.array(numbers, np.float32)
    up, near = short(scales, bits), short(scales, bits, np.rint)
    assert (up >= scales).all()
    assert (up <= scales * np.float32(1 + 2.0 ** (1 - bits))).all()
    assert (np.abs(near - scales) <= scales * np.float32(2.0**-bits)).all()
    for found in (up, near):
        assert found.dtype == np.float32
        assert (np.frexp(found)[0] * 2**bits % 1 == 0).all()
        assert (short(found, bits) == found).all()


@pytest.mark.parametrize(("taps", "bits"), [(1, 6), (9, 7)])
def test_scales_are_short_and_of_kernels_less_so(taps, bits):
    weights = np.random.default_rng(3).normal(size=(40, 18)).astype(np.float32)
    found = np.frexp(MeanSquaredError().weight_scales(weights, 8, taps))[0] * 2**bits
    assert (found % 1 == 0).all()
    assert (found % 2 == 1).any()
