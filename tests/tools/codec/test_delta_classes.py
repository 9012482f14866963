"""Classes: loud rows get other tables than quiet ones, rows that lean are turned, silence is a table of its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.tools.codec import delta_classes, tables
from haversack.tools.codec.delta_classes import Alphabet, Field

SIGNED = np.arange(256).astype(np.uint8).view(np.int8).astype(np.int64)
ALPHABET = Alphabet(SIGNED, 12, leans=5)


def bits(field, levels):
    """Return what the symbols take with their tables."""
    frequencies = tables.to_frequencies(levels)
    chosen = frequencies[field.models(), field.coded()]
    assert (chosen > 0).all()
    return float((14 - np.log2(chosen)).sum())


def of(matrix):
    return Field.of(np.asarray(matrix, np.int8).view(np.uint8).reshape(-1), matrix.shape[1])


def test_silent_rows_take_nothing_and_loud_ones_their_own():
    random = np.random.default_rng(0)
    matrix = random.integers(-1, 2, (200, 64)) * np.repeat([0, 1, 3, 9], 50)[:, None]
    field = of(matrix)
    levels = delta_classes.ladder([field], ALPHABET)
    assert set(field.rows[:50]) == {0}
    assert 0 not in field.rows[50:]
    assert tables.to_frequencies(levels)[0, 0] == 1 << 14
    assert bits(field, levels) < 150 * 64 * 1.62
    assert field.classed


def test_rows_that_lean_the_other_way_are_turned():
    random = np.random.default_rng(0)
    sides = random.choice([-1, 1], 300)
    field = of(random.integers(0, 3, (300, 64)) * sides[:, None])
    levels = delta_classes.ladder([field], ALPHABET)
    assert (field.flipped == field.flipped[0]).sum() in {(sides == 1).sum(), (sides == -1).sum()}
    assert bits(field, levels) < 300 * 64 * 1.62
    assert np.array_equal(field.coded()[~np.repeat(field.flipped, 64)], field.symbols[~np.repeat(field.flipped, 64)])


def test_columns_have_classes():
    random = np.random.default_rng(0)
    field = of(random.integers(-1, 2, (400, 80)) * np.where(np.arange(80) % 4, 0, 5))
    levels = delta_classes.ladder([field], ALPHABET)
    assert len(set(field.across[::4])) < len(set(field.across))
    assert bits(field, levels) < 400 * 20 * 1.6 + 400 * 60 * 0.15


@settings(max_examples=40)
@given(
    st.integers(0, 2**32),
    st.integers(1, 40),
    st.integers(0, 30),
    st.sampled_from([ALPHABET, Alphabet(np.arange(256), 24)]),
)
def test_every_symbol_has_a_place_in_its_table(seed, words, columns, alphabet):
    random = np.random.default_rng(seed)
    fields = [
        Field.of((random.integers(0, 256, words) * (random.random(words) < share)).astype(np.uint8), wide)
        for share, wide in ((0.0, columns), (0.3, columns), (1.0, 0))
        if wide < words
    ]
    levels = delta_classes.ladder(fields, alphabet)
    assert len(levels) <= alphabet.rungs * alphabet.leans
    for field in fields:
        assert bits(field, levels) >= 0


def test_no_fields_have_no_tables():
    assert delta_classes.ladder([], ALPHABET).shape == (0, 256)


@pytest.mark.parametrize("values", [SIGNED, np.arange(256)])
def test_opposites_are_told_by_group(values):
    alphabet = Alphabet(values, 4)
    opposite = alphabet.negated()
    assert opposite[alphabet.kinds] == alphabet.kinds
    if values is SIGNED:
        for symbol in (0, 1, 2, 5, 100, 255):
            assert opposite[alphabet.groups[symbol]] == alphabet.groups[-symbol & 255]
