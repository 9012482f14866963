"""Packed bits: every code comes back, and the layout is the one that formats expect."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.tools.numerics.packing import pack, packed_bytes, unpack


@given(st.integers(1, 8), st.booleans(), st.data())
def test_round_trip(bits, signed, data):
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    codes = np.array(data.draw(st.lists(st.integers(low, high), max_size=40)), np.int32)
    packed = pack(codes, bits, signed=signed)
    assert packed.dtype == np.uint8
    assert packed.size == packed_bytes(codes.size, bits)
    back = unpack(packed, bits, codes.size, signed=signed)
    assert back.dtype == np.int32
    np.testing.assert_array_equal(back, codes)


@pytest.mark.parametrize(
    "codes, bits, signed, expected",
    [
        ([1, 2, 3], 4, False, [0x21, 0x03]),
        ([-1, 7, -8], 4, True, [0x7F, 0x08]),
        ([1, 0, 1, 1], 1, False, [0b1101]),
        ([3, 0, 1, 2], 2, False, [0b10010011]),
        ([5, 6, 7], 3, False, [0b11110101, 0b1]),
        ([-128, 127], 8, True, [0x80, 0x7F]),
    ],
)
def test_layout(codes, bits, signed, expected):
    assert pack(np.array(codes), bits, signed=signed).tolist() == expected


def test_int4_is_laid_out_as_onnx_lays_it():
    helper = pytest.importorskip("onnx.helper")
    from onnx import TensorProto

    codes = np.array([-7, 3, 0, 5, -1], np.int32)
    made = helper.make_tensor("w", TensorProto.INT4, [5], codes)
    assert made.raw_data == b"" or made.raw_data == pack(codes, 4, signed=True).tobytes()
    stored = bytes(made.raw_data) or bytes(int(value) & 0xFF for value in made.int32_data)
    assert stored == pack(codes, 4, signed=True).tobytes()


@pytest.mark.parametrize("codes, bits, signed", [([4], 2, False), ([-1], 8, False), ([8], 4, True), ([-9], 4, True)])
def test_a_code_that_does_not_fit(codes, bits, signed):
    with pytest.raises(ValueError, match="leaves"):
        pack(np.array(codes), bits, signed=signed)


@pytest.mark.parametrize("bits", [0, 9])
def test_other_numbers_of_bits(bits):
    with pytest.raises(ValueError, match="1 to 8"):
        pack(np.array([0]), bits)


@pytest.mark.parametrize("packed", [np.zeros(1, np.uint8), np.zeros(3, np.uint8), np.zeros(2, np.int8)])
def test_the_wrong_number_of_bytes(packed):
    with pytest.raises(ValueError, match="take 2 bytes"):
        unpack(packed, 4, 3)
