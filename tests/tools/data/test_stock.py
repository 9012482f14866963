"""Rows evenly spread over samples, and what is left of these."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.graph import TensorSpec
from haversack.base.model import Port
from haversack.tools.data.stock import DIVIDED, HELD, Stock
from haversack.tools.data.stock import given as given_rows


def port(batch="batch"):
    return Port("x", TensorSpec((batch, 2), "float32"))


def stock(sizes, batch="batch"):
    """Return a stock whose rows hold their own number, read anew at each call."""
    numbers = np.arange(sum(sizes), dtype=np.float32)[:, None].repeat(2, 1)
    cuts = np.split(numbers, np.cumsum(sizes)[:-1])
    return Stock.of([port(batch)], lambda: ((cut,) for cut in cuts))


def numbers(samples):
    return [int(number) for sample in samples for number in sample[0][:, 0]]


@pytest.mark.parametrize("sizes", [[32], [1] * 32, [8, 8, 8, 8], [1, 30, 1], [5, 1, 10, 16]])
def test_rows_are_spread_over_all_samples_however_they_are_batched(sizes):
    assert numbers(stock(sizes).take(1, 4)) == numbers(stock(sizes).take(4, 1)) == [4, 12, 20, 28]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(1, 5), st.integers(1, 9), st.booleans())
def test_what_is_taken_and_what_is_left_are_all_rows_once_and_in_order(sizes, count, size, free):
    sizes = sizes if free else [sizes[0]] * len(sizes)
    found = stock(sizes, "batch" if free else sizes[0])
    taken, left = numbers(found.take(count, size)), numbers(found.others(count, size))
    assert taken == sorted(taken)
    assert left == sorted(left)
    assert sorted([*taken, *left]) == list(range(found.total))
    assert len(taken) == found.rows(count, size)
    assert len(taken) >= min(count * size, found.total)
    if free:
        assert len(taken) == min(count * size, found.total)
        places = [-1, *taken, found.total]
        assert max(np.diff(places)) <= found.total // len(taken) + 1


def test_where_nothing_is_left_out_samples_come_as_they_are():
    samples = [(np.ones((3, 2), np.float32),), (np.zeros((5, 2), np.float32),)]
    found = Stock.of([port()], lambda: samples)
    assert all(one is other for one, other in zip(found.take(1, 8), samples, strict=True))
    assert list(found.others(1, 8)) == []


def test_only_the_chosen_rows_are_held_and_what_is_left_is_no_copy():
    found = stock([100])
    (row,) = (sample[0] for sample in found.take(1, 1))
    assert row.base is None
    assert row.shape == (1, 2)
    assert all(sample[0].base is not None for sample in found.others(1, 1))


def test_nothing_is_read_behind_the_last_row_and_nothing_before_it_is_asked_for():
    read = []

    def samples():
        for index in range(9):
            read.append(index)
            yield (np.full((1, 2), index, np.float32),)

    found = Stock.of([port()], samples)
    read.clear()
    assert numbers(found.take(1, 1)) == [4]
    assert read == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("count, size, want", [(1, 8, 2), (2, 4, 2), (3, 4, 3), (8, 1, 8), (9, 9, 8)])
def test_what_cannot_be_cut_is_taken_whole(count, size, want):
    found = stock([4] * 8, batch=4)
    assert [len(sample[0]) for sample in found.take(count, size)] == [4] * want


def test_inputs_that_disagree_on_rows_are_taken_whole():
    samples = [(np.ones((3, 2), np.float32), np.ones((2, 2), np.float32))] * 6
    found = Stock.of([port(), port()], lambda: samples)
    assert not found.free
    assert [len(sample[1]) for sample in found.take(1, 4)] == [2, 2]


def test_rows_of_different_lengths_all_come():
    samples = [(np.ones((2, size), np.float32),) for size in (2, 3, 4, 5)]
    found = list(Stock.of([port()], lambda: samples).take(1, 4))
    assert [sample[0].shape for sample in found] == [(1, 2), (1, 3), (1, 4), (1, 5)]


def test_of_nothing_comes_nothing():
    assert list(Stock.of([port()], tuple).take(1, 4)) == []
    assert list(Stock.of([port(4)], tuple).take(1, 4)) == []


@pytest.mark.parametrize("rows", [1, 32, 63, 64, 65, 500])
def test_what_is_asked_for_leaves_what_is_wanted(rows):
    total = given_rows(rows)
    assert total - (HELD if total >= DIVIDED else 0) == rows
    assert given_rows(64) == DIVIDED == 80
