"""Models: every byte has one, tables are named by first use, and they code what was counted for them."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.stored import Stored
from haversack.tools.codec import models, plan, tables
from haversack.tools.codec.plan import FIRST_TABLE, Grid, Product, Run


def check(content):
    cut, levels = models.fit(content)
    runs = [run for segment in cut for run in segment]
    seen = np.zeros(len(content), np.int64)
    for run in runs:
        seen[run.place] += 1
    assert (seen == 1).all()
    data = np.frombuffer(content, np.uint8)
    named = list(dict.fromkeys(run.model for run in runs if run.model >= FIRST_TABLE))
    assert sorted(named) == [FIRST_TABLE + index for index in range(len(levels))]
    frequencies = tables.to_frequencies(levels)
    for run in runs:
        assert run.model < FIRST_TABLE or frequencies[run.model - FIRST_TABLE][data[run.place]].all()
    return runs, frequencies


@given(st.one_of(st.binary(max_size=3000), st.lists(st.sampled_from([0, 0, 0, 1, 255]), max_size=9000).map(bytes)))
def test_every_byte_has_a_model(content):
    runs, frequencies = check(content)
    assert bool(runs) == bool(content)
    assert frequencies.shape[1] == 256


def test_a_models_file(model_file):
    runs, frequencies = check(model_file)
    assert {run.stride for run in runs} >= {1, 4}
    assert {0, 1, 2} <= {run.model for run in runs}
    data = np.frombuffer(model_file, np.uint8)
    bits = sum(
        math.log2(16384 / count)
        for run in runs
        if run.model >= FIRST_TABLE
        for count in frequencies[run.model - FIRST_TABLE][data[run.place]].tolist()
    )
    # Two layers at the entropy of their bell curves, log2(spread) + 2.05, and the high bytes of floats.
    assert bits / 8 < 30_000 * (math.log2(12) + 2.05) / 8 + 20_000 * (math.log2(40) + 2.05) / 8 + 2500 * 1.6


def test_tables_in_the_order_of_their_use(bell, floats):
    cut, _ = models.fit(bell(9000, 3) + floats(3000) + bell(9000, 60) + bell(9000, 3, 1))
    used = list(dict.fromkeys(run.model for segment in cut for run in segment if run.model >= FIRST_TABLE))
    assert used == sorted(used)
    assert cut[0][0].model == cut[-1][0].model == FIRST_TABLE


def entries_of(content, tensors):
    """Return all runs, grids and products of a file; every byte is in one, and every coded byte has a frequency."""
    cut, levels = models.fit(content, tensors)
    found = [each for segment in cut for each in (segment if isinstance(segment, tuple) else (segment,))]
    seen, data = np.zeros(len(content), np.int64), np.frombuffer(content, np.uint8)
    frequencies = tables.to_frequencies(levels)
    starts = []
    for segment in cut:
        first = segment[0] if isinstance(segment, tuple) else segment
        starts.append((first.start, first.stop))
    assert [start for start, _ in starts] == [0, *(stop for _, stop in starts[:-1])][: len(starts)]
    for each in found:
        seen[each.place if isinstance(each, Run) else slice(each.start, each.stop)] += 1
        if each.coded:
            for place, numbers in each.pieces(1 << 20):
                assert frequencies[numbers, data[place]].all()
    assert (seen == 1).all()
    assert len(levels) <= plan.MOST_TABLES
    return found


def test_what_tensors_are_good_for(layers):
    content, tensors = layers
    found = entries_of(content, tensors)
    weights = {each.start for each in tensors if each.name.endswith("weight")}
    assert {each.start for each in found if isinstance(each, Grid)} == weights
    pairs = {(each.start, each.source) for each in found if isinstance(each, Product)}
    starts = {each.name: each.start for each in tensors}
    assert pairs == {
        (starts[f"layer{index}.scale"], starts[f"layer{index}.bias/scale"]) for index in range(3)
    } or pairs == {(starts[f"layer{index}.bias/scale"], starts[f"layer{index}.scale"]) for index in range(3)}


def test_tensors_of_words_are_cut_where_they_begin(bell, floats):
    text = b"".join(f"name{index};".encode() for index in range(400))
    content = text + floats(3000) + text + floats(3000, 1) + bell(5000, 9)
    at = [len(text), 2 * len(text) + 12_000]
    tensors = [Stored(f"t{start}", start, 12_000, "float32", (3000,)) for start in at]
    runs = entries_of(content, tensors)
    assert {run.stride for run in runs if at[0] <= run.start < at[0] + 12_000} == {4}
    assert {run.stop for run in runs} >= {at[0], at[0] + 12_000, at[1], at[1] + 12_000}


somewhere = st.builds(
    lambda start, length, dtype, shape: Stored("t", start, length, dtype, shape),
    st.integers(-100, 5000),
    st.integers(-100, 6000),
    st.sampled_from(["int4", "int8", "uint8", "int16", "float32", "int32", "int64", "blocks"]),
    st.lists(st.integers(-2, 90), max_size=4).map(tuple),
)


@given(
    st.lists(somewhere, max_size=8),
    st.one_of(st.binary(max_size=3000), st.lists(st.sampled_from([0, 0, 1, 255]), max_size=5000).map(bytes)),
)
def test_wrong_tensors_do_no_harm(tensors, content):
    assert bool(entries_of(content, tensors)) == bool(content)


def test_far_too_many_tensors(monkeypatch, floats):
    content = floats(6000)
    tensors = [Stored(f"t{start}", start, 32, "float32", (8,)) for start in range(0, 24_000, 40)]
    assert len(models.fit(content, tensors)[0]) > 1000
    monkeypatch.setattr(plan, "MOST_SEGMENTS", 1000)
    cut, levels = models.fit(content, tensors)
    assert (cut, levels.tolist()) == (models.fit(content)[0], models.fit(content)[1].tolist())
