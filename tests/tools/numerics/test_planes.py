"""Planes: codes come back from as few bits as they need, and what is none is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from haversack.base.encodings import largest_code
from haversack.tools.numerics import planes

WIDTHS = sorted(planes.WIDTHS)
SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=9)


def codes_of(bits):
    most = largest_code(bits)
    elements = st.sampled_from([-1, 1]) if bits == 1 else st.integers(-most, most)
    return hnp.arrays(np.int32, SHAPES, elements=elements)


@st.composite
def any_codes(draw):
    bits = draw(st.sampled_from(WIDTHS))
    return bits, draw(codes_of(bits))


def stored_bytes(packed):
    """What the planes take in a file, where two digits of 4 bits share a byte."""
    return sum(plane.size / 2 if plane.ndim == 3 else plane.size for plane in packed)


@given(any_codes())
def test_codes_come_back(case):
    bits, codes = case
    packed = planes.pack(codes, bits)
    found = planes.unpack(packed, bits, codes.shape)
    assert found.dtype == np.int32
    assert np.array_equal(found, codes)
    assert {plane.dtype.name for plane in packed} == {"uint8"}


@given(any_codes())
def test_they_take_the_bits_that_are_told_and_no_byte_more_than_their_end_needs(case):
    bits, codes = case
    least = codes.size * planes.stored_bits(bits) / 8
    assert least <= stored_bytes(planes.pack(codes, bits)) < least + bits + 1


def test_binary_takes_a_bit_and_ternary_less_than_two():
    signs = np.where(np.arange(800) % 3 == 0, 1, -1)
    assert [plane.size for plane in planes.pack(signs, 1)] == [100]
    assert [plane.size for plane in planes.pack(np.arange(800) % 3 - 1, 2)] == [160]
    assert [planes.stored_bits(bits) for bits in (1, 2, 3, 8)] == [1, 1.6, 3, 8]


@pytest.mark.parametrize("bits", WIDTHS)
def test_tables_say_what_a_plane_means(bits):
    """Written out bit by bit: two's complement, cut at the planes' borders."""
    codes = np.arange(-largest_code(bits), largest_code(bits) + 1)
    codes = codes[codes != 0] if bits == 1 else codes
    total = np.zeros(codes.size, np.int64)
    for plane, table in zip(planes.pack(codes, bits), planes.tables(bits), strict=True):
        part = plane if table is None else table[plane]
        total |= part.astype(np.int64).reshape(-1)[: codes.size]
    assert np.array_equal(total, codes)
    assert all(table is None or table.dtype == np.int8 for table in planes.tables(bits))


@pytest.mark.parametrize(
    ("bits", "code"), [(1, 0), (1, 2), (1, -3), (2, 2), (2, -2), (2, 7), (3, 4), (3, -5), (5, 16), (7, -65), (7, 200)]
)
def test_a_code_that_does_not_fit_is_refused(bits, code):
    with pytest.raises(ValueError, match=f"does not fit {bits} bits"):
        planes.pack(np.array([1, code, 1]), bits)


@pytest.mark.parametrize("bits", [0, 4, 8, 9])
def test_other_widths_have_no_planes(bits):
    with pytest.raises(ValueError, match="have no planes"):
        planes.pack(np.zeros(3, np.int32), bits)


@pytest.mark.parametrize(
    ("bits", "spoil", "says"),
    [
        (2, lambda packed: [packed[0] + 243], "means nothing"),
        (5, lambda packed: [packed[0] + 16, packed[1]], "means nothing"),
        (3, lambda packed: [packed[0].astype(np.int8), packed[1]], "means nothing"),
        (3, lambda packed: [packed[0][1:], packed[1]], "planes of"),
        (3, lambda packed: [plane[1:] for plane in packed], "digits for"),
        (1, lambda packed: [np.append(packed[0], packed[0])], "digits for"),
        (7, lambda packed: packed[:2], "zip"),
    ],
)
def test_spoiled_planes_are_refused(bits, spoil, says):
    packed = planes.pack(np.ones(21, np.int32), bits)
    with pytest.raises(ValueError, match=says):
        planes.unpack(spoil(packed), bits, (21,))
