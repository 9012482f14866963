"""Segments: without gaps, where the statistics change, at the stride that the numbers have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.tools.codec import entropy, segments


def check_whole(found, size):
    """Return how many segments there are, all of them without gaps."""
    assert [each.start for each in found] == np.cumsum([0, *(each.length for each in found)])[:-1].tolist()
    assert sum(each.length for each in found) == size
    assert all(each.length > 0 and each.stride in {0, 1, 2, 4} for each in found)
    return len(found)


@given(st.binary(max_size=5000))
def test_any_bytes_are_cut_without_gaps(content):
    assert check_whole(segments.cut(content), len(content)) <= len(content) // 1024 + 1


def test_a_models_file(model_file):
    found = segments.cut(model_file)
    check_whole(found, len(model_file))
    assert found == segments.cut(model_file)
    assert len(found) < 20


def test_nothing_and_a_byte():
    assert segments.cut(b"") == ()
    assert [(each.start, each.length) for each in segments.cut(b"x")] == [(0, 1)]


def test_two_layers_are_two_segments(bell):
    found = segments.cut(bell(40_000, 3) + bell(40_000, 40, 1))
    assert len(found) == 2
    assert abs(found[1].start - 40_000) <= 1024
    assert {each.stride for each in found} == {1}


def test_one_layer_is_one_segment(bell):
    assert [(each.length, each.stride) for each in segments.cut(bell(100_000, 20))] == [(100_000, 1)]


def test_floats_have_a_model_for_each_byte(floats):
    assert [each.stride for each in segments.cut(floats(20_000))] == [4]


def test_half_floats_have_two():
    drawn = np.random.default_rng(0).normal(0, 0.01, 20_000).astype(np.float16).tobytes()
    assert [each.stride for each in segments.cut(drawn)] == [2]


def test_text_is_left_to_zstandard(bell):
    text = "".join(f"module.{index}.conv:conv2d#0:weight/codes;" for index in range(300)).encode()
    found = segments.cut(text + bell(30_000, 20))
    assert found[0].stride == segments.MATCHED
    assert abs(found[0].length - len(text)) <= 1024
    assert found[-1].stride == 1


def test_what_repeats_from_far_away_is_left_to_zstandard(bell):
    again = bell(4096, 3)  # no kilobyte of it repeats anything by itself
    found = segments.cut(again + bell(8192, 40, 1) + again + again)
    assert found[0].stride == 1
    assert (found[-1].start, found[-1].stride) == (3 * 4096, segments.MATCHED)


def test_large_files_have_larger_blocks(monkeypatch, bell):
    content = bell(100_000, 5) + bell(100_000, 40, 1)
    monkeypatch.setattr(segments, "_MOST_BLOCKS", 20)
    found = segments.cut(content)
    check_whole(found, len(content))
    assert len(found) == 2
    assert found[1].start % 16384 == 0


@pytest.mark.parametrize("rounds", [0, 200])
def test_pairs_that_save_the_same_are_merged_together(monkeypatch, rounds):
    turns = []
    bits = segments._bits
    monkeypatch.setattr(segments, "_ROUNDS", rounds)
    monkeypatch.setattr(segments, "_bits", lambda *given: turns.append(1) or bits(*given))
    assert [(each.start, each.length) for each in segments.cut(bytes(2_000_000))] == [(0, 2_000_000)]
    assert len(turns) < 20


@pytest.mark.parametrize("distinct", [1, 2, 256])
def test_a_table_costs_by_its_symbols(distinct):
    counts = np.zeros((3, 256), np.int64)
    counts[:, :distinct] = 7
    bits = segments.model_bits(counts)
    assert bits.shape == (3,)
    assert set((bits / entropy.UNIT).tolist()) == {80 + 4 * distinct}
