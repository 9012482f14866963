"""Tensors in order, inside the file, none over another: held against a plain model of the rule, byte by byte."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.base.stored import WIDTHS, Stored
from haversack.tools.formats.placed import placed, stored

ANY = st.builds(
    Stored,
    st.sampled_from(["a", "b", "c"]),
    st.integers(-4, 40),
    st.integers(-4, 24),
    st.sampled_from(["int8", "int16", "float32", "int64", "int4", "blocks"]),
)


def plain(found, size):
    """Return what is kept, as the docstring says it, one byte after the other."""
    taken, kept = set(), []
    for one in sorted(found, key=lambda each: (each.start, -each.length)):
        own = range(one.start, one.start + one.length)
        if not own or own[0] < 0 or own[-1] >= size or len(own) % WIDTHS[one.dtype]:
            continue
        if taken.isdisjoint(own):
            taken |= set(own)
            kept.append(one)
    return kept


@settings(max_examples=60)
@given(st.lists(ANY, max_size=9), st.integers(0, 40))
def test_what_is_kept_is_what_the_rule_keeps(found, size):
    kept = placed(found, size)
    wanted = plain(found, size)
    assert [(one.start, one.length) for one in kept] == [(one.start, one.length) for one in wanted]
    assert [one.name.partition("#")[0] for one in kept] == [one.name for one in wanted]
    assert [(one.dtype, one.shape) for one in kept] == [(one.dtype, one.shape) for one in wanted]


@settings(max_examples=40)
@given(st.lists(ANY, max_size=9), st.integers(0, 40))
def test_what_is_kept_once_is_kept_again(found, size):
    kept = placed(found, size)
    assert [one.start for one in placed(kept, size)] == [one.start for one in kept]
    assert placed(iter(found), size) == kept


@settings(max_examples=60)
@given(
    st.integers(0, 64),
    st.sampled_from(sorted(WIDTHS)),
    st.lists(st.integers(-2, 9) | st.sampled_from([1 << 40, 1 << 63]), max_size=18),
)
def test_a_shape_is_kept_only_where_its_words_are_there(length, dtype, shape):
    one = stored("w", 3, length, dtype, tuple(shape))
    assert (one.name, one.start, one.length, one.dtype) == ("w", 3, length, dtype)
    assert one.shape in {(), tuple(shape)}
    count = 1
    for axis in shape:
        count *= axis
    words = length // WIDTHS[dtype] * (2 if dtype == "int4" else 1)
    if one.shape:
        assert min(shape) > 0
        assert len(shape) <= 16
        assert dtype == "blocks" or words - (dtype == "int4") <= count <= words
    elif shape and min(shape) > 0 and len(shape) <= 16:
        assert (max(shape) > words) if dtype == "blocks" else count != words


def test_a_name_is_cut_and_keeps_its_number():
    long = stored("n" * 3000, 0, 1, "int8", ())
    again = stored("n" * 2000, 1, 1, "int8", ())
    assert [one.name for one in placed([long, again], 2)] == ["n" * 1024, "n" * 1024 + "#1"]


def test_the_longest_of_those_that_begin_together_is_kept():
    kept = placed([Stored("short", 0, 4, "int8"), Stored("long", 0, 8, "int8"), Stored("in", 4, 4, "int8")], 8)
    assert [one.name for one in kept] == ["long"]
