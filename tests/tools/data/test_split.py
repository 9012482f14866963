"""The two halves: disjoint, complete, independent of batching, and pairs of rows stay together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.tools.data.split import halves

SIZES = st.lists(st.integers(1, 7), min_size=1, max_size=8)


def evaluation(sizes, group=1):
    start = 0
    for size in sizes:
        numbers = np.arange(start, start + size)
        yield (np.repeat(numbers, group)[:, None],), numbers
        start += size


def entries(pairs):
    return [int(entry) for _, expected in pairs for entry in expected]


@given(SIZES, st.integers(1, 3))
def test_even_entries_choose_and_odd_ones_report(sizes, group):
    total = sum(sizes)
    assert entries(halves(evaluation(sizes, group), "choose", group=group)) == list(range(0, total, 2))
    assert entries(halves(evaluation(sizes, group), "report", group=group)) == list(range(1, total, 2))


@given(SIZES, st.integers(2, 3))
def test_rows_of_an_entry_stay_together(sizes, group):
    for inputs, expected in halves(evaluation(sizes, group), "report", group=group):
        assert inputs[0][:, 0].tolist() == np.repeat(expected, group).tolist()


def test_batches_keep_their_size():
    assert [len(expected) for _, expected in halves(evaluation([4, 4, 4, 3]), "choose")] == [4, 4]
    assert [len(expected) for _, expected in halves(evaluation([1] * 5), "report")] == [1, 1]
    assert [len(expected) for _, expected in halves(evaluation([4, 4, 4]), "choose", size=5)] == [5, 1]


@pytest.mark.parametrize("which", ["choose", "report"])
def test_an_empty_set_has_empty_halves(which):
    assert list(halves([], which)) == []


def test_the_only_entry_chooses():
    assert entries(halves(evaluation([1]), "choose")) == [0]
    assert entries(halves(evaluation([1]), "report")) == []
