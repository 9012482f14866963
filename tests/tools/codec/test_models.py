"""Models: every byte has one, tables are named by first use, and they code what was counted for them."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from haversack.tools.codec import models, tables
from haversack.tools.codec.plan import FIRST_TABLE


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
