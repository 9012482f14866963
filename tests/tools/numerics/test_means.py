"""Means of codes: every sum is rounded alike in every order of float32 operations, at scales that are found for it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.tools.numerics.means import MOST, candidates, rounds_alike
from haversack.tools.numerics.ties import tie_free

SCALES = st.floats(2.0**-10, 2.0**3, width=32)
COUNTS = st.sampled_from([1, 2, 9, 15, 49, 64, 100, 225])
SINGLE = np.float32


def rounded(sums, scale_in, scale_out, zero_point, count):
    """Return what XNNPACK makes of sums: the zero-point's share is added as a float, behind the product."""
    factor = SINGLE(scale_in) / SINGLE(scale_out) / SINGLE(count)
    share = SINGLE((128 - zero_point) * count) * factor
    return np.rint((sums - 128 * count).astype(SINGLE) * factor + share)


def exactly(sums, scale_in, scale_out, zero_point, count):
    ratio = Fraction(float(scale_in)) / Fraction(float(scale_out)) / count
    return [round(ratio * (int(each) - zero_point * count)) for each in sums]


def test_scales_without_ties_that_a_runtime_rounds_otherwise():
    scale_in, scale_out = SINGLE(0.09270130097866058), SINGLE(0.00884972419589758)
    assert abs(float(scale_in) / float(scale_out) * 501 / 32 - 164) < 1e-4, "no sum lies half-way"
    sums = np.arange(0, 12_000)
    assert (rounded(sums, scale_in, scale_out, 0, 480) != exactly(sums, scale_in, scale_out, 0, 480)).any()
    assert not rounds_alike(float(scale_in), float(scale_out), 0, 480)


@settings(max_examples=60, deadline=None)
@given(SCALES, st.floats(0.3, 12), st.integers(0, 255), COUNTS)
def test_what_is_found_is_rounded_alike_for_every_sum(scale_out, ratio, zero_point, count):
    wish = float(SINGLE(scale_out * ratio))
    near = candidates(wish, scale_out, count & -count)
    found = [each for each in near if rounds_alike(float(each), scale_out, zero_point, count)]
    assert found
    scale, sums = float(found[0]), np.arange(0, 255 * count + 1)
    wanted = np.clip(exactly(sums, scale, scale_out, zero_point, count), -255, 255)
    assert (np.clip(rounded(sums, scale, scale_out, zero_point, count), -255, 255) == wanted).all()
    plain = (sums - zero_point * count).astype(SINGLE) * (SINGLE(scale) / SINGLE(scale_out) / SINGLE(count))
    assert (np.clip(np.rint(plain), -255, 255) == wanted).all()


@pytest.mark.parametrize(("count", "ratio"), [(2, 1.0), (480, 1.0), (64, 1.0), (6, 3.0)])
def test_ties_are_never_left_to_a_runtime(count, ratio):
    assert not rounds_alike(ratio, 1.0, 0, count)


def test_one_value_is_its_own_mean():
    assert rounds_alike(1.0, 1.0, 3, 1)


@given(SCALES, st.floats(0.3, 12), st.sampled_from([1, 2, 32, 1024]), st.booleans())
def test_candidates_are_near_and_on_their_side(scale_out, ratio, multiple, up):
    wish = float(SINGLE(scale_out * ratio))
    found = [float(each) for each in candidates(wish, scale_out, multiple, up=up)]
    assert found == sorted(found, key=lambda each: abs(each - wish))
    assert all(1 / MOST <= each / wish <= MOST for each in found)
    assert all(each >= wish * (1 - 1e-6) if up else each <= wish * (1 + 1e-6) for each in found)


def test_means_of_many_values_keep_their_range():
    """32 by 32 values: a multiple of 1024/501 would make a scale up to five times as coarse."""
    assert tie_free(1.0, 1.0, 501, 1024) > 2
    near = [each for each in candidates(1.0, 1.0, 1024) if rounds_alike(float(each), 1.0, 0, 1024)]
    assert near
    assert near[0] < 1.1
