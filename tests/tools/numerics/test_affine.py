"""Affine integers against exact rational arithmetic, tables worked out by hand, and their properties."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from haversack.base.encodings import Affine
from haversack.tools.numerics import affine

SCALES = st.floats(2.0**-20, 2.0**20, width=32)
VALUES = st.floats(-(2.0**30), 2.0**30, width=32)


def tensor(scale, zero_point=0, bits=8, signed=False):
    return Affine(bits, signed, None, np.array(scale, np.float32), np.array(zero_point, np.int32))


def half_even(value: Fraction) -> int:
    return round(value)  # Python rounds a Fraction half to even, exactly


@pytest.mark.parametrize(
    "x, scale, zero_point, expected",
    [
        (0.0, 0.5, 3, 3),
        (0.25, 0.5, 0, 0),  # 0.5 -> 0: half to even
        (0.75, 0.5, 0, 2),  # 1.5 -> 2
        (1.25, 0.5, 0, 2),  # 2.5 -> 2
        (-0.75, 0.5, 10, 8),
        (1000.0, 0.5, 0, 255),
        (-1000.0, 0.5, 7, 0),
        (np.inf, 0.5, 7, 255),
        (-np.inf, 0.5, 7, 0),
    ],
)
def test_quantize_by_hand(x, scale, zero_point, expected):
    assert affine.quantize(np.float32(x), tensor(scale, zero_point)) == expected


def test_quantize_per_channel_uses_each_channels_scale_and_never_the_lowest_code():
    encoding = affine.symmetric(np.array([0.5, 2.0], np.float32), 8, 0)
    codes = affine.quantize(np.array([[1.0, -500.0], [1.0, 3.0]], np.float32), encoding)
    assert np.array_equal(codes, [[2, -127], [0, 2]])
    assert codes.dtype == np.int32
    assert np.array_equal(affine.dequantize(codes, encoding), [[1.0, -63.5], [0.0, 4.0]])


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=9), SCALES)
def test_one_bit_is_a_sign_whatever_the_scale(values, scale):
    x = np.array(values, np.float32)
    encoding = tensor(scale, bits=1, signed=True)
    codes = affine.quantize(x, encoding)
    assert codes.dtype == np.int32
    assert np.array_equal(codes, [-1 if value < 0 else 1 for value in values])
    assert np.array_equal(affine.dequantize(codes, encoding), codes * np.float32(scale))


def test_a_range_is_covered_by_two_codes_too():
    assert affine.from_range(-3.0, 2.0, bits=1, signed=True).scale == 3.0


def test_nan_has_no_code():
    with pytest.raises(ValueError, match="NaN"):
        affine.quantize(np.array([1.0, np.nan], np.float32), tensor(1.0))


@given(st.integers(2, 16), st.booleans(), SCALES, st.data())
def test_every_code_comes_back(bits, signed, scale, data):
    encoding = tensor(scale, 0, bits, signed)
    if not signed:
        encoding = tensor(scale, data.draw(st.integers(encoding.low, encoding.high)), bits, signed)
    codes = np.unique(data.draw(hnp.arrays(np.int32, 20, elements=st.integers(encoding.low, encoding.high))))
    values = affine.dequantize(codes, encoding)
    assert values.dtype == np.float32
    assert np.array_equal(affine.quantize(values, encoding), codes)


@given(VALUES, SCALES, st.integers(0, 255))
def test_quantize_is_float32_arithmetic(x, scale, zero_point):
    encoding = tensor(scale, zero_point)
    quotient = np.float32(x) / np.float32(scale)
    expected = min(255, max(0, half_even(Fraction(float(quotient))) + zero_point))
    assert int(affine.quantize(np.float32(x), encoding)) == expected


@given(st.lists(VALUES, min_size=2, max_size=2), st.sampled_from([4, 8]))
def test_a_range_is_covered_to_half_a_step(bounds, bits):
    low, high = min(bounds), max(bounds)
    encoding = affine.from_range(low, high, bits)
    assert encoding.low <= encoding.zero_point <= encoding.high
    assert affine.quantize(np.float32(0.0), encoding) == encoding.zero_point
    ends = np.array([low, high], np.float32)
    error = np.abs(affine.dequantize(affine.quantize(ends, encoding), encoding).astype(np.float64) - ends)
    # Half a step of rounding, half a step of the rounded zero-point, and float32's own rounding.
    assert (error <= 1.001 * encoding.scale).all()


def test_ranges_by_hand():
    relu6 = affine.from_range(0.0, 6.0)
    assert relu6.zero_point == 0
    assert relu6.scale == np.float32(6.0 / 255)
    shifted = affine.from_range(-1.0, 1.55)
    assert shifted.zero_point == 100
    assert affine.from_range(2.0, 5.1).scale == np.float32(0.02)  # widened to contain 0
    assert affine.from_range(-5.1, -2.0).zero_point == 255
    both = affine.from_range(-2.54, 1.0, signed=True)
    assert (both.scale, both.zero_point, both.low) == (np.float32(0.02), 0, -127)


@pytest.mark.parametrize("low, high", [(0.0, 0.0), (-1e-42, 1e-42)])
def test_a_range_of_nothing_has_scale_one(low, high):
    encoding = affine.from_range(low, high)
    assert encoding.scale == 1.0
    assert encoding.zero_point == 0


@pytest.mark.parametrize("low, high", [(np.nan, 1.0), (0.0, np.inf), (2.0, 1.0)])
def test_what_is_no_range(low, high):
    with pytest.raises(ValueError, match="not a range"):
        affine.from_range(low, high)


@pytest.mark.parametrize(
    "scales, axis",
    [
        (np.ones(3), None),
        (np.float32(1.0), 0),
        (np.ones((2, 2)), 0),
        (np.array([1.0, 0.0]), 0),
        (np.array([1.0, np.nan]), 0),
        (np.float32(-1.0), None),
    ],
)
def test_what_are_no_scales(scales, axis):
    with pytest.raises(ValueError, match="scale"):
        affine.symmetric(scales, 8, axis)


def test_bias_codes_by_hand():
    codes = affine.bias_codes(
        np.array([1.0, -1.0, 0.375], np.float32), np.float32(0.5), np.array([0.5, 0.25, 0.5], np.float32)
    )
    assert np.array_equal(codes, [4, -8, 2])  # 0.375 / 0.25 = 1.5 -> 2
    assert codes.dtype == np.int32
    with pytest.raises(ValueError, match="int32"):
        affine.bias_codes(np.array([1.0], np.float32), np.float32(1e-5), np.array([1e-6], np.float32))


@given(
    hnp.arrays(np.float32, 6, elements=st.floats(-100, 100, width=32)),
    hnp.arrays(np.float32, 6, elements=st.floats(2.0**-40, 1.0, width=32)),
    st.floats(2.0**-10, 1.0, width=32),
    st.booleans(),
)
def test_raised_scales_hold_the_bias_and_others_stay(bias, scale, scale_in, per_tensor):
    scale = scale[0] if per_tensor else scale
    raised, changed = affine.raise_for_bias(scale, bias, np.float32(scale_in))
    assert raised.shape == changed.shape == np.shape(scale)
    assert raised.dtype == np.float32
    assert (np.abs(affine.bias_codes(bias, np.float32(scale_in), raised)) <= affine.BIAS_LIMIT).all()
    assert np.array_equal(raised[~changed], np.asarray(scale)[~changed])
    assert (raised[changed] > np.asarray(scale)[changed]).all()
    # Not raised by more than float32 rounding needs.
    size = np.max(np.abs(bias)) if per_tensor else np.abs(bias)
    least = np.asarray(size / (affine.BIAS_LIMIT * np.float64(scale_in)))
    assert (raised[changed] <= least[changed] * (1 + 1e-6)).all()


def test_a_subnormal_product_of_scales_still_ends():
    raised, changed = affine.raise_for_bias(np.float32(1e-30), np.array([1e-32], np.float32), np.float32(1e-12))
    assert changed
    assert abs(affine.bias_codes(np.array([1e-32], np.float32), np.float32(1e-12), raised)) <= affine.BIAS_LIMIT


@given(
    hnp.arrays(np.float32, 4, elements=st.floats(2.0**-12, 1.0, width=32)),
    st.floats(2.0**-8, 1.0, width=32),
    st.floats(2.0**-8, 8.0, width=32),
)
def test_a_multiplier_is_rounded_twice(scale_weight, scale_in, scale_out):
    got = affine.multiplier(np.float32(scale_in), scale_weight, np.float32(scale_out))
    for factor, scale in zip(got, scale_weight, strict=True):
        assert factor == np.float32(np.float32(scale_in) * scale) / np.float32(scale_out)
    assert got.dtype == np.float32


def test_a_multiplier_is_not_the_quotient_in_a_wider_type():
    """Its two roundings are part of the meaning: 1/3 * 3 and its like must not be simplified."""
    scale_in, scale_out = np.float32(0.0031), np.float32(0.0117)
    scales = np.linspace(0.01, 0.05, 1000, dtype=np.float32)
    wide = (scales.astype(np.float64) * float(scale_in) / float(scale_out)).astype(np.float32)
    got = affine.multiplier(scale_in, scales, scale_out)
    assert (got != wide).any()
    assert np.allclose(got, wide, rtol=1e-6)
