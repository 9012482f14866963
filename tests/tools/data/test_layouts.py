"""Layouts: there and back, and names that are none."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.tools.data.layouts import ORDERS, order_of, to_file, to_model


def test_channels_go_last():
    image = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    filed = to_file(image, "NHWC")
    assert filed.shape == (2, 4, 5, 3)
    assert filed.flags.c_contiguous
    assert filed[1, 2, 3, 0] == image[1, 0, 2, 3]


def test_lines_too():
    line = np.arange(24).reshape(2, 3, 4)
    assert to_file(line, "NWC").shape == (2, 4, 3)
    np.testing.assert_array_equal(to_file(line, "NWC")[0, :, 1], line[0, 1])


@pytest.mark.parametrize("layout", ["", *ORDERS])
def test_there_and_back(layout):
    shape = (2, 3, 4, 5)[: len(ORDERS.get(layout, (0, 1, 2, 3)))]
    array = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_array_equal(to_model(to_file(array, layout), layout), array)


def test_no_layout_is_the_models_own():
    assert order_of("", 3) == (0, 1, 2)
    assert order_of("", 0) == ()


@pytest.mark.parametrize("layout, rank", [("NHWC", 3), ("NWC", 4), ("CHWN", 4)])
def test_a_layout_of_another_rank_is_told(layout, rank):
    with pytest.raises(ValueError, match="is no order of"):
        order_of(layout, rank)
