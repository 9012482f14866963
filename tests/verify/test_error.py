"""The streamed relative error is the plain formula, whatever the pieces."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from haversack.verify.error import Error, relative_error

ARRAYS = hnp.arrays(np.float32, (8,), elements=st.floats(-100, 100, width=16))


@given(ARRAYS, ARRAYS, st.integers(0, 8))
def test_pieces_change_nothing(y, exact, cut):
    streamed = Error()
    for part in (slice(None, cut), slice(cut, None)):
        streamed.add(y[part], exact[part])
    assert streamed.count == 8
    if exact.any():
        expected = np.linalg.norm(y.astype(float) - exact) / np.linalg.norm(exact.astype(float))
        assert streamed.relative == pytest.approx(expected, rel=1e-9, abs=1e-30)
    assert streamed.relative == pytest.approx(relative_error(y, exact), rel=1e-12)


@pytest.mark.parametrize(
    "y, exact, expected",
    [
        ([0, 0], [0, 0], 0.0),
        ([1, 0], [0, 0], math.inf),
        ([np.nan, 1], [1, 1], math.nan),
        ([np.nan], [0], math.nan),
        ([3, 4], [0, 5], math.sqrt(10) / 5),
    ],
)
def test_by_hand(y, exact, expected):
    assert relative_error(np.float32(y), np.float32(exact)) == pytest.approx(expected, nan_ok=True)


def test_inputs_stay_as_they_are():
    y, exact = np.float64([1.0, 2.0]), np.float64([1.0, 1.0])
    relative_error(y, exact)
    assert (y.tolist(), exact.tolist()) == ([1.0, 2.0], [1.0, 1.0])
