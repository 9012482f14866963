"""Residuals of words: new words come back from old ones, small changes are small numbers, bits are where they were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.tools.codec import delta_words
from haversack.tools.codec.delta_words import (
    BYTES,
    FLOAT32,
    INT32,
    INT64,
    KINDS,
    LEAST_FACTOR,
    MOST_FACTOR,
    NIBBLES,
    ONE,
)

FACTORS = st.sampled_from([ONE, LEAST_FACTOR, MOST_FACTOR, ONE + 1]) | st.integers(LEAST_FACTOR, MOST_FACTOR)


def octets(array):
    return np.frombuffer(array if isinstance(array, bytes) else np.asarray(array).tobytes(), np.uint8)


@given(st.sampled_from(KINDS), st.lists(st.tuples(st.binary(min_size=8, max_size=8), st.booleans())), FACTORS)
def test_new_words_come_back(kind, words, factor):
    old = octets(b"".join(word for word, _ in words)).copy()
    new = octets(b"".join(word if equal else word[::-1] for word, equal in words)).copy()
    factor = factor if kind.scaled else ONE
    found = delta_words.residual(old, new, kind, factor)
    assert len(found) == len(new) // kind.width
    assert (delta_words.restore(old, found, kind, factor) == new).all()


@given(st.sampled_from(KINDS[2:]), st.lists(st.integers(0, 2**64 - 1), max_size=60))
def test_residuals_come_back_from_symbols_and_bits(kind, numbers):
    found = np.array([number >> 64 - 8 * kind.width for number in numbers], f"u{kind.width}")
    symbols, rest, bits = delta_words.split(found)
    assert (delta_words.rests(symbols, kind) == rest).all()
    packed = delta_words.pack_bits(rest, bits)
    assert len(packed) == -(-int(rest.sum()) // 8)
    again = delta_words.unpack_bits(np.frombuffer(packed + bytes(8), np.uint8), 0, rest)
    assert (delta_words.join(symbols, rest, again, kind) == found).all()


@pytest.mark.parametrize(
    ("number", "symbol", "rest"), [(0, 0, 0), (7, 7, 0), (8, 8, 1), (11, 9, 1), (15, 11, 1), (16, 12, 2), (255, 27, 5)]
)
def test_symbols_are_those_of_the_page(number, symbol, rest):
    found = delta_words.split(np.array([number], np.uint32))
    assert (int(found[0][0]), int(found[1][0])) == (symbol, rest)
    assert int(found[2][0]) == number % (1 << rest)


def test_a_step_is_a_small_number_on_both_sides_of_zero():
    steps = np.array([0, -1, 1, -2, 2, -3], np.int32)
    old = np.array([5, 0, -1, 2**31 - 1, -(2**31), 7], np.int32)
    with np.errstate(over="ignore"):
        found = delta_words.residual(octets(old), octets(old + steps), KINDS[INT32])
    assert found.tolist() == [0, 1, 2, 3, 4, 5]
    floats = np.array([0.0, -0.0, 1.0, -1.0, 1e-45, -3e38], np.float32)
    up = np.nextafter(floats, np.float32(np.inf), dtype=np.float32)
    assert (delta_words.residual(octets(floats), octets(up), KINDS[FLOAT32]) <= 4).all()


def test_halves_are_subtracted_by_themselves():
    found = delta_words.residual(octets([0x1F]).copy()[:1], np.array([0x20], np.uint8), KINDS[NIBBLES])
    assert found.tolist() == [0x11]
    assert delta_words.residual(np.array([255], np.uint8), np.array([1], np.uint8), KINDS[BYTES]).tolist() == [2]


def test_a_factor_leaves_the_last_place():
    random = np.random.default_rng(0)
    scales = random.uniform(1e-4, 1e4, 3000).astype(np.float32)
    new = scales * np.float32(0.8137)
    factor = round(float(np.float32(0.8137)) * ONE)
    assert delta_words.residual(octets(scales), octets(new), KINDS[FLOAT32], factor).max() <= 2
    biases = random.integers(-(2**20), 2**20, 3000).astype(np.int32)
    moved = np.rint(biases * 1.234).astype(np.int32)
    assert delta_words.residual(octets(biases), octets(moved), KINDS[INT32], round(1.234 * ONE)).max() <= 2


def test_symbols_of_more_bits_than_a_word_has_are_refused():
    most = 8 + 4 * (32 - 4) + 3
    assert delta_words.rests(np.array([most], np.uint8), KINDS[INT32]).tolist() == [29]
    with pytest.raises(ValueError, match="33 bits, and words 32"):
        delta_words.rests(np.array([most + 1], np.uint8), KINDS[INT32])
    assert delta_words.rests(np.array([8 + 4 * 60 + 3], np.uint8), KINDS[INT64]).tolist() == [61]
