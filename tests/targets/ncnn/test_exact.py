"""Integers: the same bits as the reference with ncnn's rounding, and how far that is from the law."""

from __future__ import annotations

import numpy as np
import pytest

NAMES = ("residual", "moves", "line", "clamped")


def wide(sample):
    """Return a batch that leaves the range which the encodings were made for: codes end, on both sides."""
    return tuple(np.concatenate([array, 3 * array[:1], -4 * array[1:2]]) for array in sample)


@pytest.mark.parametrize("name", NAMES)
def test_int8_gives_the_bits_of_the_reference(lowered, zoo, name):
    one, sample = lowered(name), wide(zoo[name][1])
    for mine, theirs in zip(one.file(*sample), one.reference(*sample), strict=True):
        assert mine.shape == theirs.shape
        assert mine.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_the_law_is_a_step_away_at_most(lowered, zoo, name):
    one, sample = lowered(name), zoo[name][1]
    for port, mine, theirs in zip(
        one.model.graph.outputs, one.file(*sample), one.reference(*sample, arithmetic="law"), strict=True
    ):
        step = float(one.encodings.affine(f"{port}:out").scale)
        assert np.abs(mine - theirs).max() <= 1.01 * step
