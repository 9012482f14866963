from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.tools.graph.batches import rebatch


def model_of(*firsts):
    """A model's interface is all that is read of it."""
    spec = lambda first: SimpleNamespace(spec=SimpleNamespace(shape=(first, 3) if first is not None else ()))
    return SimpleNamespace(inputs=tuple(spec(first) for first in firsts))


def rows(start, count, width=3):
    return np.arange(start, start + count)[:, None] * np.ones((1, width), np.int64)


@given(st.lists(st.integers(1, 9), max_size=6), st.integers(1, 7))
def test_every_row_once_in_order_and_no_batch_too_long(lengths, size):
    starts = np.cumsum([0, *lengths])
    samples = [(rows(start, count), rows(start, count)) for start, count in zip(starts, lengths, strict=False)]
    found = list(rebatch(model_of("batch", "batch"), samples, size))
    assert [int(value) for first, _ in found for value in first[:, 0]] == list(range(sum(lengths)))
    assert all(first.shape == second.shape and 1 <= len(first) <= size for first, second in found)
    assert all(len(first) == size for first, _ in found[:-1])


def test_a_fixed_batch_passes_as_it_is():
    samples = [(rows(0, 5),), (rows(5, 2),)]
    assert [s[0].shape for s in rebatch(model_of(1), samples, 3)] == [(5, 3), (2, 3)]
    assert [s[0].shape for s in rebatch(model_of("batch"), samples, 3)] == [(3, 3), (3, 3), (1, 3)]


def test_other_lengths_are_not_joined():
    samples = [(rows(0, 1, 3),), (rows(1, 1, 4),), (rows(2, 1, 4),)]
    assert [s[0].shape for s in rebatch(model_of("batch"), samples, 8)] == [(1, 3), (2, 4)]


def test_inputs_that_disagree_pass_as_they_are_in_their_place():
    samples = [(rows(0, 1), rows(0, 1)), (rows(1, 4), rows(1, 2)), (rows(5, 1), rows(5, 1))]
    found = list(rebatch(model_of("batch", "batch"), samples, 2))
    assert [(a.shape[0], b.shape[0]) for a, b in found] == [(1, 1), (4, 2), (1, 1)]


def test_it_streams():
    taken = []

    def endless():
        for index in range(10**6):
            taken.append(index)
            yield (rows(index, 1),)

    stream = rebatch(model_of("batch"), endless(), 4)
    next(stream)
    next(stream)
    assert len(taken) == 8


def test_a_batch_has_a_row():
    with pytest.raises(ValueError, match="at least one row"):
        list(rebatch(model_of("batch"), [], 0))
