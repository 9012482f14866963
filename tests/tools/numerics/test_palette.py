"""Palettes: entries are float16 numbers, every weight takes its nearest, and the same weight gives the same palette."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.tools.numerics import palette
from haversack.tools.numerics.affine import half_up

few = settings(max_examples=25)
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


def test_it_loses_about_what_many_entries_lose_in_theory():
    """Panter and Dite 1951: (integral of density^(1/3))^3 / (12 N^2), for a normal density sqrt(3) pi / 2 var / N^2."""
    weight = np.random.default_rng(1).normal(0, 1, 100_000).astype(np.float32)
    for bits in (4, 6):
        book, indices = palette.kmeans(weight, bits)
        lost = float(np.square(palette.values(indices, book) - weight).mean())
        assert lost == pytest.approx(np.sqrt(3) * np.pi / 2 / 4**bits, rel=0.15)


def test_few_weights_far_from_the_rest_get_entries_of_their_own():
    rng = np.random.default_rng(2)
    weight = np.concatenate([rng.normal(0, 1e-3, 5000), [-7.0, 5.0, 16.0]]).astype(np.float32)
    book, indices = palette.kmeans(weight, 4)
    np.testing.assert_allclose(palette.values(indices, book)[-3:], [-7, 5, 16], rtol=1e-3)


def weighted_loss(found, weight, importance):
    book, indices = found
    return float((importance * np.square(palette.values(indices, book).astype(np.float64) - weight)).sum())


def exhaustive(weight, importance, count):
    """Return the least loss of all ways to divide sorted weights among entries."""
    import itertools

    order = np.argsort(weight)
    values, mass = weight[order].astype(np.float64), importance[order]
    best = np.inf
    for inner in itertools.combinations(range(1, len(values)), count - 1):
        ends = [0, *inner, len(values)]
        parts = [slice(*pair) for pair in itertools.pairwise(ends)]
        means = [(mass[part] * values[part]).sum() / mass[part].sum() for part in parts]
        best = min(
            best, sum((mass[p] * np.square(values[p] - mean)).sum() for p, mean in zip(parts, means, strict=True))
        )
    return best


@few
@given(st.integers(0, 1000), st.sampled_from([1, 2]))
def test_few_weights_are_divided_exactly(seed, bits):
    rng = np.random.default_rng(seed)
    weight = (rng.normal(0, 1, 10) ** 3).astype(np.float32)
    importance = rng.exponential(1.0, 10) + 0.1
    counts = importance / importance.mean() + palette.LEAST
    found = weighted_loss(palette.kmeans(weight, bits, importance), weight, counts)
    best = exhaustive(weight, counts, 1 << bits)
    assert found == pytest.approx(best, rel=0.02, abs=1e-4)  # entries are rounded to float16


@few
@given(st.integers(0, 1000), st.sampled_from([2, 3, 4, 5]))
def test_a_weighted_palette_loses_less_of_what_it_is_weighted_by(seed, bits):
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, 1, (8, 64)).astype(np.float32)
    importance = np.broadcast_to(np.exp(rng.normal(0, 2.5, 64)), weight.shape)
    found = [palette.kmeans(weight, bits, counts) for counts in (importance, None)]
    weighted, plain = (weighted_loss(one, weight, importance) for one in found)
    assert weighted < plain * 1.02  # two local optima; the weighted one is hardly ever the worse


def test_importance_moves_the_entries_to_where_it_is():
    weight = np.linspace(-1, 1, 201).astype(np.float32)
    importance = np.where(weight > 0.5, 1000.0, 1.0)
    book, _ = palette.kmeans(weight, 3, importance)
    assert (book.entries > 0.5).sum() >= 5
    assert (palette.kmeans(weight, 3)[0].entries > 0.5).sum() == 2


def test_where_no_importance_is_seen_all_count_alike():
    book, _ = palette.kmeans(WEIGHT, 3, np.zeros(WEIGHT.shape))
    assert np.array_equal(book.entries, palette.kmeans(WEIGHT, 3)[0].entries)


@pytest.mark.parametrize("find", [palette.kmeans, palette.logarithmic])
def test_groups_of_rows_have_palettes_of_their_own(find):
    book, indices = find(WEIGHT, 3, None, 4)
    assert book.group == 4
    assert book.entries.shape == (4, 8)
    for start in range(0, 16, 4):
        alone = find(WEIGHT[start : start + 4], 3)
        assert np.array_equal(book.entries[start // 4], alone[0].entries)
        assert np.array_equal(indices[start : start + 4], alone[1])
    taken = palette.values(indices, book)
    assert taken.shape == WEIGHT.shape
    assert taken[5, 1, 2, 0] == book.entries[1, indices[5, 1, 2, 0]]
    whole = find(WEIGHT, 3)
    assert np.square(taken - WEIGHT).sum() < np.square(palette.values(*reversed(whole)) - WEIGHT).sum()


def test_groups_divide_the_rows():
    with pytest.raises(ValueError, match="groups of 5 do not divide 16 rows"):
        palette.kmeans(WEIGHT, 3, None, 5)


@few
@given(st.integers(2, 5), st.integers(0, 1000))
def test_logarithmic_entries_are_signed_halves_of_one_scale(bits, seed):
    weight = np.random.default_rng(seed).normal(0, 0.1, 300).astype(np.float32)
    book, indices = palette.logarithmic(weight, bits)
    positive = np.unique(book.entries[book.entries > 0])
    assert len(positive) == (1 << (bits - 1)) - 1
    normal = positive[:-1] >= np.finfo(np.float16).tiny
    np.testing.assert_array_equal((positive[1:] / positive[:-1])[normal], 2.0)  # exact: a shift
    np.testing.assert_allclose(positive[1:] / positive[:-1], 2.0, rtol=2.0**-8)
    assert np.array_equal(np.unique(book.entries), np.concatenate([-positive[::-1], [0], positive]))
    found = np.abs(palette.values(indices, book) - weight)
    np.testing.assert_allclose(found, np.abs(weight[:, None] - book.entries).min(-1), atol=1e-6)


def test_the_scale_of_a_logarithmic_palette_is_searched():
    weight = np.array([0.9, 0.9, 0.9, 0.9, -1.3], np.float32)  # the scale 0.9 fits most of it
    book, _ = palette.logarithmic(weight, 2)
    assert np.abs(book.entries).max() == pytest.approx(0.98, abs=0.02)
    book, _ = palette.logarithmic(weight, 2, np.array([1, 1, 1, 1, 100.0]))
    assert np.abs(book.entries).max() == pytest.approx(1.28, abs=0.03)


def test_a_logarithmic_palette_of_zeros_and_of_huge_weights():
    book, indices = palette.logarithmic(np.zeros((2, 3), np.float32), 3)
    assert not palette.values(indices, book).any()
    book, _ = palette.logarithmic(np.array([1e9, -1e9], np.float32), 3)
    assert np.abs(book.entries).max() == 65504


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
