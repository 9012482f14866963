"""Tables: integers that every decoder makes from levels, close to what was counted."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.tools.codec import tables
from haversack.tools.codec.rans import TOTAL

histograms = st.dictionaries(st.integers(0, 255), st.integers(1, 1 << 34), min_size=1, max_size=256)


def row(counts):
    found = np.zeros((1, 256), np.int64)
    for symbol, count in counts.items():
        found[0, symbol] = count
    return found


@given(histograms)
def test_what_occurs_has_a_frequency(counts):
    given_counts = row(counts)
    levels = tables.to_levels(given_counts)
    frequencies = tables.to_frequencies(levels)
    assert levels.dtype == np.uint8
    assert levels.max() < tables.LEVELS
    assert frequencies.sum() == TOTAL
    np.testing.assert_array_equal(frequencies > 0, given_counts > 0)


@given(st.lists(st.integers(0, tables.LEVELS - 1), min_size=256, max_size=256).filter(any))
def test_frequencies_by_the_rule(levels):
    weights = [(8 + (level - 1) % 8) * 2 ** ((level - 1) // 8) if level else 0 for level in levels]
    whole, shared, expected = sum(weights), TOTAL, [TOTAL] * 2
    while sum(expected) > TOTAL:
        shared -= (sum(expected) - TOTAL) * (len(expected) == 256)
        expected = [max(math.floor(Fraction(w * shared, whole) + Fraction(1, 2)), 1) if w else 0 for w in weights]
    expected[expected.index(max(expected))] += TOTAL - sum(expected)
    assert tables.to_frequencies(np.array([levels]))[0].tolist() == expected


@pytest.mark.parametrize("count, bits", [(2000, 0.02), (20_000, 0.01), (500_000, 0.003)])
def test_little_is_lost(count, bits):
    drawn = np.clip(np.round(np.random.default_rng(3).normal(0, 25, count)), -127, 127).astype(np.int8)
    counts = np.bincount(drawn.view(np.uint8), minlength=256)
    frequencies = tables.to_frequencies(tables.to_levels(counts[None]))[0]
    pairs = [(n, f) for n, f in zip(counts.tolist(), frequencies.tolist(), strict=True) if n]
    ideal = sum(n * math.log2(count / n) for n, _ in pairs)
    coded = sum(n * math.log2(TOTAL / f) for n, f in pairs)
    assert ideal <= coded <= ideal + bits * count


@pytest.mark.parametrize("common, rare", [(128, 128), (1, 255), (255, 1), (64, 192), (16, 240)])
def test_as_many_rare_symbols_as_there_may_be(common, rare):
    frequencies = tables.to_frequencies(np.array([[128] * common + [1] * rare]))[0]
    assert frequencies.sum() == TOTAL
    assert frequencies[common:].tolist() == [1] * rare
    assert frequencies[1:common].min(initial=TOTAL) > 50


def test_the_more_seldom_a_symbol_is_the_coarser_is_its_level():
    counts = np.geomspace(1, 90_000, 256).astype(np.int64)
    (levels,) = tables.to_levels(counts[None])
    seldom, often = counts < 200, counts >= 2000
    assert set((levels[seldom] % 4).tolist()) == {1}
    assert set((levels[~seldom & ~often] % 4).tolist()) == {1, 3}
    assert set((levels[often] % 4).tolist()) == {0, 1, 2, 3}


def test_many_tables_at_once():
    counts = np.array([np.arange(256), np.arange(256)[::-1]])
    found = tables.to_frequencies(tables.to_levels(counts))
    for index in range(2):
        np.testing.assert_array_equal(found[index], tables.to_frequencies(tables.to_levels(counts[[index]]))[0])
    assert tables.to_frequencies(tables.to_levels(np.zeros((0, 256), np.int64))).shape == (0, 256)


def test_levels_that_are_none():
    with pytest.raises(ValueError, match="a level is 129"):
        tables.to_frequencies(np.full((1, 256), 129, np.uint8))
    with pytest.raises(ValueError, match="table 1 has no symbol"):
        tables.to_frequencies(np.array([[1] * 256, [0] * 256], np.uint8))
