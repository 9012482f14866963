"""Tie-free scales: the ratio is k/D, and no weighted sum of integers comes near a half."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.tools.numerics.ties import is_tie_free, tie_free

SCALES = st.floats(2.0**-12, 2.0**6, width=32)


@pytest.mark.parametrize(
    "scale_in, scale_out, multiple, up, k",
    [
        (1.0, 1.0, 1, True, 501),
        (0.999, 1.0, 1, True, 501),
        (0.999, 1.0, 1, False, 500),
        (1.0005, 1.0, 1, True, 502),
        (0.5, 1.0, 1, True, 251),
        (1.0, 1.0, 16, True, 512),
        (1.0, 1.0, 16, False, 496),
        (1e-4, 1.0, 1, False, 1),  # never zero
        (1e-4, 1.0, 4, True, 4),
    ],
)
def test_by_hand(scale_in, scale_out, multiple, up, k):
    got = tie_free(scale_in, scale_out, 501, multiple, up=up)
    assert got == np.float32(k * scale_out / 501)
    assert got.dtype == np.float32
    assert got.shape == ()


@given(SCALES, SCALES, st.sampled_from([3, 255, 501, 1001]), st.integers(1, 64), st.booleans())
def test_it_is_found_tie_free_and_stays(scale_in, scale_out, denominator, multiple, up):
    got = tie_free(scale_in, scale_out, denominator, multiple, up=up)
    assert is_tie_free(got, scale_out, denominator, multiple)
    for again in (True, False):
        assert tie_free(got, scale_out, denominator, multiple, up=again) == got


@given(SCALES, SCALES, st.integers(1, 64))
def test_up_never_shrinks_and_down_never_grows(scale_in, scale_out, multiple):
    step = multiple * scale_out / 501
    above = float(tie_free(scale_in, scale_out, multiple=multiple, up=True))
    below = float(tie_free(scale_in, scale_out, multiple=multiple, up=False))
    assert scale_in * (1 - 1e-6) <= above <= (scale_in + step) * (1 + 1e-6)
    assert below <= max(scale_in, step) * (1 + 1e-6)
    assert below >= min(scale_in, scale_in - step) * (1 - 1e-6)


@given(st.floats(0.01, 4), st.floats(0.01, 4), SCALES, st.integers(-255, 255), st.integers(-255, 255))
def test_no_sum_of_an_add_is_near_a_half(ratio_a, ratio_b, scale_out, a, b):
    first = tie_free(ratio_a * scale_out, scale_out)
    second = tie_free(ratio_b * scale_out, scale_out)
    total = (Fraction(float(first)) * a + Fraction(float(second)) * b) / Fraction(scale_out)
    assert abs(total % 1 - Fraction(1, 2)) > Fraction(1, 1002) - Fraction(2 * 4 * 255, 2**23)


@given(st.floats(0.1, 4), st.integers(0, 64 * 255), st.sampled_from([(49, 1), (64, 64), (48, 16)]))
def test_no_mean_is_a_half(ratio, total, area):
    count, multiple = area
    mean = Fraction(float(tie_free(ratio, 1.0, multiple=multiple))) * total / count
    distance = abs(mean % 1 - Fraction(1, 2))
    assert mean > 256 or distance > Fraction(multiple, 2 * 501 * count) - Fraction(256, 2**24)


def test_a_scale_off_the_grid_is_not_tie_free():
    assert not is_tie_free(0.5, 1.0)
    assert not is_tie_free(0.0001, 1.0)
    assert not is_tie_free(np.float32(501 / 501 * 1.00001), 1.0)
    assert is_tie_free(np.float32(250 / 501), 1.0)
    assert not is_tie_free(np.float32(251 / 501), 1.0, multiple=2)


@pytest.mark.parametrize(
    "arguments", [(0.0, 1.0), (1.0, -1.0), (np.nan, 1.0), (1.0, np.inf), (1.0, 1.0, 500), (1.0, 1.0, 501, 0)]
)
def test_what_cannot_be_made_tie_free(arguments):
    with pytest.raises(ValueError, match="must be"):
        tie_free(*arguments)
