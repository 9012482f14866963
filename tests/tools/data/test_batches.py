"""Cutting, joining and digesting: rows keep their order whatever the batches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.tools.data import batches

SIZES = st.lists(st.integers(1, 7), min_size=1, max_size=8)


def cut(sizes, group=1):
    """Return pairs with so many entries, numbered through; each entry has ``group`` rows that bear its number."""
    start, made = 0, []
    for size in sizes:
        numbers = np.arange(start, start + size)
        made.append(((np.repeat(numbers, group)[:, None], np.repeat(-numbers, group)), numbers))
        start += size
    return made


def numbers(pairs):
    return [int(entry) for _, expected in pairs for entry in expected]


@given(SIZES, st.integers(1, 9))
def test_rebatch_keeps_rows_and_fills_batches(sizes, size):
    got = list(batches.rebatch((inputs for inputs, _ in cut(sizes)), size))
    assert [int(row) for column, _ in got for row in column[:, 0]] == list(range(sum(sizes)))
    assert all(len(column) == size for column, _ in got[:-1])
    for column, negative in got:
        assert negative.tolist() == (-column[:, 0]).tolist()


@given(SIZES, st.integers(1, 60), st.integers(1, 3))
def test_take_cuts_the_last_batch(sizes, entries, group):
    got = list(batches.take_pairs(cut(sizes, group), entries, group))
    assert numbers(got) == list(range(min(entries, sum(sizes))))
    assert sum(len(inputs[0]) for inputs, _ in got) == group * min(entries, sum(sizes))


def test_take_of_none_is_everything_as_it_was():
    pairs = cut([2, 3])
    assert [expected is item[1] for (_, expected), item in zip(batches.take_pairs(pairs, None), pairs, strict=True)]
    assert len(list(batches.take([(np.zeros(3),)] * 2, None))) == 2


def test_take_stops_an_endless_iterable():
    endless = ((np.full((2, 1), index),) for index in itertools.count())
    assert [sample[0][:, 0].tolist() for sample in batches.take(endless, 3)] == [[0, 0], [1]]


def test_rebatch_samples_flushes_where_the_shape_changes():
    samples = [(np.zeros((1, 5)),), (np.zeros((1, 5)),), (np.zeros((1, 6)),), (np.zeros((1, 5)),)]
    shapes = [sample[0].shape for sample in batches.rebatch(samples, 4)]
    assert shapes == [(2, 5), (1, 6), (1, 5)]


def test_rebatch_keeps_dtypes_apart():
    samples = [(np.zeros((1, 2), np.float32),), (np.zeros((1, 2), np.float64),)]
    assert [sample[0].dtype.name for sample in batches.rebatch(samples, 4)] == ["float32", "float64"]


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one row, not 0"):
        next(batches.rebatch([(np.zeros((1, 2)),)], 0))


@given(SIZES, st.integers(1, 9))
def test_the_digest_is_that_of_the_rows_not_of_the_batches(sizes, size):
    samples = [inputs for inputs, _ in cut(sizes)]
    assert batches.digest(batches.rebatch(samples, size)) == batches.digest(samples)


@pytest.mark.parametrize(
    "other",
    [
        [(np.array([[1, 2], [3, 5]]),)],
        [(np.array([[1, 2], [3, 4]], np.int32),)],
        [(np.array([[1, 2, 3, 4]]),)],
        [(np.array([[3, 4], [1, 2]]),)],
        [(np.array([[1, 2]]),)],
        [(np.array([[1, 2], [3, 4]]), np.zeros(2))],
        [],
    ],
)
def test_other_content_has_another_digest(other):
    assert batches.digest(other) != batches.digest([(np.array([[1, 2], [3, 4]]),)])


def test_objects_have_no_digest():
    with pytest.raises(TypeError, match="Python objects"):
        batches.digest([(np.array([None]),)])
