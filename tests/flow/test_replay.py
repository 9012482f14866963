"""A predictor that remembers runs each batch once, within its memory."""

from __future__ import annotations

import numpy as np

from haversack.flow.replay import Replay


def counting():
    calls = []

    def predict(sample):
        calls.append(sample)
        return (sample[0] * 2, sample[0].sum(axis=1))

    return predict, calls


def test_the_same_content_runs_once():
    predict, calls = counting()
    replay = Replay(predict)
    first = replay((np.ones((2, 3), np.float32),))
    again = replay((np.ones((2, 3), np.float32),))
    assert len(calls) == 1
    assert all(a is b for a, b in zip(first, again, strict=True))


def test_other_values_shapes_and_dtypes_run_anew():
    predict, calls = counting()
    replay = Replay(predict)
    for array in (np.zeros((2, 3)), np.ones((2, 3)), np.zeros((3, 2)), np.zeros((2, 3), np.float32)):
        replay((array,))
    assert len(calls) == 4


def test_beyond_its_memory_it_computes_again_and_gives_the_same():
    predict, calls = counting()
    replay = Replay(predict, kept_bytes=100)
    small, large = (np.ones((1, 2), np.float32),), (np.ones((50, 50), np.float32),)
    for _ in range(3):
        assert replay(large)[0].sum() == 5000
        assert replay(small)[0].sum() == 4
    assert len(calls) == 4


def test_outputs_that_fill_the_memory_exactly_are_kept():
    calls = []

    def predict(sample):
        calls.append(1)
        return (np.zeros(25, np.float32),)

    replay = Replay(predict, kept_bytes=100)
    for _ in range(2):
        replay((np.ones(1),))
    replay((np.zeros(1),))
    replay((np.zeros(1),))
    assert len(calls) == 3
