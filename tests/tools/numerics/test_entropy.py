"""The entropy of codes: against its closed forms, and its laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from haversack.tools.numerics.entropy import bits_per_code

codes = hnp.arrays(np.int32, st.integers(1, 60), elements=st.integers(-127, 127))


@pytest.mark.parametrize(
    "given_codes, bits",
    [
        ([], 0.0),
        ([5], 0.0),
        ([5, 5, 5], 0.0),
        ([0, 1], 1.0),
        ([-127, 127, 0, 3], 2.0),
        ([0, 0, 0, 1], 0.8112781244591),
    ],
)
def test_closed_forms(given_codes, bits):
    assert bits_per_code(np.array(given_codes, np.int32)) == pytest.approx(bits, abs=1e-12)


@given(codes)
def test_it_is_between_zero_and_the_logarithm_of_how_many_differ(array):
    assert 0.0 <= bits_per_code(array) <= np.log2(len(np.unique(array))) + 1e-9


@given(codes, st.integers(-100, 100))
def test_names_and_places_of_codes_do_not_matter(array, shift):
    again = np.random.default_rng(0).permutation(array + shift).reshape(1, -1)
    assert bits_per_code(again) == pytest.approx(bits_per_code(array), abs=1e-9)


def test_doubling_the_step_of_a_smooth_signal_takes_one_bit_off():
    signal = np.random.default_rng(0).normal(size=200_000)
    fine, coarse = (bits_per_code(np.rint(signal / step).astype(np.int32)) for step in (0.05, 0.1))
    assert fine - coarse == pytest.approx(1.0, abs=0.02)
