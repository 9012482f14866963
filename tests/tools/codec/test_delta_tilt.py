"""Tilts: found where rows are longer as a whole and nowhere else, told in two bytes, the same sums as on the page."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.tools.codec import delta_tilt
from haversack.tools.codec.delta_tilt import DEGREES, MOST_TILT, SHIFT

TILTS = st.lists(st.integers(-MOST_TILT, MOST_TILT), max_size=30)


def codes(seed=0, shape=(200, 300)):
    return np.rint(np.random.default_rng(seed).normal(0, 40, shape)).clip(-100, 100).astype(np.int8)


def fitted(old, new):
    return delta_tilt.fit(old.view(np.uint8).reshape(-1), new.astype(np.int8).view(np.uint8).reshape(-1), old.shape[1])


@given(TILTS)
def test_tilts_come_back(tilts):
    data = delta_tilt.write(np.array(tilts, np.int64))
    assert len(data) == 2 * len(tilts)
    assert delta_tilt.read(np.frombuffer(data, np.uint8)).tolist() == tilts


def test_small_tilts_have_high_bytes_of_nothing():
    assert delta_tilt.write(np.array([0, -1, 1, -64, 127])) == bytes([0, 1, 2, 127, 254]) + bytes(5)


@given(st.integers(-128, 127), st.integers(-MOST_TILT, MOST_TILT))
def test_a_word_is_predicted_by_its_product_and_leans_to_what_is_left(word, tilt):
    (base,), (degree,), (negated,) = delta_tilt.lean(np.array([word], np.int8).view(np.uint8), np.array([tilt]), 1)
    exact = word + word * tilt / (1 << SHIFT)
    near = np.clip(np.floor(exact + 0.5), -128, 127)
    assert np.int8(base.view(np.int8)) == near
    left = exact - np.floor(exact + 0.5)
    assert degree == sum(abs(left) >= least for least in (1 / 32, 1 / 16, 1 / 8, 1 / 4)) < DEGREES
    assert negated == (left < 0 and degree > 0)


def test_without_a_tilt_a_word_stays_and_leans_to_no_side():
    old = np.arange(256).astype(np.uint8)
    base, degrees, negated = delta_tilt.lean(old, np.zeros(26, np.int64), 10)
    assert np.array_equal(base, old)
    assert not degrees.any()
    assert not negated.any()


@pytest.mark.parametrize("ratio", [0.5, 0.98, 1.004, 1.05, 1.6])
def test_rows_that_are_longer_have_their_ratio(ratio):
    old = codes()
    even = np.arange(200) % 2 == 0
    new = np.rint((old + np.random.default_rng(1).uniform(-0.5, 0.5, old.shape)) * ratio).clip(-127, 127)
    found = fitted(old, np.where(even[:, None], new, old))
    assert not found[~even].any()
    assert np.abs(np.median(found[even]) / (1 << SHIFT) - (ratio - 1)) < 0.002
    assert np.abs(found[even] / (1 << SHIFT) - (ratio - 1)).max() < 0.02


def test_noise_has_next_to_no_tilts():
    old = codes()
    assert np.count_nonzero(fitted(old, old + np.random.default_rng(1).integers(-1, 2, old.shape))) <= 2


def test_what_was_cut_off_does_not_count():
    old = codes()
    old[:, ::3] = 127
    new = np.rint((old + np.random.default_rng(1).uniform(-0.5, 0.5, old.shape)) * 1.25).clip(-127, 127)
    assert np.abs(fitted(old, new) / (1 << SHIFT) - 0.25).max() < 0.01


def test_a_last_row_that_is_not_full_has_a_tilt():
    old = codes(shape=(1, 250))[0]
    new = np.rint(old * 1.1).astype(np.int8)
    found = delta_tilt.fit(old.view(np.uint8), new.view(np.uint8), 100)
    assert found.shape == (3,)
    assert np.abs(found / (1 << SHIFT) - 0.1).max() < 0.01


def test_rows_of_few_words_have_none():
    old = codes(shape=(500, 7))
    assert not fitted(old, np.rint(old * 1.2)).any()


@pytest.mark.parametrize("rows, columns", [(300, 50), (20_000, 4), (3, 70_000), (1, 1)])
def test_many_tilts_are_those_of_a_few_and_take_little_memory(rows, columns):
    random = np.random.default_rng(0)
    tilts = random.integers(-MOST_TILT, MOST_TILT + 1, rows)
    old = random.integers(0, 256, rows * columns - (columns > 1), np.uint8)
    tracemalloc.start()
    found = delta_tilt.lean(old, tilts, columns)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * len(old) + 4_000_000
    for row in {0, rows // 2, rows - 1}:
        part = slice(row * columns, (row + 1) * columns)
        alone = delta_tilt.lean(old[part], tilts[row : row + 1], columns)
        assert all(np.array_equal(whole[part], one) for whole, one in zip(found, alone, strict=True))
