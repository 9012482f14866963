"""Entropy in integers: against the formula in float64, and for the numbers where the tables change."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.tools.codec import entropy


@given(st.lists(st.integers(0, 1 << 30), min_size=1, max_size=40))
def test_bits_are_the_entropy(counts):
    total = sum(counts)
    exact = sum(count * math.log2(total / count) for count in counts if count)
    found = int(entropy.of_counts(np.array(counts, np.int64))) / entropy.UNIT
    assert abs(found - exact) <= len(counts) + total / 2**11


@pytest.mark.parametrize(
    "counts, bits",
    [([0, 0], 0), ([5, 0], 0), ([1, 1], 2), ([4, 4, 4, 4], 32), ([1 << 20, 1 << 20], 1 << 21), ([0] * 256, 0)],
)
def test_by_hand(counts, bits):
    assert int(entropy.of_counts(np.array(counts))) == bits * entropy.UNIT


def test_many_histograms_at_once():
    counts = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    found = entropy.of_counts(counts)
    assert found.shape == (2, 3)
    assert found.dtype == np.int64
    assert found[1, 2] == entropy.of_counts(counts[1, 2])


@pytest.mark.parametrize("number", [1, 2, 3, 65535, 65536, 65537, (1 << 39) + 12345])
def test_logarithms(number):
    found = int(entropy.logarithms(np.array([number]))[0])
    assert abs(found / entropy.UNIT - math.log2(number)) < 1 / 2048
    assert entropy.logarithms(np.array([0]))[0] == 0


def test_nothing_has_no_bits():
    assert entropy.of_counts(np.zeros((0, 256), np.int64)).shape == (0,)
    assert entropy.logarithms(np.zeros(0, np.int64)).shape == (0,)
