"""What of an old file is like what of a new one: every link covers its bytes, by name, content, likeness or search."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.base.stored import WIDTHS, Stored
from haversack.tools.codec import delta_match
from haversack.tools.codec.delta_match import LEAST, Link
from haversack.tools.codec.delta_words import BYTES, FLOAT16, FLOAT32, FLOAT64, INT16, INT32, INT64, NIBBLES

KIND_OF = {
    "int4": NIBBLES, "int8": BYTES, "uint8": BYTES, "blocks": BYTES, "int16": INT16, "int32": INT32, "int64": INT64,
    "float16": FLOAT16, "bfloat16": FLOAT16, "float32": FLOAT32, "float64": FLOAT64,
}  # fmt: skip


def smooth(seed, count=256, spread=20):
    """Return bytes of a tensor of int8 that another of its seed is alike to, and hardly any else."""
    return np.clip(np.random.default_rng(seed).normal(0, spread, count), -120, 120).astype(np.int8)


def nudged(array, seed=9):
    return (array + np.random.default_rng(seed).integers(-1, 2, array.size)).astype(np.int8)


def laid(*parts, head=b"head"):
    """Return (a file of named arrays behind a head, where they are)."""
    data, where = head, []
    for name, array in parts:
        where.append(Stored(name, len(data), array.nbytes, str(array.dtype), array.shape))
        data += array.tobytes()
    return data, where


def covered(found, size):
    """Say whether links cover a file of so many bytes, in its order, each byte once."""
    at = 0
    for one in found:
        if one.new != at or one.length <= 0:
            return False
        at += one.length
    return at == size


def of_tensor(found, one):
    return [link for link in found if link.new == one.start]


def test_every_dtype_has_words_of_its_width():
    assert set(KIND_OF) == set(WIDTHS)
    for dtype, kind in KIND_OF.items():
        array = np.arange(64, dtype=np.uint8)
        old = [Stored("w", 0, 64, dtype)]
        (found,) = delta_match.links(array.tobytes(), (array + 1).tobytes(), old, old)
        assert found == Link(0, 64, 0, kind, 0)


def test_a_name_joins_before_anything_else():
    one, two = smooth(1), smooth(2)
    old, before = laid(("a", one), ("b", two))
    new, after = laid(("b", nudged(two)), ("a", nudged(one)))
    found = delta_match.links(old, new, before, after)
    assert covered(found, len(new))
    assert of_tensor(found, after[0])[0].old == before[1].start
    assert of_tensor(found, after[1])[0].old == before[0].start


def test_equal_bytes_join_whatever_the_names():
    one, two = smooth(1), smooth(2)
    old, before = laid(("a", one), ("b", two))
    new, after = laid(("a", two), ("b", one))
    found = delta_match.links(old, new, before, after)
    assert [of_tensor(found, each)[0].old for each in after] == [before[1].start, before[0].start]


def test_of_equal_tensors_the_one_of_the_name_is_taken():
    one = smooth(1)
    old, before = laid(("a", one), ("b", one), ("c", one))
    for name, place in (("b", 1), ("c", 2), ("a", 0), ("other", 0)):
        new, after = laid((name, one))
        assert of_tensor(delta_match.links(old, new, before, after), after[0])[0].old == before[place].start


def test_a_tensor_of_another_name_is_found_by_its_words():
    arrays = [smooth(seed) for seed in range(5)]
    old, before = laid(*((f"t{at}", one) for at, one in enumerate(arrays)))
    new, after = laid(("renamed", nudged(arrays[3])))
    assert of_tensor(delta_match.links(old, new, before, after), after[0])[0].old == before[3].start


def test_a_name_that_is_wrong_joins_nothing_that_is_not_alike():
    one, two = smooth(1), smooth(2)
    old, before = laid(("a", one), ("b", two))
    new, after = laid(("a", nudged(two)))
    assert of_tensor(delta_match.links(old, new, before, after), after[0])[0].old == before[1].start


def test_a_name_of_another_dtype_joins_nothing():
    array = smooth(1)
    old, before = laid(("a", array))
    told = [Stored("a", before[0].start, 256, "float32")]
    found = delta_match.links(old, laid(("a", nudged(array)))[0], told, before)
    assert all(link.columns == 0 for link in found)
    assert all(link.kind == BYTES for link in found)


def test_of_a_tensor_that_grew_the_part_that_was_there_is_joined():
    array = smooth(1, 400)
    old, before = laid(("a", array[:300]))
    new, after = laid(("a", nudged(array)))
    found = delta_match.links(old, new, before, after)
    assert of_tensor(found, after[0])[0] == Link(after[0].start, 300, before[0].start)
    assert covered(found, len(new))


@pytest.mark.parametrize(
    ("dtype", "shape", "length", "columns"),
    [
        ("int8", (), 64, 0),
        ("int8", (64,), 64, 0),
        ("int8", (8, 8), 64, 8),
        ("int8", (4, 2, 2, 4), 64, 16),
        ("int8", (1, 16, 4), 64, 4),
        ("int8", (1, 64), 64, 0),
        ("int8", (64, 1), 64, 1),
        ("float32", (4, 4), 64, 4),
        ("int4", (8, 16), 64, 8),
        ("int4", (8, 15), 64, 8),
        ("int8", (1, 1, 1 << 40), 64, 0),
        ("int8", (2, 1 << 40), 64, 0),
        ("int8", (2, 0), 64, 0),
    ],
)
def test_a_row_is_what_one_output_reads(dtype, shape, length, columns):
    one = [Stored("w", 0, length, dtype, shape)]
    old = np.arange(length, dtype=np.uint8)
    (found,) = delta_match.links(old.tobytes(), (old + 1).tobytes(), one, one)
    assert found.columns == columns


@pytest.mark.parametrize(
    "hint",
    [
        Stored("a", 0, LEAST - 1, "int8"),
        Stored("a", -8, 64, "int8"),
        Stored("a", 0, 10_000, "int8"),
        Stored("a", 1 << 60, 64, "int8"),
        Stored("a", 0, 63, "int16"),
        Stored("a", 0, 60, "float64"),
        Stored("a", 0, 0, "int8"),
    ],
)
def test_hints_that_cannot_be_join_nothing(hint):
    data = bytes(range(200))
    (found,) = delta_match.merged(delta_match.links(data, data, [hint], [hint]))
    assert found == Link(0, 200, 0)


def test_of_hints_one_over_the_other_the_first_is_taken():
    data = bytes(range(200))
    hints = [Stored("b", 32, 64, "int16"), Stored("a", 0, 64, "int32")]
    found = delta_match.links(data, data, hints, hints)
    assert (found[0].length, found[0].kind) == (64, INT32)
    assert INT16 not in {one.kind for one in found}


HINTS = st.lists(
    st.builds(
        Stored,
        st.sampled_from(["a", "b"]),
        st.integers(-5, 260),
        st.integers(0, 200),
        st.sampled_from(sorted(WIDTHS)),
        st.lists(st.integers(0, 40), max_size=3).map(tuple),
    ),
    max_size=4,
)


@settings(max_examples=40)
@given(st.binary(max_size=40), st.integers(0, 8), st.binary(max_size=40), st.integers(0, 8), HINTS, HINTS)
def test_links_cover_the_new_file_and_stay_inside_the_old_one(one, times, two, more, before, after):
    old, new = one * times + two, two * more + one
    found = delta_match.links(old, new, before, after)
    assert covered(found, len(new))
    assert all(link.old == -1 or 0 <= link.old <= len(old) - link.length for link in found)
    joined = delta_match.merged(found)
    assert covered(joined, len(new))
    assert len(joined) <= len(found)


@settings(max_examples=40)
@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 12))
def test_runs_of_equal_bytes_are_cut_as_a_plain_scan_cuts_them(equal, least):
    old = np.zeros(len(equal), np.uint8)
    new = np.array([0 if each else 1 for each in equal], np.uint8)
    found = delta_match.same(old, new, least)
    assert found[0][0] == 0
    assert found[-1][1] == len(equal)
    assert all(one[1] == two[0] for one, two in itertools.pairwise(found))
    for start, end, alike in found:
        assert start < end
        assert not alike or all(equal[start:end])
        assert alike or not all(equal[start:end])
        assert not alike or end - start >= least or (start, end) == (0, len(equal))
    inner = [("".join("01"[each] for each in equal[start:end])) for start, end, alike in found if not alike]
    assert all("1" * (least + 1) not in run for run in inner)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), min_size=1, max_size=5), st.data())
def test_places_are_those_of_the_bytes_laid_end_to_end(gaps, data):
    spans, at = [], 0
    for gap, length in gaps:
        spans.append((at + gap, at + gap + length))
        at += gap + length
    flat = [place for start, end in spans for place in range(start, end)]
    places = delta_match._Places(spans)
    first = data.draw(st.integers(0, len(flat) - 1))
    count = data.draw(st.integers(0, len(flat) - first))
    told = [start + step for start, length in places.pieces(first, count) for step in range(length)]
    assert told == flat[first : first + count]
    assert [places.before(place) for place in flat] == list(range(len(flat)))


def test_links_are_joined_only_where_both_files_go_on():
    a, b = Link(0, 4, 10), Link(4, 4, 14)
    assert delta_match.merged([a, b]) == [Link(0, 8, 10)]
    assert delta_match.merged([Link(0, 4), Link(4, 2), Link(6, 1)]) == [Link(0, 7)]
    for other in (Link(4, 4, 15), Link(4, 4), Link(4, 4, 14, INT32), Link(4, 4, 14, BYTES, 2)):
        assert delta_match.merged([a, other]) == [a, other]
    assert delta_match.merged([Link(0, 4, 10, INT32), Link(4, 4, 14, INT32)]) == [
        Link(0, 4, 10, INT32),
        Link(4, 4, 14, INT32),
    ]
    assert delta_match.merged([]) == []


def test_a_file_that_is_new_all_over_is_linked_to_nothing():
    assert delta_match.links(b"", b"abc" * 20, (), ()) == [Link(0, 60)]
    assert delta_match.links(b"abc" * 20, b"", (), ()) == []
