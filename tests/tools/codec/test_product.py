"""Products: the bits of float32 multiplication, found where they are, and refused where processors may part."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.stored import Stored
from haversack.tools.codec import product
from haversack.tools.codec.plan import Product

normal = st.builds(
    lambda sign, exponent, fraction: sign << 31 | exponent << 23 | fraction,
    st.integers(0, 1),
    st.integers(70, 180),
    st.integers(0, (1 << 23) - 1),
)
bits = st.integers(0, (1 << 32) - 1)


def value(word):
    """Return the number of normal bits, exactly."""
    return (
        (-1) ** (word >> 31) * Fraction((1 << 23) | word & 0x7FFFFF) * Fraction(2) ** ((word >> 23 & 0xFF) - 127 - 23)
    )


def rounded(number):
    """Return the bits of a normal number, rounded to the nearest, of two to the even one; in integers."""
    sign, number, exponent = int(number < 0), abs(number), 0
    while number >= 2:
        number, exponent = number / 2, exponent + 1
    while number < 1:
        number, exponent = number * 2, exponent - 1
    mantissa = round(number * (1 << 23))  # Python rounds fractions half to even
    if mantissa == 1 << 24:
        mantissa, exponent = 1 << 23, exponent + 1
    return sign << 31 | (exponent + 127) << 23 | mantissa & 0x7FFFFF


@given(st.lists(normal, min_size=1, max_size=5), normal)
def test_the_bits_by_integers(words, factor):
    found = product.multiply(np.array(words, np.uint32), factor)
    assert found.tolist() == [rounded(value(word) * value(factor)) for word in words]


def test_ties_go_to_the_even_one():
    # (1 + 2^-23) * (1 + 2^-1) ends half-way between two numbers; and so does 3 times that which rounds the other way.
    words = np.array([0x3F800001, 0x3F800003], np.uint32)
    assert product.multiply(words, 0x3FC00000).tolist() == [0x3FC00002, 0x3FC00004]


@given(st.lists(bits, min_size=1, max_size=4), bits)
def test_either_all_are_normal_or_it_is_refused(words, factor):
    given_words = np.array(words, np.uint32)
    fine = all(0 < word >> 23 & 0xFF < 255 for word in [*words, factor])
    fine = fine and all(Fraction(2) ** -126 <= abs(value(word) * value(factor)) < 2**127 for word in words)
    try:
        found = product.multiply(given_words, factor)
    except ValueError as error:
        assert "no normal product" in str(error)
        assert not fine
    else:
        assert fine
        assert found.tolist() == [rounded(value(word) * value(factor)) for word in words]


@pytest.mark.parametrize("word", [0, 1 << 31, 1, 0x7F800000, 0x7FC00000, 0xFF800000, 0x007FFFFF])
def test_what_is_not_normal_is_refused(word):
    with pytest.raises(ValueError, match="no normal product"):
        product.multiply(np.array([word], np.uint32), 0x3F800000)
    with pytest.raises(ValueError, match="no normal product"):
        product.multiply(np.array([0x3F800000], np.uint32), word)


def stored(*arrays, between=b""):
    """Return the bytes of float32 arrays with others between them, and where they are."""
    parts, tensors = [], []
    for index, array in enumerate(arrays):
        parts.append(between)
        start = sum(map(len, parts))
        parts.append(array.astype("<f4").tobytes())
        tensors.append(Stored(f"t{index}", start, array.size * 4, "float32", array.shape))
    return b"".join(parts), tensors


def scales(count, seed=0):
    return np.random.default_rng(seed).uniform(1e-4, 1e-2, count).astype(np.float32)


@given(st.integers(8, 40), st.floats(-1000, 1000, width=32).filter(lambda x: abs(x) > 1e-6), st.booleans())
def test_found_before_and_behind(count, factor, behind):
    source = scales(count)
    made = source * np.float32(factor)
    arrays = (source, made) if behind else (made, source)
    content, tensors = stored(*arrays, scales(count, 1), between=b"abc")
    (found,) = product.find(content, tensors)
    # A factor may have a neighbour that makes the same: and a division may be a multiplication.
    words = np.frombuffer(content, "<u4", count, found.source).astype(np.uint32)
    assert product.multiply(words, found.factor).tobytes() == content[found.start : found.stop]
    assert {found.start, found.source} == {tensors[0].start, tensors[1].start}


def test_no_chains():
    first = scales(64)
    content, tensors = stored(first, first * np.float32(0.3), first * np.float32(0.7), first)
    found = product.find(content, tensors)
    assert len(found) == 3
    assert not {each.source for each in found} & {each.start for each in found}


def test_what_is_no_product():
    first = scales(64)
    almost = first * np.float32(0.3)
    almost[40] = np.nextafter(almost[40], np.float32(1))
    zero = first.copy()
    zero[9] = 0
    content, tensors = stored(first, almost, zero, zero * np.float32(0.3), scales(32), np.full(64, np.inf))
    assert product.find(content, tensors) == []
    few, of_few = stored(first[:7], first[:7])
    assert product.find(few, of_few) == []


def test_the_fields():
    source = np.full(8, 1.5, np.float32)
    source[3] = 2.5
    content, tensors = stored(source, source * np.float32(4))
    assert product.find(content, tensors) == [Product(32, 64, 0, int(np.float32(4).view(np.uint32)))]


def coarse(count, seed=0):
    """Return scales of six significant bits."""
    mantissas, exponents = np.frexp(scales(count, seed))
    return np.ldexp(np.round(mantissas * 64) / 64, exponents).astype(np.float32)


@given(st.integers(0, 200), st.booleans())
def test_of_two_the_one_of_fewer_bits_is_kept(seed, behind):
    source = coarse(8, seed)
    made = source * np.float32(0.0123)
    content, tensors = stored(*((source, made) if behind else (made, source)))
    (found,) = product.find(content, tensors)
    assert content[found.source : found.source + 32] == source.tobytes()


def test_found_among_many_others_of_its_length():
    others = [coarse(64, seed) for seed in range(60)]
    factors = np.float32(0.01) * np.arange(1, 61, dtype=np.float32)
    products = [one * factor for one, factor in zip(others, factors, strict=True)]
    content, tensors = stored(*others, *products)
    found = product.find(content, tensors)
    assert [(each.start, each.source) for each in found] == [(256 * (60 + at), 256 * at) for at in range(60)]
