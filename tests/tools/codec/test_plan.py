"""The plan: directories that come back, and every way in which one may be malformed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.tools.codec import plan
from haversack.tools.codec.plan import Run

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
    directory = plan.write(cut)
    assert len(directory) <= len(cut) * plan.MOST_ENTRY
    assert plan.read(directory, len(cut), size, TABLES, 1) == [run for runs in cut for run in runs]


def test_a_run_is_every_so_manieth_byte():
    run = Run(start=10, stop=21, stride=4, model=0)
    assert len(run) == 3
    assert list(range(30))[run.place] == [10, 14, 18]
    assert len(Run(23, 21, 4, 0)) == 0


def test_by_hand():
    cut = [(Run(0, 300, 1, 130),), (Run(300, 302, 2, 0), Run(301, 302, 2, 1))]
    assert plan.write(cut) == bytes([0xAC, 0x02, 1, 0x82, 0x01, 2, 2, 0, 1])


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
