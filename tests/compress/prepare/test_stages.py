"""Rows that join on the way: as many as fit are there, evenly spread, and none twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from few_codes import error, images, narrow, stored
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from haversack.base.encodings import Encodings
from haversack.compress.prepare import stages
from haversack.compress.prepare.adaround import Adaround
from haversack.compress.prepare.contract import PrepareContext
from haversack.compress.prepare.gptq import Gptq
from haversack.compress.prepare.stages import staged
from haversack.tools.data.stock import Stock
from haversack.tools.graph.simulate import Simulator

WIDE, HEAD = 4 * 2 * 81 * (3 + 12), 4 * 2 * 12
"""Bytes of a row of ``Narrowing`` in both runs: the input and what the first layer gives; what the head reads."""


class Narrowing(nn.Module):
    """Large activations first, a vector then."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(3, 12, 3, padding=1)
        self.head = nn.Linear(12, 6)
        self.last = nn.Linear(6, 4)

    def forward(self, x):
        return self.last(torch.relu(self.head(torch.relu(self.wide(x)).mean(dim=(2, 3)))))


@pytest.fixture(scope="module")
def narrowing(make_model):
    torch.manual_seed(4)
    return make_model(Narrowing(), (3, 9, 9))


@pytest.mark.parametrize(
    "fits, expected",
    [
        ([64, 64], [(0, 8)]),  # all fit everywhere
        ([8, 8], [(0, 1)]),
        ([3, 3], [(0, 1)]),  # one batch at the least
        ([8, 64], [(0, 1), (1, 7)]),
        ([64, 8, 64], [(0, 1), (2, 7)]),  # what comes later binds what begins
        ([32, 40, 48, 64], [(0, 4), (2, 2), (3, 2)]),  # five for four are not worth a pass
        ([], [(0, 8)]),
    ],
)
def test_batches_join_where_they_fit(fits, expected):
    found = stages._schedule([8] * 8, fits)
    assert [(place, len(chosen)) for place, chosen in found] == expected


@given(
    lengths=st.lists(st.integers(1, 8), max_size=20),
    fits=st.lists(st.integers(0, 200), max_size=12),
)
def test_no_batch_is_there_twice_and_all_that_are_there_fit(lengths, fits):
    found = stages._schedule(lengths, fits)
    assert found[0][0] == 0
    assert [place for place, _ in found] == sorted({place for place, _ in found})
    every = [index for _, chosen in found for index in chosen]
    assert len(every) == len(set(every))
    assert set(every) <= set(range(len(lengths)))
    assert bool(every) == bool(lengths)
    for at, most in enumerate(fits):
        there = [index for place, chosen in found if place <= at for index in chosen]
        assert sum(lengths[index] for index in there) <= most or len(there) <= 1


def test_what_begins_is_spread_over_the_samples():
    assert stages._schedule([8] * 8, [16, 64])[0][1] == {2, 6}


def held(narrowing, megabytes, wanted=64, samples=None):
    stock = Stock.of(narrowing.inputs, lambda: images(1) if samples is None else samples)
    return staged(narrowing, Encodings.none(), stock, wanted, megabytes)


def test_a_network_that_narrows_takes_more_rows_behind_its_wide_part(narrowing):
    found = held(narrowing, 16 * WIDE / 1e6)
    assert found.rows == (16, 64)
    (key,) = found.joins
    assert key == "head:linear#0"
    assert sum(len(batch[0]) for batch in found.joins[key]()) == 48
    rows = np.concatenate([batch[0] for batch in [*found.begin, *found.joins[key]()]])
    every = np.concatenate([batch[0] for batch in images(1)])
    assert sorted(row.tobytes() for row in rows) == sorted(row.tobytes() for row in every)


def test_sizes_are_those_of_the_longest_samples(make_model):
    model = make_model(nn.Sequential(nn.Conv1d(2, 3, 2)), (2, 6))
    samples = [(np.zeros((8, 2, length), np.float32),) for length in (6, 60, 6)]
    short, long = (held(model, 8 * 4 * 2 * 3 * (length - 1) / 1e6, 24, samples).rows[1] for length in (6, 60))
    assert (short, long) == (8, 8)
    assert held(model, 24 * 4 * 2 * 5 * 60 / 1e6, 24, samples).rows == (24, 24)


class TimeFirst(nn.Module):
    """Works on [time, batch, …]: the first axis of what its nodes make is not the batch."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.two(torch.relu(self.one(x.transpose(0, 1)))).mean(dim=0)


def test_rows_are_the_batchs_wherever_its_axis_lies(make_model):
    model = make_model(TimeFirst(), (40, 4))
    samples = [(np.zeros((8, 40, 4), np.float32),)] * 4
    widest = 2 * 4 * 40 * (4 + 16)  # what the first layer reads and, behind its relu, gives: in both runs
    assert held(model, 32 * widest / 1e6, 32, samples).rows == (32, 32)
    assert held(model, 16 * widest / 1e6, 32, samples).rows[0] == 16


def test_few_rows_at_the_first_layers_are_told(narrowing):
    told = []
    context = PrepareContext(lambda: images(1), narrow(narrowing), tell=told.append)
    Gptq(samples=64, megabytes=8 * WIDE / 1e6).apply(narrowing, context)
    (finding,) = [one for one in told if one.kind == "few-samples"]
    assert finding.text.startswith("8 calibration samples to round by, as memory holds no more of 64")


@pytest.mark.parametrize("part", [Gptq, Adaround])
def test_rows_that_join_leave_less_error_than_those_that_begin(narrowing, part):
    """Two bits: what the late layers lose on samples that nobody saw is less for the rows that joined."""
    encodings, fresh = narrow(narrowing, 2), images(2)

    def lost(**settings):
        context = PrepareContext(lambda: images(1), encodings)
        after = part(**settings).apply(narrowing, context)
        return after.notes[-1], error(after, stored(after, encodings), narrowing, fresh)

    few_note, few = lost(samples=8)
    more_note, more = lost(samples=64, megabytes=8 * WIDE / 1e6)
    name = part.__module__.rpartition(".")[2]
    assert (few_note, more_note) == (f"{name}: 3 layers, 8 samples", f"{name}: 3 layers, 8 to 64 samples")
    assert more < few


def test_where_all_fit_nothing_joins(narrowing):
    assert (held(narrowing, 64 * WIDE / 1e6).joins, held(narrowing, 1.0, wanted=1).rows) == ({}, (8, 8))


def test_a_graph_without_units_keeps_its_batches(make_model):
    model = make_model(nn.Identity(), (3,))
    found = held(model, 1.0, 16, [(np.zeros((16, 3), np.float32),)])
    assert (found.rows, dict(found.joins)) == ((16, 16), {})


def test_the_run_holds_what_joined_behind_the_rest(narrowing):
    found = held(narrowing, 16 * WIDE / 1e6)
    (outputs, again) = (
        np.concatenate([row[0] for row in Simulator(narrowing).run(Encodings.none(), begin, joins=joins)])
        for begin, joins in (
            (found.begin, found.joins),
            ([*found.begin, *found.joins["head:linear#0"]()], None),
        )
    )
    np.testing.assert_array_equal(outputs, again)
