"""Groups of weights: their scales are numbers of two small formats, and codes mean scale times code, block by block."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.encodings import BlockAffine
from haversack.tools.numerics import blocks

positive = st.floats(2.0**-90, 2.0**90, width=32)


@given(st.lists(positive, min_size=1, max_size=20))
def test_rounded_scales_are_numbers_of_both_formats(numbers):
    found = blocks.rounded(np.array(numbers, np.float32))
    assert found.dtype == np.float32
    assert (blocks.from_bfloat16(blocks.to_bfloat16(found)) == found).all()
    assert (blocks.to_float16(found).astype(np.float32) == found).all()
    assert (blocks.rounded(found) == found).all()
    inside = np.clip(np.array(numbers, np.float32), blocks.LEAST, blocks.MOST)
    assert (np.abs(found - inside) <= inside * 2.0**-8).all()  # half a step of 8 bits of mantissa


@given(st.floats(blocks.LEAST, blocks.MOST, width=32))
def test_no_other_number_of_the_format_is_nearer(number):
    (found,) = blocks.rounded(np.array([number], np.float32))
    upper = struct.unpack("<I", struct.pack("<f", number))[0] >> 16
    near = [struct.unpack("<f", struct.pack("<I", bits << 16))[0] for bits in (upper - 1, upper, upper + 1)]
    allowed = [one for one in near if blocks.LEAST <= one <= blocks.MOST]
    assert abs(float(found) - number) == min(abs(one - number) for one in allowed)


def test_half_way_goes_to_the_even_one():
    low, high = (struct.unpack("<f", struct.pack("<I", bits << 16))[0] for bits in (0x3F80, 0x3F81))
    assert blocks.rounded(np.array([(low + high) / 2], np.float32)) == low
    assert blocks.rounded(np.array([(high + high + high - low) / 2], np.float32)) == 2 * high - low


@pytest.mark.parametrize(("change", "number"), [(blocks.to_bfloat16, 1.001), (blocks.to_float16, 1e-9)])
def test_a_number_that_the_format_does_not_have_is_refused(change, number):
    with pytest.raises(ValueError, match="is no b?float16 number"):
        change(np.array([number], np.float32))
    with pytest.raises(ValueError, match="is no float16 number"):
        blocks.to_float16(np.array([1e9], np.float32))


@st.composite
def weights(draw):
    """Return (weight [rows, length], group)."""
    group, rows, count = draw(st.sampled_from([2, 4, 32])), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    seed = draw(st.integers(0, 2**32 - 1))
    size = 10.0 ** draw(st.integers(-3, 3))
    return (np.random.default_rng(seed).normal(size=(rows, count * group)) * size).astype(np.float32), group


@given(weights())
def test_each_value_is_its_code_times_the_scale_of_its_block(given_):
    weight, group = given_
    peaks = np.abs(weight.reshape(len(weight), -1, group)).max(2)
    encoding = BlockAffine(group, 4, blocks.rounded(peaks / np.float32(7)))
    codes = blocks.quantize(weight, encoding)
    assert codes.dtype == np.int32
    assert codes.shape == weight.shape
    assert np.abs(codes).max() <= 7
    found = blocks.values(codes, encoding)
    for row in range(weight.shape[0]):
        for column in range(weight.shape[1]):
            scale = encoding.scale[row, column // group]
            assert found[row, column] == np.float32(codes[row, column]) * scale
            inside = abs(weight[row, column]) <= 7 * scale
            assert not inside or abs(found[row, column] - weight[row, column]) <= scale * 0.5001
    assert (blocks.quantize(found, encoding) == codes).all()


def test_blocks_with_minima_are_not_computed():
    scale = np.ones((1, 1), np.float32)
    with pytest.raises(ValueError, match="one scale and no minimum"):
        blocks.values(np.zeros((1, 2), np.int32), BlockAffine(2, 4, scale, scale))
