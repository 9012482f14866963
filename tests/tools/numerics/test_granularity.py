"""Channel views: the axis of each op, and the two ways between [channels] and a tensor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.tools.numerics import granularity


@pytest.mark.parametrize(
    "op, weight, output",
    [("conv1d", 0, 1), ("conv2d", 0, 1), ("conv_transpose2d", 1, 1), ("linear", 0, -1), ("embedding", 0, -1)],
)
def test_axes(op, weight, output):
    assert granularity.channel_axis(op) == weight
    assert granularity.output_axis(op) == output


def test_an_op_without_channels():
    with pytest.raises(ValueError, match="softmax"):
        granularity.channel_axis("softmax")


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_by_channel_keeps_each_channel_whole(shape, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    array = np.arange(np.prod(shape)).reshape(shape)
    rows = granularity.by_channel(array, axis)
    assert rows.shape == (shape[axis], array.size // shape[axis])
    for channel, row in enumerate(rows):
        assert set(row) == set(array.take(channel, axis).reshape(-1))


def test_no_axis_is_one_channel():
    assert granularity.by_channel(np.zeros((2, 3)), None).shape == (1, 6)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_along_lays_values_on_their_axis(shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    values = np.arange(shape[axis])
    spread = np.broadcast_to(granularity.along(values, axis, len(shape)), shape)
    for channel in values:
        assert (spread.take(channel, axis) == channel).all()


def test_a_single_value_lies_anywhere():
    assert granularity.along(np.float32(2.0), None, 3) == 2.0


@pytest.mark.parametrize("shape, axis, dimensions", [((3,), None, 2), ((3,), 2, 2), ((3, 1), 0, 2), ((3,), -3, 2)])
def test_values_that_lie_nowhere(shape, axis, dimensions):
    with pytest.raises(ValueError, match="do not lie"):
        granularity.along(np.zeros(shape), axis, dimensions)
