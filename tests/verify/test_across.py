"""Every run against every other, value by value."""

from __future__ import annotations

import math

import numpy as np
import pytest

from haversack import verify
from haversack.base.candidate import Pair

SAMPLES = [(np.arange(6, dtype=np.float32).reshape(2, 3),), (np.ones((1, 3), np.float32),)]


def plus(amount, rows=slice(None)):
    def run(sample):
        made = sample[0].copy()
        made[rows, 0] += np.float32(amount)
        return (made,)

    return run


def test_each_two_are_compared_once_over_all_samples():
    found = verify.across({"a": plus(0), "b": plus(0), "c": plus(2)}, SAMPLES)
    assert [(one.first, one.second) for one in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [one.differing for one in found] == [0, 3, 3], "one value a row, three rows"
    assert {one.compared for one in found} == {9}
    assert found[0].relative_error == 0.0


def test_the_error_is_relative_to_the_second():
    (pair,) = verify.across({"a": plus(2), "b": plus(0)}, SAMPLES)
    exact = sum(float((sample**2).sum()) for (sample,) in SAMPLES)
    assert pair.relative_error == pytest.approx(math.sqrt(3 * 4 / exact))


def test_a_last_bit_counts():
    (pair,) = verify.across({"a": plus(0), "b": lambda s: (np.nextafter(s[0], np.float32(9)),)}, SAMPLES[1:])
    assert pair == Pair("a", "b", 3, 3, pair.relative_error)
    assert 0 < pair.relative_error < 1e-6


def test_all_outputs_count():
    def two(sample):
        return sample[0], sample[0][:, 0]

    (pair,) = verify.across({"a": two, "b": two}, SAMPLES)
    assert pair.compared == 12


def test_outputs_of_other_number_are_no_parity():
    with pytest.raises(ValueError, match="zip"):
        verify.across({"a": plus(0), "b": lambda s: (s[0], s[0])}, SAMPLES)


def test_samples_are_read_once_and_not_kept():
    read = []

    def stream():
        for sample in SAMPLES:
            read.append(sample[0].shape)
            yield sample

    verify.across({"a": plus(0), "b": plus(1), "c": plus(2)}, stream())
    assert read == [(2, 3), (1, 3)]
