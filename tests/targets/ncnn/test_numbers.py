"""The numbers of integer layers: what ncnn computes with them is what our scales say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.encodings import Affine
from haversack.targets.ncnn import numbers
from haversack.tools.numerics import affine

SCALES = st.floats(2.0**-20, 2.0**10, width=32)


def grid(scale):
    return Affine(8, False, None, np.array(scale, np.float32), np.array(128, np.int32))


def weights(*scales):
    return affine.symmetric(np.array(scales, np.float32), 8, 0)


@given(SCALES, st.lists(SCALES, min_size=1, max_size=4), SCALES)
def test_the_multiplier_is_the_laws(source, scales, out):
    found = numbers.multiplier(grid(source), weights(*scales), grid(out), len(scales))
    wanted = np.float32(np.float64(source) * np.float64(np.float32(scales)) / np.float64(out))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=3e-7)
    np.testing.assert_array_equal(found, affine.multiplier(grid(source).scale, np.float32(scales), grid(out).scale))


@given(st.lists(st.floats(2.0**-30, 2.0**30, width=32), min_size=1, max_size=8))
def test_what_ncnn_applies_is_a_last_bit_away_at_most(values):
    multipliers = np.float32(values)
    found = numbers.applied(multipliers)
    assert np.abs(found.view(np.int32) - multipliers.view(np.int32)).max() <= 1
    np.testing.assert_array_equal(found, np.float32(1) / numbers.inverse(multipliers))


@given(
    st.lists(st.integers(-(1 << 22), 1 << 22), min_size=1, max_size=6),
    st.floats(2.0**-20, 2.0, width=32),
)
def test_a_bias_is_found_again(codes, factor):
    codes, factors = np.int32(codes), np.full(len(codes), factor, np.float32)
    values = numbers.bias_values(codes, factors)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(numbers.bias_codes(values, factors), codes)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_a_bias_that_is_none_ends_somewhere(value):
    (found,) = numbers.bias_codes(np.float32([value]), np.float32([1e-9]))
    assert -(1 << 31) < int(found) < 1 << 31


@pytest.mark.parametrize(
    "scale, bounds, found",
    [
        (0.5, None, (-127, 127)),
        (0.5, (0.0, np.inf), (0, 127)),
        (0.5, (0.0, 6.0), (0, 12)),
        (0.5, (-2.0, 2.0), (-4, 4)),
        (0.01, (0.0, 6.0), (0, 127)),
        (0.01, (-np.inf, np.inf), (-127, 127)),
        (0.01, (-9.0, -1.27), (-127, -127)),
    ],
)
def test_limits_are_those_of_codes_and_clamp(scale, bounds, found):
    assert numbers.limits(grid(scale), bounds) == found


@given(SCALES, SCALES)
def test_ratio_and_steps(one, other):
    np.testing.assert_array_equal(numbers.steps(grid(one)), np.float32([1]) / np.float32(one))
    np.testing.assert_array_equal(numbers.ratio(grid(one), grid(other)), np.float32([one / other]))
    assert numbers.ratio(grid(one), grid(one)) == 1
