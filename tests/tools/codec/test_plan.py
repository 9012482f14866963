"""The plan: directories that come back, and every way in which one may be malformed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.tools.codec import plan
from haversack.tools.codec.plan import Grid, Product, Run

TABLES = 300
model = st.integers(0, TABLES + 1)
entries = st.lists(
    st.tuples(st.integers(1, 1 << 40), st.sampled_from([1, 2, 4]).flatmap(lambda n: st.tuples(*[model] * n))),
    max_size=8,
)


def runs_of(given_entries):
    found, start = [], 0
    for length, models in given_entries:
        count = len(models)
        found.append(tuple(Run(start + phase, start + length, count, each) for phase, each in enumerate(models)))
        start += length
    return found, start


@given(entries)
def test_round_trip(given_entries):
    cut, size = runs_of(given_entries)
    directory = b"".join(plan.write(cut))
    assert len(directory) <= len(cut) * plan.MOST_ENTRY
    assert plan.read(directory, len(cut), size, TABLES, 1) == [run for runs in cut for run in runs]


def test_a_run_is_every_so_manieth_byte():
    run = Run(start=10, stop=21, stride=4, model=0)
    assert len(run) == 3
    assert list(range(30))[run.place] == [10, 14, 18]
    assert len(Run(23, 21, 4, 0)) == 0


def test_by_hand():
    cut = [(Run(0, 300, 1, 130),), (Run(300, 302, 2, 0), Run(301, 302, 2, 1))]
    assert b"".join(plan.write(cut)) == bytes([0xAC, 0x02, 1, 0x82, 0x01, 2, 2, 0, 1])


grids = st.builds(
    lambda low, high, base, rows, columns: (min(low, high), max(low, high), base, rows, columns),
    *[st.integers(0, TABLES - 1)] * 3,
    st.binary(min_size=1, max_size=5),
    st.binary(min_size=1, max_size=5),
)


@given(st.lists(st.one_of(grids, st.integers(1, 9)), max_size=6), st.integers(0, (1 << 32) - 1))
def test_round_trip_of_version_2(given_entries, factor):
    cut = [(Run(0, 400, 1, 0),)]
    start = 400
    for each in given_entries:
        if isinstance(each, int):
            cut.append(Product(start, start + 4 * each, 10, factor))
            start += 4 * each
        else:
            cut.append(Grid(start, *each))
            start = cut[-1].stop
    directory = b"".join(plan.write(cut))
    assert len(directory) <= plan.most_bytes(len(cut), start, 2)
    assert plan.read(directory, len(cut), start, TABLES, 2) == [cut[0][0], *cut[1:]]
    if len(cut) > 1:
        with pytest.raises(ValueError, match="a stride of [89]"):
            plan.read(directory, len(cut), start, TABLES, 1)


@given(grids, st.integers(1, 40))
def test_the_table_of_each_byte_of_a_grid(drawn, most):
    low, high, base, rows, columns = drawn[0] % 256, drawn[1] % 256, *drawn[2:]
    grid = Grid(7, min(low, high), max(low, high), base % 256, rows, columns)
    places, numbers = zip(*grid.pieces(most), strict=True)
    signed = [[each - 256 * (each > 127) for each in classes] for classes in (rows, columns)]
    expected = [min(max(grid.base + row + column, grid.low), grid.high) for row in signed[0] for column in signed[1]]
    assert [number for part in numbers for number in part.tolist()] == expected
    assert [place.start for place in places] == [7, *(place.stop for place in places[:-1])]
    assert all(len(part) == place.stop - place.start for part, place in zip(numbers, places, strict=True))
    assert all(len(part) <= max(most, len(columns)) for part in numbers)
    assert places[-1].stop == grid.stop == 7 + len(grid)


@pytest.mark.parametrize("most", [1, 3, 100])
def test_the_pieces_of_a_run(most):
    run = Run(start=10, stop=21, stride=4, model=7)
    places, numbers = zip(*run.pieces(most), strict=True)
    assert [at for place in places for at in list(range(30))[place]] == [10, 14, 18]
    assert [number for part in numbers for number in part.tolist()] == [5, 5, 5]
    assert all(len(part) <= most for part in numbers)


def test_version_2_by_hand():
    grid = Grid(0, 1, 3, 2, b"\x00\xff", b"\x01\x00\x02")
    entries, classes = plan.write([grid, Product(6, 14, 14, 300)])
    assert entries == bytes([6, 8, 3, 1, 3, 2, 8, 9, 14, 0xAC, 0x02])
    assert classes == bytes([0, 0xFF, 1, 0, 2])


@pytest.mark.parametrize(
    "directory, segments, told",
    [
        ([40, 8, 4, 0, 0, 0], 1, "ends within the classes of a grid"),
        ([40, 8, 4, 0, 0, 0, *[0] * 13], 1, "ends within the classes"),
        ([40, 8, 4, 0, 0, 0, *[0] * 15], 1, "40 bytes in 20 bytes of directory, not 40 in 21"),
        ([40, 8, 0, 0, 0, 0], 1, "a grid of 40 bytes has rows of 0"),
        ([40, 8, 3, 0, 0, 0], 1, "a grid of 40 bytes has rows of 3"),
        ([40, 8, 4, 1, 0, 0], 1, "tables from 1 to 0"),
        ([40, 8, 4, 0, 2, 0], 1, "model 2, and there are 2 tables"),
        ([40, 8, 4, 0, 1, 2], 1, "model 2, and there are 2 tables"),
        ([40, 8, 4, 0], 1, "ends within an entry"),
        ([20, 1, 0, 20, 9, 1, 0], 2, "20 bytes at byte 20 are no product of those from byte 1 on"),
        ([20, 1, 0, 20, 9, 21, 0], 2, "no product of those from byte 21 on"),
        ([20, 1, 0, 20, 9, 0x80, 0x80, 0x80, 0x80, 0x10, 0], 2, "no product"),
        ([21, 1, 0, 19, 9, 0, 0], 2, "19 bytes at byte 21 are no product"),
        ([20, 1, 0, 20, 9, 0, 0x80, 0x80, 0x80, 0x80, 0x10], 2, "no product"),
        ([20, 9, 20, 0, 20, 9, 0, 0], 2, "no product"),
        ([8, 9, 8, 0, 8, 1, 0, 24, 9, 0, 0], 3, "24 bytes at byte 16 are no product of those from byte 0 on"),
        ([40, 9, 0, 0], 1, "no product"),
        ([40, 7, 0], 1, "a stride of 7"),
    ],
)
def test_malformed_version_2(directory, segments, told):
    with pytest.raises(ValueError, match=told):
        plan.read(bytes(directory), segments, 40, 2, 2)


def test_products_stand_anywhere():
    directory = bytes([8, 9, 8, 1, 12, 1, 0, 12, 9, 8, 2, 8, 1, 0])
    found = plan.read(directory, 4, 40, 0, 2)
    assert [each for each in found if isinstance(each, Product)] == [Product(0, 8, 8, 1), Product(20, 32, 8, 2)]


@pytest.mark.parametrize(
    "directory, segments, told",
    [
        ([], 1, "ends within an entry"),
        ([10, 1], 1, "ends within an entry"),
        ([0x80], 1, "ends within an entry"),
        ([0x8A, 0x00, 1, 0], 1, "longer than it must be"),
        ([0x80] * 12, 1, "more than 63 bits"),
        ([0, 1, 0], 1, "a segment at byte 0 of 10 has 0 bytes"),
        ([11, 1, 0], 1, "a segment at byte 0 of 10 has 11 bytes"),
        ([10, 1, 0, 1, 1, 0], 2, "a segment at byte 10 of 10 has 1 bytes"),
        ([10, 3, 0, 0, 0], 1, "a stride of 3"),
        ([10, 0], 1, "a stride of 0"),
        ([10, 1, 3], 1, "model 3, and there are 1 tables"),
        ([9, 1, 0], 1, "9 bytes in 3 bytes of directory, not 10"),
        ([10, 1, 0, 0], 1, "not 10 in 4"),
        ([], 0, "0 segments have 0 bytes"),
    ],
)
def test_malformed(directory, segments, told):
    with pytest.raises(ValueError, match=told):
        plan.read(bytes(directory), segments, 10, 1, 1)
