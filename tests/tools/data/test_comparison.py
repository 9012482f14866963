"""The rule by which golden outputs are compared: bit for bit, or within a tolerance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.tools.data.comparison import differing, within

WANTED = np.array([[3.0, -4.0]], np.float32)


def causes(found, tolerance=None, wanted=None):
    near = None if tolerance is None else within(tolerance)
    return [str(one) for one in differing(2, {"y": WANTED if wanted is None else wanted}, found, near)]


def test_the_same_bits_are_right():
    assert causes({"y": WANTED.copy()}) == causes({"y": WANTED.copy()}, 0.0) == []


@pytest.mark.parametrize("tolerance, right", [(None, False), (0.0, False), (0.019, False), (0.0201, True)])
def test_a_moved_value(tolerance, right):
    found = {"y": WANTED + np.array([[0.1, 0.0]], np.float32)}  # 0.1 of a length of 5: 0.02
    assert (causes(found, tolerance) == []) == right
    if not right:
        assert causes(found, tolerance) == ["golden vector 2, output y: 1 of 2 values differ"]


@pytest.mark.parametrize("tolerance", [None, 1e9])
@pytest.mark.parametrize(
    "found, said",
    [
        ({}, "output y: the file does not give it"),
        ({"y": WANTED, "z": WANTED}, "output z: nothing is expected of it"),
        ({"y": WANTED.reshape(2)}, "float32 [2] instead of float32 [1, 2]"),
        ({"y": WANTED.astype(np.float64)}, "float64 [1, 2] instead of float32 [1, 2]"),
        ({"y": np.array([[np.nan, -4]], np.float32)}, "1 of 2 values differ"),
        ({"y": np.array([[np.inf, -4]], np.float32)}, "1 of 2 values differ"),
    ],
)
def test_what_no_tolerance_allows(found, said, tolerance):
    assert said in "".join(causes(found, tolerance))


def test_what_is_not_finite_must_be_so_in_both():
    wanted = np.array([np.nan, np.inf, 1.0], np.float32)
    assert causes({"y": wanted + np.float32(1e-7)}, 0.1, wanted) == []
    assert causes({"y": np.array([np.nan, -np.inf, 1.0], np.float32)}, 0.1, wanted) != []
    assert causes({"y": np.array([np.inf, np.nan, 1.0], np.float32)}, 0.1, wanted) != []


def test_of_integers_and_booleans_a_fraction_may_differ():
    wanted = np.arange(100, dtype=np.int64)
    found = wanted.copy()
    found[7] = 9999
    assert causes({"y": found}, 0.01, wanted) == []
    found[8] = -1
    assert causes({"y": found}, 0.01, wanted) != []
    assert causes({"y": np.array([True, False])}, 0.01, np.array([True, True])) != []


def test_zeros_leave_no_room():
    wanted = np.zeros(4, np.float32)
    assert causes({"y": wanted + np.float32(1e-30)}, 0.5, wanted) != []
    assert causes({"y": -wanted}, 0.5, wanted) == [], "a zero of either sign"


@given(st.floats(1e-6, 0.5), st.integers(0, 2**32 - 1))
def test_the_rule_is_euclidean_and_scales_with_the_values(tolerance, seed):
    random = np.random.default_rng(seed)
    wanted = random.normal(size=50)
    step = random.normal(size=50)
    step *= np.linalg.norm(wanted) / np.linalg.norm(step)
    for size in (1e-3, 1.0, 1e3):
        assert causes({"y": size * (wanted + 0.999 * tolerance * step)}, tolerance, size * wanted) == []
        assert causes({"y": size * (wanted + 1.001 * tolerance * step)}, tolerance, size * wanted) != []
