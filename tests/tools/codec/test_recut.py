"""The second cut: the cheapest way, proven by trying all, and segments that fit better than before."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from haversack.tools.codec import recut, tables
from haversack.tools.codec.plan import FIRST_TABLE, PACKED, STORED


def tables_of(*contents):
    counts = np.array([np.bincount(np.frombuffer(each, np.uint8), minlength=256) for each in contents])
    return tables.to_frequencies(tables.to_levels(counts))


@given(st.lists(st.lists(st.integers(0, 30), min_size=3, max_size=3), min_size=1, max_size=6))
def test_the_cheapest_way_of_all(rows):
    bits = np.array(rows, np.float32) * recut._BIT

    def cost(way):
        changes = sum(a != b for a, b in itertools.pairwise(way))
        return sum(bits[at, here] for at, here in enumerate(way)) + changes * recut._ENTRY

    found = tuple(recut._cheapest(bits).tolist())
    assert cost(found) == min(cost(way) for way in itertools.product(range(3), repeat=len(rows)))


def test_the_border_is_found(bell):
    narrow, wide = bell(10_240, 2), bell(10_240, 50, 1)
    content, first, second = narrow + wide, (FIRST_TABLE,), (FIRST_TABLE + 1,)
    coarse = [(8192, first), (len(content) - 8192, second)]
    found = recut.recut(content, coarse, tables_of(narrow, wide))
    assert found == [(10_240, first), (10_240, second)]


def test_rows_of_a_layer_go_to_the_table_that_fits(bell):
    narrow, wide = bell(4096, 2), bell(4096, 50, 1)
    content = (narrow[:1024] + wide[:1024]) * 4
    given_cut = [(2048, (FIRST_TABLE,)), (6144, (FIRST_TABLE + 1,))]
    found = recut.recut(content, given_cut, tables_of(narrow, wide))
    assert [length for length, _ in found] == [1024] * 8
    assert [choice for _, choice in found] == [(FIRST_TABLE,), (FIRST_TABLE + 1,)] * 4


def test_packed_segments_stay():
    content = b"tensor;;" * 512 + bytes(range(256)) * 16
    given_cut = [(4096, (PACKED,)), (4096, (STORED,))]
    assert recut.recut(content, given_cut, np.zeros((0, 256), np.int64)) == given_cut


def test_models_by_position(floats):
    content = floats(4096)
    planes = tables_of(*(content[phase::4] for phase in range(4)))
    choice = tuple(FIRST_TABLE + phase for phase in range(4))
    given_cut = [(8192, choice), (8192, (STORED,))]
    assert recut.recut(content, given_cut, planes) == [(len(content), choice)]


def test_what_is_left_as_it_is(monkeypatch):
    many = [(1, (FIRST_TABLE + index,)) for index in range(300)]
    frequencies = tables.to_frequencies(np.full((300, 256), 9, np.uint8))
    assert recut.recut(bytes(300), many, frequencies) is many
    monkeypatch.setattr(recut, "_MOST_BYTES", 10)
    few = [(300, (STORED,))]
    assert recut.recut(bytes(300), few, frequencies) is few


def test_nothing():
    assert recut.recut(b"", [], np.zeros((0, 256), np.int64)) == []
