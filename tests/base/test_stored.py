"""Where a file keeps a tensor."""

from __future__ import annotations

import pytest

from haversack.base.stored import WIDTHS, Stored


@pytest.mark.parametrize("dtype, width", [("int4", 1), ("blocks", 1), ("bfloat16", 2), ("float32", 4), ("float64", 8)])
def test_the_width_of_a_word(dtype, width):
    assert Stored("w", 0, 8, dtype).width == width


def test_it_ends_behind_its_last_byte():
    assert Stored("w", 100, 24, "int32", (2, 3)).end == 124
    assert Stored("w", 0, 0, "int8").end == 0


def test_every_word_has_a_power_of_two_of_bytes():
    assert set(WIDTHS.values()) == {1, 2, 4, 8}
