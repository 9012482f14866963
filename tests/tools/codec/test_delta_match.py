"""What is like what: links cover the new file whatever the hints, and tensors are found where they went."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from pairs import TENSORS, changed, drawn, filed

from haversack.base.stored import Stored
from haversack.tools.codec import delta_match, delta_words
from haversack.tools.codec.delta_match import Link


def covered(found, old, new):
    """Say whether links follow each other without gaps, and lie inside the old file."""
    at = 0
    for one in found:
        if one.new != at or one.length <= 0 or (one.old >= 0 and one.old + one.length > len(old)):
            return False
        at += one.length
    return at == len(new)


def test_tensors_are_joined_by_name_with_their_words():
    arrays = drawn()
    old, before = filed(arrays)
    new, after = filed(changed(arrays), b"a longer head")
    found = delta_match.links(old, new, before, after)
    assert covered(found, old, new)
    by_place = {one.new: one for one in found}
    for mine, theirs in zip(before, after, strict=True):
        link = by_place[theirs.start]
        assert (link.old, link.length) == (mine.start, mine.length)
    kinds = {name: by_place[one.start].kind for one in after for name in [one.name]}
    assert (kinds["first"], kinds["scale"], kinds["fours"]) == (
        delta_words.BYTES,
        delta_words.FLOAT32,
        delta_words.NIBBLES,
    )
    assert {one.columns for one in found} == {0, 64, 40, 16}


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_tensors_that_moved_are_found_by_their_words(share):
    arrays = drawn()
    old, before = filed(arrays)
    order = [name for name, _, _ in reversed(TENSORS)]
    new, after = filed(changed(arrays, share=share), order=order, named=lambda name: f"{name} again")
    found = {one.new: one.old for one in delta_match.links(old, new, before, after)}
    places = {one.name: one.start for one in before}
    for one in after:
        assert found[one.start] == places[one.name.removesuffix(" again")]


def test_a_name_that_now_stands_for_another_tensor_is_not_believed():
    random = np.random.default_rng(0)
    arrays = [random.integers(-100, 100, 3000).astype(np.int8) for _ in range(2)]
    old = b"".join(array.tobytes() for array in arrays)
    new = b"".join((array + 1).astype(np.int8).tobytes() for array in reversed(arrays))
    hint = [Stored("a", 0, 3000, "int8", (3000,)), Stored("b", 3000, 3000, "int8", (3000,))]
    assert [(one.new, one.old) for one in delta_match.links(old, new, hint, hint)] == [(0, 3000), (3000, 0)]


def test_a_tensor_that_grew_is_joined_as_far_as_the_old_one_goes():
    random = np.random.default_rng(0)
    old, more = (random.integers(-100, 100, size).astype(np.int8).tobytes() for size in (4000, 400))
    before, after = [Stored("w", 0, 4000, "int8", (100, 40))], [Stored("w", 0, 4400, "int8", (110, 40))]
    found = delta_match.links(old, old + more, before, after)
    assert covered(found, old, old + more)
    assert (found[0].old, found[0].length, found[0].columns) == (0, 4000, 40)


HINTS = st.lists(
    st.builds(
        Stored, st.sampled_from("ab"), st.integers(0, 400), st.integers(0, 300), st.sampled_from(["int8", "int32"])
    ),
    max_size=4,
)


@settings(max_examples=60)
@given(st.binary(max_size=30), st.binary(max_size=30), st.integers(0, 30), HINTS, HINTS)
def test_any_hints_cover_the_new_file(one, two, times, before, after):
    old, new = one * times + two, two + one * times
    found = delta_match.links(old, new, before, after)
    assert covered(found, old, new)
    assert covered(delta_match.merged(found), old, new)


def test_links_that_follow_each_other_are_one():
    given = [Link(0, 4, 10), Link(4, 6, 14), Link(10, 2, 30), Link(12, 3), Link(15, 3), Link(18, 4, 32, columns=2)]
    expected = [Link(0, 10, 10), Link(10, 2, 30), Link(12, 6), Link(18, 4, 32, columns=2)]
    assert delta_match.merged(given) == expected


@given(st.lists(st.tuples(st.integers(1, 30), st.booleans()), max_size=20), st.integers(1, 12))
def test_cuts_where_bytes_are_equal(runs, least):
    old = np.zeros(sum(length for length, _ in runs), np.uint8)
    new = np.concatenate([np.zeros(0, np.uint8), *(np.full(length, equal, np.uint8) for length, equal in runs)])
    found = delta_match.same(old, new, least)
    assert [start for start, _, _ in found] == [0, *(end for _, end, _ in found)][: len(found)]
    assert found[-1][1] == len(new)
    for start, end, equal in found:
        assert not (equal and new[start:end].any())
        assert not equal or end - start >= least or not new.any()
