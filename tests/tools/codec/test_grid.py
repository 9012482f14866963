"""Grids: classes of rows and columns that find the spreads, tables that code what they were counted for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.stored import Stored
from haversack.tools.codec import grid, tables


def drawn(rows, columns, seed=0):
    """Return int8 weights whose spread is that of their row times that of their column."""
    spreads = np.asarray(rows, float)[:, None] * np.asarray(columns, float)
    values = np.random.default_rng(seed).normal(0, spreads)
    return np.clip(np.round(values), -127, 127).astype(np.int8)


def stored(*matrices, dtype="int8", shapes=()):
    start, tensors = 0, []
    for index, matrix in enumerate(matrices):
        shape = shapes[index] if index < len(shapes) else matrix.shape
        tensors.append(Stored(f"t{index}", start, matrix.nbytes, dtype, tuple(shape)))
        start += matrix.nbytes
    return b"".join(matrix.tobytes() for matrix in matrices), tensors


def tables_of(found):
    return np.concatenate([numbers for _, numbers in found.pieces(1 << 20)]).reshape(len(found.rows), -1)


def bits(content, grids, counts):
    """Return the bits of grids by the frequencies that decoders will have; every byte must have one."""
    frequencies = tables.to_frequencies(tables.to_levels(counts))
    data, sum_of_bits = np.frombuffer(content, np.uint8), 0.0
    for each in grids:
        share = frequencies[tables_of(each).reshape(-1), data[each.start : each.stop]]
        assert share.all()
        sum_of_bits += np.sum(14 - np.log2(share))
    return sum_of_bits


def test_rows_of_two_spreads():
    weights = drawn([4] * 20 + [32] * 20, [1] * 200)
    (found,), counts = grid.fit(*stored(weights), 99)
    numbers = tables_of(found)
    difference = np.median(numbers[20:], axis=1)[:, None] - np.median(numbers[:20], axis=1)
    assert set(difference.reshape(-1)) <= {11, 12, 13}  # three octaves, of four steps each
    assert counts.sum() >= weights.size


def test_rows_and_columns_together_are_near_the_entropy():
    random = np.random.default_rng(3)
    rows, columns = 2 ** random.uniform(2, 5, 200), 2 ** random.normal(0, 0.6, 300)
    weights = drawn(rows, columns)
    content, tensors = stored(weights)
    grids, counts = grid.fit(content, tensors, 99)
    # Of a bell curve that ends nowhere; wide ones are cut at 127.
    ideal = sum(math.log2(row * column) + 2.047 for row in rows for column in columns)
    plain = np.bincount(np.frombuffer(content, np.uint8), minlength=256)
    entropy = -sum(count * math.log2(count / weights.size) for count in plain.tolist() if count)
    assert bits(content, grids, counts) < 1.01 * ideal < 0.97 * entropy


def test_counts_are_of_the_tables_that_code():
    weights = drawn(2 ** np.linspace(0, 5, 40), 2 ** np.linspace(-1, 1, 100))
    content, tensors = stored(weights, weights[::-1].copy())
    grids, counts = grid.fit(content, tensors, 99)
    assert [each.start for each in grids] == [0, weights.size]
    found = np.zeros_like(counts)
    for each in grids:
        np.add.at(found, (tables_of(each).reshape(-1), np.frombuffer(content, np.uint8)[each.start : each.stop]), 1)
    used = found.any(axis=1)
    np.testing.assert_array_equal(counts[used], found[used])
    assert counts.any(axis=1).all()


@pytest.mark.parametrize(
    "shape, rows",
    [
        ((40, 50), 40),
        ((40, 50, 1, 1), 40),
        ((1, 5, 5, 80), 25),
        ((80, 1, 5, 5), 80),
        ((1, 2000), 1),
        ((), 1),
        ((0, 0), 1),
    ],
)
def test_how_a_tensor_is_cut(shape, rows):
    assert grid._rows(Stored("t", 0, 2000, "int8", shape)) == rows


def test_nibbles():
    random = np.random.default_rng(0)
    low, high = (np.clip(np.round(random.normal(0, [[1]] * 20 + [[3]] * 20, (40, 200))), -7, 7) for _ in range(2))
    packed = ((low.astype(np.int8) & 15) | (high.astype(np.int8) << 4)).astype(np.uint8)
    content, tensors = stored(packed, dtype="int4", shapes=[(40, 400)])
    (found,), counts = grid.fit(content, tensors, 99)
    rows = np.frombuffer(found.rows, np.int8)
    assert rows[20:].min() > rows[:20].max()
    plain = np.bincount(packed.reshape(-1), minlength=256)
    entropy = -sum(count * math.log2(count / packed.size) for count in plain.tolist() if count)
    assert bits(content, [found], counts) < 0.97 * entropy


def test_bytes_and_nibbles_have_ladders_of_their_own():
    weights = drawn([4] * 20 + [32] * 20, [1] * 200)
    content = weights.tobytes() * 2
    tensors = [Stored("a", 0, 8000, "int8", (40, 200)), Stored("b", 8000, 8000, "int4", (40, 400))]
    grids, counts = grid.fit(content, tensors, 99)
    assert len(grids) == 2
    assert grids[0].high + 1 == grids[1].low
    assert grids[1].high + 1 == len(counts)
    assert [each.dtype for each in tensors[: len(grid.fit(content, tensors, grid.STEPS + 3)[0])]] == ["int8"]


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((40, 100), np.int8),
        np.tile(drawn([9], [1] * 100), (40, 1)),
        drawn([9] * 40, [1] * 100),
        np.random.default_rng(0).integers(-128, 128, (40, 100)).astype(np.int8),
        drawn([3, 30] * 2, [1] * 50),
    ],
    ids=["zeros", "repeated", "alike", "noise", "small"],
)
def test_where_nothing_is_saved_there_is_no_grid(matrix):
    grids, counts = grid.fit(*stored(matrix), 99)
    assert grids == []
    assert counts.shape == (0, 256)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "blocks"])
def test_what_is_no_matrix_of_weights(dtype):
    weights = drawn([4] * 20 + [32] * 20, [1] * 200)
    assert grid.fit(*stored(weights, dtype=dtype), 99)[0] == []
    assert grid.fit(*stored(weights, shapes=[(7, 9)]), 99)[0] == []


def test_the_fewest_steps_share_their_neighbours_table():
    weights = drawn([2] + [8] * 100 + [32] * 100 + [90], [1] * 100)
    grids, counts = grid.fit(*stored(weights), 99)
    assert counts.sum(axis=1)[[0, -1]].min() > 2000
    assert bits(*stored(weights)[:1], grids, counts) > 0


def test_in_parts(monkeypatch):
    weights = drawn(2 ** np.linspace(0, 5, 40), 2 ** np.linspace(-1, 1, 100))
    whole = grid.fit(*stored(weights), 99)
    monkeypatch.setattr(grid, "_CHUNK", 700)
    parts = grid.fit(*stored(weights), 99)
    assert whole[0] == parts[0]
    np.testing.assert_array_equal(whole[1], parts[1])


@given(
    st.integers(2, 40), st.integers(26, 200), st.sampled_from([0, 1, 40, 127]), st.integers(0, 99), st.integers(40, 99)
)
def test_whatever_lies_there(rows, columns, spread, seed, most):
    values = np.random.default_rng(seed).normal(0, spread, (rows, columns)) * (np.arange(rows)[:, None] % 3)
    content, tensors = stored(np.clip(np.round(values), -128, 127).astype(np.int8))
    grids, counts = grid.fit(content, tensors, most)
    assert len(counts) <= most
    assert all(each.high < len(counts) for each in grids)
    bits(content, grids, counts)


def test_what_is_said_often_anywhere_is_cheap_everywhere():
    def matrix(rows, columns):
        return grid._Matrix(0, np.zeros((len(rows), len(columns)), np.uint8), np.array(rows), np.array(columns))

    many = matrix([9] * 50 + [11] * 50 + [13] * 50, [0] * 80 + [1] * 5)
    few = matrix([20, 22], [0, 1])
    prices = grid._prices([many, few])
    assert prices[grid._FAR + 2] < prices[grid._FAR + 1] < prices[grid._FAR + 3]
    assert prices[grid._FAR] < grid._prices([few])[grid._FAR]
    assert grid._said(few, prices) == 16 * int(prices[grid._FAR + np.array([-2, 0, 0, 1])].sum())


def test_rows_may_be_as_far_from_their_middle_as_a_ladder_is_long():
    rows = np.array([0] * 3 + [grid.STEPS - 1] * 4)
    found = grid._Matrix(0, drawn([3] * 7, [1] * 40).view(np.uint8), rows, np.full(40, -grid._WIDEST))
    again = grid._again(found, np.full((grid.STEPS, 256), 9), grid._prices([found]))
    assert again.rows.tolist() == rows.tolist()
    assert again.columns.tolist() == found.columns.tolist()


def test_large_files_have_fewer_rounds(monkeypatch):
    random = np.random.default_rng(3)
    given = stored(drawn(2 ** random.uniform(2, 5, 200), 2 ** random.normal(0, 0.6, 300)))
    lengths = []
    monkeypatch.setattr(grid, "_again", lambda matrix, *_: lengths.append(matrix.weights.size) or matrix)
    grid.fit(*given, 99)
    monkeypatch.setattr(grid, "_PATIENCE", 200 * 300 - 1)
    grid.fit(*given, 99)
    assert lengths == [200 * 300] * (6 + 2)


def test_more_rounds_are_never_much_worse_and_pay(monkeypatch):
    random = np.random.default_rng(4)
    content, tensors = stored(drawn(2 ** random.uniform(2, 5, 200), 2 ** random.normal(0, 0.6, 300)))
    six = bits(content, *grid.fit(content, tensors, 99))
    monkeypatch.setattr(grid, "_ROUNDS", 1)
    assert six < bits(content, *grid.fit(content, tensors, 99))
