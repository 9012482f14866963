"""Palettes: entries are float16 numbers, every weight takes its nearest, and the same weight gives the same palette."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Codebook
from haversack.tools.numerics import palette
from haversack.tools.numerics.affine import half_up

WEIGHT = np.random.default_rng(0).normal(0, 0.1, (16, 3, 3, 3)).astype(np.float32)


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_every_weight_takes_the_nearest_entry(bits):
    book, indices = palette.kmeans(WEIGHT, bits)
    assert book.entries.shape == (1 << bits,)
    assert np.array_equal(book.entries, book.entries.astype(np.float16).astype(np.float32))
    assert indices.shape == WEIGHT.shape
    assert indices.dtype == np.int32
    found = np.abs(palette.values(indices, book) - WEIGHT)
    least = np.abs(WEIGHT[..., None] - np.unique(book.entries)).min(-1)
    np.testing.assert_allclose(found, least, atol=1e-6)


def test_more_bits_lose_less_and_beat_an_even_grid():
    errors = [
        float(np.square(palette.values(*reversed(palette.kmeans(WEIGHT, bits))) - WEIGHT).sum()) for bits in (2, 4, 6)
    ]
    assert errors[0] > 4 * errors[1] > 16 * errors[2] > 0
    grid = np.linspace(WEIGHT.min(), WEIGHT.max(), 16)
    even = grid[np.abs(WEIGHT[..., None] - grid).argmin(-1)]
    assert errors[1] < float(np.square(even - WEIGHT).sum())


def test_it_is_the_same_every_time():
    one, two = (palette.kmeans(WEIGHT, 4) for _ in range(2))
    assert one[0].entries.tobytes() == two[0].entries.tobytes()
    assert one[1].tobytes() == two[1].tobytes()


def test_few_different_weights_need_few_entries():
    weight = np.array([[0.5, -0.25, 0.5], [0.5, 0.5, -0.25]], np.float32)
    book, indices = palette.kmeans(weight, 4)
    assert np.array_equal(palette.values(indices, book), weight)
    assert np.array_equal(book.entries, [-0.25] + [0.5] * 15)


def test_weights_beyond_float16_take_its_largest():
    book, indices = palette.kmeans(np.array([1e9, 0.0, -1e9], np.float32), 2)
    assert np.array_equal(palette.values(indices, book), [65504, 0, -65504])


def test_palettes_of_groups_are_refused():
    with pytest.raises(ValueError, match="whole weight"):
        palette.values(np.zeros((4, 2), np.int32), Codebook(1, np.zeros((2, 2), np.float32), 2))


@pytest.mark.parametrize(
    "scale, wanted",
    [(0.5, 0.5), (0.1, 0.10003662), (1e-9, 5.9604645e-08), (65504.0, 65504.0), (1e9, 65504.0), (6e-5, 6.002188e-05)],
)
def test_scales_are_rounded_up_to_float16(scale, wanted):
    found = half_up(np.array([scale], np.float32))
    assert found.dtype == np.float32
    assert found == np.float32(np.float16(found[0]))
    np.testing.assert_allclose(found, [wanted], rtol=1e-6)
    assert found[0] >= min(np.float32(scale), np.float32(65504))
