"""The streamed relative error is the plain formula, whatever the pieces."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from haversack.tools.numerics.relative import Error, Errors, relative_error

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


def errors(*pairs, cut=None):
    """Stream (y, exact) of several outputs, whole or in two pieces."""
    found = Errors()
    for part in (slice(None),) if cut is None else (slice(None, cut), slice(cut, None)):
        found.add([y[part] for y, _ in pairs], [exact[part] for _, exact in pairs])
    return found


@given(ARRAYS, ARRAYS)
def test_one_output_has_the_bits_of_its_own_error(y, exact):
    found = errors((y, exact))
    assert found.relative == relative_error(y, exact)
    assert found.moved == (relative_error(y, exact) if exact.any() else np.linalg.norm(y.astype(float)))


@given(ARRAYS, ARRAYS, ARRAYS, ARRAYS, st.sampled_from([2.0**-20, 2.0**-6, 2.0**7, 2.0**30]), st.integers(0, 8))
def test_no_output_is_drowned_by_anothers_size(y, exact, other, twin, scale, cut):
    exact[0], twin[0] = 1.0, 2.0  # no zeros alone
    plain = errors((y, exact), (other, twin))
    scaled = errors((y, exact), (other * np.float32(scale), twin * np.float32(scale)), cut=cut)
    assert scaled.relative == pytest.approx(plain.relative, rel=1e-9)
    squares = relative_error(y, exact) ** 2, relative_error(other, twin) ** 2
    assert plain.relative**2 == pytest.approx(sum(squares) / 2, rel=1e-9)
    assert plain.relative >= max(squares) ** 0.5 / math.sqrt(2) * (1 - 1e-9)


@pytest.mark.parametrize(
    "outputs, relative, moved",
    [
        ([([3, 4], [0, 5]), ([100, 0], [100, 0])], math.sqrt(10 / 25 / 2), math.sqrt(10 / 25 / 2)),
        # All zero: against the squares of all outputs together, whatever its own are.
        ([([3, 4], [3, 4]), ([0, 1], [0, 0])], math.sqrt(1 / 25 / 2), math.sqrt(1 / 25 / 2)),
        ([([3, 4], [3, 4]), ([0, 0], [0, 0])], 0.0, 0.0),
        ([([3, 4], [0, 0]), ([0, 0], [0, 0])], math.inf, 5.0),
        ([([0, 0], [0, 0]), ([0, 0], [0, 0])], 0.0, 0.0),
        ([([np.nan, 4], [3, 4]), ([1, 1], [1, 1])], math.nan, math.nan),
        ([], 0.0, 0.0),
    ],
)
def test_several_outputs_by_hand(outputs, relative, moved):
    found = errors(*((np.float32(y), np.float32(exact)) for y, exact in outputs))
    assert found.relative == pytest.approx(relative, nan_ok=True)
    assert found.moved == pytest.approx(moved, nan_ok=True)


def test_integers_beside_floats_do_not_count():
    scores, ids = np.float32([1.0, 2.0]), np.int64([1, 9000])
    both = errors((scores * 2, scores), (ids * 0, ids))
    assert (both.relative, both.count) == (1.0, 2)
    assert errors((ids * 3, ids)).relative == 2.0


def test_another_number_of_outputs_is_refused():
    one = np.ones(2, np.float32)
    with pytest.raises(ValueError, match="1 outputs against 2"):
        Errors().add([one], [one, one])
