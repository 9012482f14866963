"""Scales that one may divide by or multiply by the reciprocal of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.tools.numerics.reciprocals import EXACT, TRIED, error, with_exact_reciprocal

SCALES = st.floats(2.0**-40, 2.0**40, width=32)
EDGES = np.arange(-255, 255) + 0.5


def beside_halves(scale):
    """Return float32 numbers [510 * 9]: those around each half of a step."""
    near = (EDGES * float(scale)).astype(np.float32)
    return np.concatenate([near, *(far(near, steps, way) for steps in range(1, 5) for way in (-np.inf, np.inf))])


def far(x, steps, way):
    for _ in range(steps):
        x = np.nextafter(x, np.float32(way))
    return x


def differing(scale):
    """Count the values beside halves whose code depends on whether one divides."""
    x = beside_halves(scale)
    return int((np.rint(x / scale) != np.rint(x * (np.float32(1) / scale))).sum())


@given(SCALES)
def test_it_is_at_or_barely_above(wish):
    found = with_exact_reciprocal(wish)
    assert found.dtype == np.float32
    assert found.shape == ()
    assert wish <= found <= wish * (1 + TRIED * 2.0**-23)


@given(SCALES)
def test_it_is_the_next_that_is_exact_enough(wish):
    found, near = with_exact_reciprocal(wish), np.float32(wish)
    while near < found:
        assert error(near) > EXACT
        near = np.nextafter(near, np.float32(np.inf))


@given(SCALES)
def test_one_is_always_found(wish):
    assert error(with_exact_reciprocal(wish)) <= EXACT


def test_most_scales_give_other_codes_beside_halves_and_these_hardly_any():
    wishes = np.random.default_rng(0).uniform(0.001, 1.0, 200).astype(np.float32)
    before = sum(differing(wish) for wish in wishes)
    after = sum(differing(with_exact_reciprocal(wish)) for wish in wishes)
    assert before > 20_000
    assert after < before / 50


@pytest.mark.parametrize("power", [2.0**-7, 1.0, 2.0**20])
def test_powers_of_two_stay(power):
    assert with_exact_reciprocal(power) == power


def test_the_largest_numbers_have_one_too():
    assert np.isfinite(with_exact_reciprocal(np.finfo(np.float32).max))


@pytest.mark.parametrize("bad", [0.0, -1.0, np.inf, np.nan, 1e-60])
def test_what_is_no_scale_is_refused(bad):
    with pytest.raises(ValueError, match="finite and positive"):
        with_exact_reciprocal(bad)
