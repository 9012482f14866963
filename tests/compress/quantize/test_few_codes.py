"""Weights of one and two bits: the scale with the least squared error, held against every other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from haversack.compress.quantize.contract import SHELF, full_scales
from haversack.compress.quantize.mse import MeanSquaredError
from haversack.tools.numerics import affine

ROWS = hnp.arrays(np.float32, st.integers(1, 7), elements=st.integers(-40, 40).map(lambda n: n / 8))
CODES = {1: (-1, 1), 2: (-1, 0, 1)}


def least_error(row, codes):
    """The least squared error over all codes, each with the scale that suits it best."""
    found = np.inf
    for chosen in itertools.product(codes, repeat=len(row)):
        q = np.array(chosen, np.float64)
        scale = max(q @ row / (q @ q), 0.0) if q.any() else 0.0
        found = min(found, float(np.square(row - scale * q).sum()))
    return found


@pytest.mark.parametrize("bits", CODES)
@given(row=ROWS, ratios=st.integers(1, 5))
def test_no_codes_and_no_scale_do_better(bits, row, ratios):
    assume(row.any())
    scales = MeanSquaredError(ratios).weight_scales(row[None], bits)
    encoding = affine.symmetric(scales, bits, 0)
    mine = affine.dequantize(affine.quantize(row[None], encoding), encoding)
    assert np.square(row - mine, dtype=np.float64).sum() == pytest.approx(least_error(row, CODES[bits]), abs=1e-4)


@given(row=ROWS)
def test_of_all_powers_of_two_signs_take_the_best(row):
    assume(row.any())
    (scale,) = SHELF.build("power_of_two").weight_scales(row[None], 1)
    powers = 2.0 ** np.arange(-12, 5)
    errors = [float(np.square(np.abs(row) - power, dtype=np.float64).sum()) for power in powers]
    assert scale in powers
    assert np.square(np.abs(row) - scale, dtype=np.float64).sum() == pytest.approx(min(errors), abs=1e-6)


def test_the_scale_of_signs_is_the_mean_and_that_of_three_codes_leaves_the_small_ones_out():
    row = np.array([[4.0, -4.0, 3.0, 0.5, -0.5]], np.float32)
    assert MeanSquaredError().weight_scales(row, 1)[0] == pytest.approx(2.4)
    assert MeanSquaredError().weight_scales(row, 2)[0] == pytest.approx(11 / 3)


@pytest.mark.parametrize("bits", CODES)
@pytest.mark.parametrize("name", SHELF.names())
def test_each_part_has_scales_for_so_few_codes(name, bits):
    row = np.array([[4.0, -2.0, 0.0, 0.5]], np.float32)
    settings = {"of": "minmax", "factor": 1.0} if name == "coarse" else {}
    (scale,) = SHELF.build(name, settings).weight_scales(row, bits)
    assert 0 < scale <= full_scales(row, bits)[0] == 4.0


def test_channels_of_zeros_are_next_to_nothing_where_zero_is_no_code():
    weights = np.array([[0, 0, 0], [1, 2, 3]], np.float32)
    scales = MeanSquaredError().weight_scales(weights, 1)
    assert scales[0] == scales[1] * np.float32(2.0**-20)
    assert MeanSquaredError().weight_scales(weights[:1], 1)[0] == np.float32(2.0**-20)
    assert MeanSquaredError().weight_scales(np.full((2, 3), 1e-40, np.float32), 1).min() > 0
