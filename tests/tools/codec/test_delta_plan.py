"""The plan of a delta comes back, and what cannot be one is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.tools.codec import delta_plan, leb128
from haversack.tools.codec.delta_plan import (
    COPIED,
    FIRST_KIND,
    MOST_SYMBOLS,
    MOST_WRITTEN,
    PRODUCT,
    WRITTEN,
    Block,
    Segment,
)
from haversack.tools.codec.delta_words import BYTES, FLOAT32, INT32, KINDS, LEAST_FACTOR, MOST_FACTOR, ONE

NONE = np.zeros((0, 256), np.uint8)
TWO = np.ones((2, 256), np.uint8)


def read(blocks, levels=TWO, old=1000, new=None):
    made = sum(one.length for block in blocks for one in block.segments) if new is None else new
    return delta_plan.read(delta_plan.write(levels, blocks), old, made)


SEGMENTS = st.one_of(
    st.builds(Segment, st.just(COPIED), st.integers(1, 100), st.integers(0, 900)),
    st.builds(
        lambda kind, words, old, table, columns, reach: Segment(
            FIRST_KIND + kind,
            words * KINDS[kind].width,
            old,
            table,
            columns,
            ONE + 77 * KINDS[kind].scaled,
            reach=reach if kind == BYTES and columns else 0,
        ),
        st.integers(0, 7),
        st.integers(1, 12),
        st.integers(0, 900),
        st.integers(0, 1),
        st.integers(0, 9),
        st.integers(0, 2),
    ),
)


@given(st.lists(st.lists(SEGMENTS, max_size=5), max_size=4))
def test_plans_come_back(groups):
    blocks = tuple(Block(tuple(group)) for group in groups)
    found = read(blocks)
    assert found.blocks == blocks
    assert (found.levels == TWO).all()


def test_written_bytes_and_sizes_come_back():
    made = Segment(PRODUCT, 8, 0, 1, 0, ONE + 3, 2, -7)
    assert read([Block((made, Segment(COPIED, 3, 40)))]).blocks[0].segments == (made, Segment(COPIED, 3, 40))
    blocks = (
        Block((Segment(WRITTEN, 7), Segment(WRITTEN, 5)), 12, 20),
        Block((Segment(FIRST_KIND + INT32, 8, 40, 1, 1, ONE - 5),), 0, 0, 3, 1, 2),
    )
    found = read(blocks)
    assert found.blocks == blocks
    assert [block.size for block in found.blocks] == [20, 3 + 4 + 4]
    assert (found.blocks[1].segments[0].words, found.blocks[1].segments[0].rows) == (2, 2)


@pytest.mark.parametrize(
    ("block", "match"),
    [
        (Block((Segment(WRITTEN, 5),), 4), "written"),
        (Block((Segment(WRITTEN, MOST_WRITTEN + 1),), MOST_WRITTEN + 1), "written"),
        (Block((Segment(COPIED, 5, 996),)), "old file"),
        (Block((Segment(COPIED, 5, -1),)), "old file"),
        (Block((Segment(PRODUCT + 1, 5, 0),)), "made in the way"),
        (Block((Segment(PRODUCT, 6, 0, 0, 0, ONE, 1),)), "a product of 6"),
        (Block((Segment(PRODUCT, 8, 0, 2, 0, ONE, 1),)), "table 2"),
        (Block((Segment(PRODUCT, 8, 0, 0, 0, ONE, 1, 129),)), "power 129"),
        (Block((Segment(FIRST_KIND + INT32, 6, 0),)), "words of 4"),
        (Block((Segment(FIRST_KIND + BYTES, 6, 0, 2),)), "table 2"),
        (Block((Segment(FIRST_KIND + BYTES, 6, 0, 0, 2, reach=3),)), "3 tables from one degree"),
        (Block((Segment(FIRST_KIND + FLOAT32, 8, 0, 0, 0, LEAST_FACTOR - 1),)), "factor"),
        (Block((Segment(FIRST_KIND + FLOAT32, 8, 0, 0, 0, MOST_FACTOR + 1),)), "factor"),
        (Block((Segment(FIRST_KIND + BYTES, 6, 0),), lanes=7), "too many"),
        (Block((Segment(FIRST_KIND + BYTES, 6, 0),), words=7, lanes=1), "too many"),
        (Block((Segment(FIRST_KIND + INT32, 4, 0),), bits=9), "too many"),
    ],
)
def test_what_no_plan_says_is_refused(block, match, monkeypatch):
    monkeypatch.setattr(delta_plan, "KINDS", (*KINDS, KINDS[0], KINDS[0]))
    data = delta_plan.write(TWO, [block])
    monkeypatch.undo()
    with pytest.raises(ValueError, match=match):
        delta_plan.read(data, 1000, sum(one.length for one in block.segments))


def test_too_many_symbols_tables_and_another_length_are_refused():
    with pytest.raises(ValueError, match="symbols"):
        read([Block((Segment(FIRST_KIND, MOST_SYMBOLS + 1, 0),))], old=MOST_SYMBOLS + 1)
    with pytest.raises(ValueError, match="tables"):
        read([], np.zeros((delta_plan.MOST_TABLES + 1, 256), np.uint8))
    with pytest.raises(ValueError, match="make 5 bytes of 6"):
        read([Block((Segment(COPIED, 5, 0),))], new=6)
    with pytest.raises(ValueError, match="ends at"):
        delta_plan.read(delta_plan.write(NONE, []) + b"\0", 10, 0)


@given(st.binary(max_size=60))
def test_no_bytes_make_reading_fail(data):
    try:
        found = delta_plan.read(b"\0" + data, 1000, 500)
        assert sum(one.length for block in found.blocks for one in block.segments) == 500
    except ValueError as error:
        assert str(error)


@given(st.integers(0, 2**63 - 1))
def test_numbers_come_back(value):
    data = leb128.number(value)
    assert leb128.read_number(b"x" + data + b"y", 1) == (value, 1 + len(data))
    with pytest.raises(ValueError, match="ends"):
        leb128.read_number(data[:-1], 0)


@pytest.mark.parametrize(("data", "match"), [(b"\x80\0", "longer"), (b"\xff" * 10, "63 bits"), (b"", "ends")])
def test_numbers_that_are_none(data, match):
    with pytest.raises(ValueError, match=match):
        leb128.read_number(data, 0)
