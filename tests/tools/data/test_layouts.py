"""Layouts: what a file wants, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.errors import UsageError
from haversack.tools.data import layouts


@pytest.mark.parametrize("layout, shape, wanted", [("NHWC", (2, 3, 4, 5), (2, 4, 5, 3)), ("NWC", (2, 3, 7), (2, 7, 3))])
def test_channels_go_last(layout, shape, wanted):
    array = np.arange(np.prod(shape)).reshape(shape)
    (moved,) = layouts.to_file({"x": array}, {"x": layout}).values()
    assert moved.shape == wanted
    assert moved.flags.c_contiguous
    index = tuple(size - 1 for size in shape)
    last = (index[0], *index[2:], index[1])
    assert moved[last] == array[index]


def test_what_has_no_layout_of_its_own_is_handed_on_as_it_is():
    array = np.zeros((2, 3))
    assert layouts.to_file({"x": array}, {"y": "NHWC"})["x"] is array
    assert layouts.from_file({"x": array}, {})["x"] is array


@given(st.tuples(*[st.integers(1, 4)] * 4))
def test_back_is_the_inverse(shape):
    array = np.random.default_rng(0).normal(size=shape)
    moved = layouts.to_file({"x": array}, {"x": "NHWC"})
    np.testing.assert_array_equal(layouts.from_file(moved, {"x": "NHWC"})["x"], array)


def test_an_unknown_layout_is_told():
    with pytest.raises(UsageError, match="NCWH") as error:
        layouts.to_file({"x": np.zeros((1, 1, 1, 1))}, {"x": "NCWH"})
    assert "NHWC" in str(error.value.next_step)
