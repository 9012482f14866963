"""Residuals of words against plain arithmetic: one Python integer at a time, every kind, every edge of a factor."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.tools.codec import delta_words
from haversack.tools.codec.delta_words import (
    BYTES,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    INT16,
    INT32,
    INT64,
    KINDS,
    LEAST_FACTOR,
    MOST_FACTOR,
    NIBBLES,
    ONE,
)

WIDE = [INT16, INT32, INT64, FLOAT16, FLOAT32, FLOAT64]


def octets(data):
    return np.frombuffer(data, np.uint8)


def rank(word, bits):
    """Return the place of a float among all of its width, a plain integer."""
    sign = 1 << (bits - 1)
    return (2 * sign - 1 - word) if word & sign else word + sign


def folded(step, bits):
    """Return 0, -1, 1, -2 as 0, 1, 2, 3, of a difference modulo 2^bits."""
    step %= 1 << bits
    return 2 * step if step < 1 << (bits - 1) else 2 * ((1 << bits) - step) - 1


def plain(old, new, kind):
    """Return the residuals of bytes, word by word, without a factor."""
    width = KINDS[kind].width
    found = []
    for at in range(0, len(old), width):
        one, two = (int.from_bytes(data[at : at + width], "little") for data in (old, new))
        if kind == BYTES:
            found.append((two - one) % 256)
        elif kind == NIBBLES:
            found.append((two - one) % 16 | ((two >> 4) - (one >> 4)) % 16 << 4)
        elif KINDS[kind].floating:
            found.append(folded(rank(two, 8 * width) - rank(one, 8 * width), 8 * width))
        else:
            found.append(folded(two - one, 8 * width))
    return found


def pairs(kind):
    width = KINDS[kind].width
    return st.integers(0, 6).flatmap(
        lambda words: st.tuples(*[st.binary(min_size=words * width, max_size=words * width)] * 2)
    )


@pytest.mark.parametrize("kind", range(8))
@settings(max_examples=20)
@given(st.data())
def test_residuals_are_those_of_plain_arithmetic_and_come_back(kind, data):
    old, new = data.draw(pairs(kind))
    found = delta_words.residual(octets(old), octets(new), KINDS[kind])
    assert found.tolist() == plain(old, new, kind)
    assert delta_words.restore(octets(old), found, KINDS[kind]).tobytes() == new
    assert not delta_words.residual(octets(old), octets(old), KINDS[kind]).any()


@pytest.mark.parametrize("kind", [INT32, FLOAT32])
@settings(max_examples=25)
@given(st.data(), st.integers(LEAST_FACTOR, MOST_FACTOR))
def test_any_factor_comes_back(kind, data, factor):
    old, new = data.draw(pairs(kind))
    found = delta_words.residual(octets(old), octets(new), KINDS[kind], factor)
    assert delta_words.restore(octets(old), found, KINDS[kind], factor).tobytes() == new


@settings(max_examples=40)
@given(st.integers(-(2**31), 2**31 - 1), st.integers(LEAST_FACTOR, MOST_FACTOR))
def test_an_integer_is_predicted_rounded_half_up(word, factor):
    zero = np.zeros(1, np.uint32)
    found = delta_words.restore(octets(struct.pack("<i", word)), zero, KINDS[INT32], factor)
    assert int.from_bytes(found.tobytes(), "little") == (word * factor + ONE // 2) // ONE % 2**32


@pytest.mark.parametrize("word", [-(2**31), 2**31 - 1, -1, 0, 1])
@pytest.mark.parametrize("factor", [LEAST_FACTOR, ONE - 1, ONE, ONE + 1, MOST_FACTOR])
def test_the_edges_of_integers_and_factors(word, factor):
    zero = np.zeros(1, np.uint32)
    found = delta_words.restore(octets(struct.pack("<i", word)), zero, KINDS[INT32], factor)
    assert int.from_bytes(found.tobytes(), "little") == (word * factor + ONE // 2) // ONE % 2**32


@settings(max_examples=40)
@given(st.floats(2.0**-100, 2.0**100, width=32), st.booleans(), st.integers(LEAST_FACTOR, MOST_FACTOR))
def test_a_float_is_predicted_within_one_unit_of_its_last_place(size, negative, factor):
    word = np.float32(-size if negative else size)
    found = delta_words.restore(octets(word.tobytes()), np.zeros(1, np.uint32), KINDS[FLOAT32], factor)
    told = np.frombuffer(found.tobytes(), "<f4")[0]
    exact = float(word) * factor / ONE
    assert abs(float(told) - exact) <= float(np.spacing(np.abs(told)))
    assert np.signbit(told) == negative


@pytest.mark.parametrize("word", [0, 0x80000000, 1, 0x007FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7FFFFFFF])
@pytest.mark.parametrize("factor", [LEAST_FACTOR, ONE - 1, MOST_FACTOR])
def test_floats_that_are_no_normal_ones_are_predicted_as_they_are(word, factor):
    data = octets(struct.pack("<I", word))
    found = delta_words.restore(data, np.zeros(1, np.uint32), KINDS[FLOAT32], factor)
    assert found.tobytes() == data.tobytes()


@pytest.mark.parametrize(
    ("word", "factor"), [(0x00800000, LEAST_FACTOR), (0x7F7FFFFF, MOST_FACTOR), (0xFF7FFFFF, ONE * 2)]
)
def test_floats_that_would_leave_the_normal_ones_are_predicted_as_they_are(word, factor):
    data = octets(struct.pack("<I", word))
    assert delta_words.restore(data, np.zeros(1, np.uint32), KINDS[FLOAT32], factor).tobytes() == data.tobytes()


def test_a_step_of_a_float_is_one_unit_in_the_last_place():
    for kind, dtype in ((FLOAT16, "<f2"), (FLOAT32, "<f4"), (FLOAT64, "<f8")):
        old = np.array([1.0, -1.0, 2.0**-14, -0.0], dtype)
        up = np.nextafter(old, np.array(np.inf, dtype)).astype(dtype)
        found = delta_words.residual(octets(old.tobytes()), octets(up.tobytes()), KINDS[kind])
        assert found.tolist() == [2, 2, 2, 4]  # from -0 there are two steps: 0 lies between


def length_of(value):
    return max(value.bit_length() - 3, 0)


def plain_symbol(value):
    bits = value.bit_length()
    return value if bits <= 3 else 8 + 4 * (bits - 4) + (value >> (bits - 3) & 3)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 40), max_size=20))
def test_symbols_and_bits_are_those_of_plain_arithmetic(values):
    symbols, rest, bits = delta_words.split(np.array(values, np.uint64))
    assert symbols.tolist() == [plain_symbol(value) for value in values]
    assert rest.tolist() == [length_of(value) for value in values]
    assert bits.tolist() == [value & ((1 << length_of(value)) - 1) for value in values]


@settings(max_examples=30)
@given(st.sampled_from(WIDE), st.data())
def test_residuals_come_back_from_symbols_and_packed_bits(kind, data):
    width = KINDS[kind].width
    values = data.draw(st.lists(st.integers(0, 2 ** (8 * width) - 1) | st.integers(0, 40), max_size=20))
    given_ = np.array(values, f"u{width}")
    symbols, rest, bits = delta_words.split(given_)
    packed = delta_words.pack_bits(rest, bits)
    assert len(packed) == -(-int(rest.sum()) // 8)
    assert delta_words.rests(symbols, KINDS[kind]).tolist() == rest.tolist()
    found = delta_words.unpack_bits(octets(packed + bytes(8)), 0, rest)
    again = delta_words.join(symbols, rest, found, KINDS[kind])
    assert again.tolist() == values
    assert again.dtype == np.dtype(f"u{width}")


@settings(max_examples=30)
@given(st.lists(st.integers(0, 61).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, 2**n - 1))), max_size=12))
def test_bits_are_packed_as_one_long_number_and_read_from_any_of_them(numbers):
    whole, at = 0, 0
    places = []
    for size, value in numbers:
        places.append(at)
        whole |= value << at
        at += size
    rest = np.array([size for size, _ in numbers], np.int64)
    packed = delta_words.pack_bits(rest, np.array([value for _, value in numbers], np.uint64))
    assert int.from_bytes(packed, "little") == whole
    for first in range(len(numbers)):
        found = delta_words.unpack_bits(octets(packed + bytes(8)), places[first], rest[first:])
        assert found.tolist() == [value for _, value in numbers[first:]]


@pytest.mark.parametrize("kind", WIDE)
def test_a_symbol_of_more_bits_than_a_word_has_is_told(kind):
    bits = 8 * KINDS[kind].width
    last = 8 + 4 * (bits - 4) + 3
    assert delta_words.rests(np.array([last], np.uint8), KINDS[kind]).tolist() == [bits - 3]
    assert last <= 255
    for beyond in {last + 1, 255} - {last}:
        if beyond <= 255:
            with pytest.raises(ValueError, match=rf"a residual has \d+ bits, and words {bits}"):
                delta_words.rests(np.array([0, beyond], np.uint8), KINDS[kind])


def test_no_words_have_no_symbols_and_no_bits():
    for kind in WIDE:
        none = delta_words.residual(octets(b""), octets(b""), KINDS[kind])
        symbols, rest, bits = delta_words.split(none)
        assert (symbols.size, rest.size, bits.size, delta_words.pack_bits(rest, bits)) == (0, 0, 0, b"")
        assert delta_words.rests(symbols, KINDS[kind]).size == 0
