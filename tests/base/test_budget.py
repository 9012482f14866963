"""Budgets as a user types them: every unit, every fault, all faults at once."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.budget import BYTE_UNITS, EXAMPLE, Budget, check_unit, parse
from haversack.base.errors import UsageError


@pytest.mark.parametrize(
    "text, expected",
    [
        ("size=5.2MB", Budget(size=5_200_000)),
        ("size=2.3MB", Budget(size=2_300_000)),  # 2.3 * 10**6 is 2299999.9999999995 in binary
        ("size=1b", Budget(size=1)),
        ("size=1kb", Budget(size=1000)),
        ("size=1KiB", Budget(size=1024)),
        ("size=1.5MiB", Budget(size=1_572_864)),
        ("size=.5GB", Budget(size=500_000_000)),
        ("size=2GIB", Budget(size=2_147_483_648)),
        ("size=1e3MB", Budget(size=1_000_000_000)),
        ("download=3MB", Budget(download=3_000_000)),
        ("memory=40MB", Budget(memory=40_000_000)),
        ("latency=12.5ms", Budget(latency_ms=12.5)),
        ("latency=0.55x", Budget(latency_ratio=0.55)),
        ("latency=9ms,latency=0.5x", Budget(latency_ms=9.0, latency_ratio=0.5)),
        ("drop=1pt", Budget(drop=0.01)),
        ("drop=0pt", Budget(drop=0.0)),
        ("drop=0.3", Budget(drop=0.3)),
        (" size = 1MB , drop = 2pt ,", Budget(size=1_000_000, drop=0.02)),
        (
            "size=5.2MB,latency=0.55x,memory=40MB,drop=1pt",
            Budget(size=5_200_000, memory=40_000_000, latency_ratio=0.55, drop=0.01),
        ),
    ],
)
def test_reads(text, expected):
    assert parse(text) == expected


def test_bytes_are_whole_numbers():
    budget = parse("size=5.2MB,download=1.1MB,memory=3.7GB")
    assert [type(value) for value in (budget.size, budget.download, budget.memory)] == [int, int, int]


@pytest.mark.parametrize(
    "text, cause",
    [
        ("size", "size: has no value (write name=value)"),
        ("siz=5MB", "siz: no such budget (one of size, download, memory, latency, drop); did you mean size?"),
        ("colour=red", "colour: no such budget (one of size, download, memory, latency, drop)"),
        ("size=5", "size: it has no unit: bytes as KB"),
        ("size=5ms", "size: the unit ms does not fit: bytes as KB"),
        ("latency=5", "latency: it has no unit: ms, or x"),
        ("latency=5s", "latency: the unit s does not fit: ms, or x"),
        ("drop=1%", "drop: the unit % does not fit: pt"),
        ("drop=1x", "drop: the unit x does not fit: pt"),
        ("size=-5MB", "size: '-5MB' is not a non-negative number with a unit"),
        ("size=MB", "size: 'MB' is not a non-negative number with a unit"),
        ("size=", "size: '' is not a non-negative number with a unit"),
        ("size=nanMB", "size: 'nanMB' is not a non-negative number"),
        ("size=0MB", "size: '0MB' is no limit that anything can meet"),
        ("size=0.4B", "size: '0.4B' is no limit that anything can meet"),
        ("latency=0x", "latency: '0x' is no limit that anything can meet"),
        ("memory=1e999GB", "memory: '1e999GB' is no limit that anything can meet"),
        ("size=1MB,size=2MB", "size: is given twice"),
        ("latency=1ms,latency=2ms", "latency: is given twice"),
        ("=5MB", "=5MB: no such budget"),
    ],
)
def test_refuses(text, cause):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert f"  - {cause}" in str(caught.value)
    assert len(caught.value.faults) == 1


def test_all_faults_are_told_at_once_with_the_place_and_an_example():
    with pytest.raises(UsageError) as caught:
        parse("siz=5MB,latency=fast,size=1MB,drop=1x,memory")
    assert [fault.where for fault in caught.value.faults] == ["siz", "latency", "drop", "memory"]
    assert caught.value.where == "--budget"
    assert caught.value.next_step == EXAMPLE
    assert caught.value.exit_code == 2


def test_the_example_is_one_that_can_be_read():
    limits = parse(EXAMPLE.removeprefix("--budget ")).limits()
    assert limits == {"size": 5_200_000, "memory": 40_000_000, "latency_ratio": 0.55, "drop": 0.01}


def test_limits_names_only_what_is_set():
    assert Budget().limits() == {}
    assert Budget(size=3, drop=0.0).limits() == {"size": 3, "drop": 0.0}


@given(st.integers(1, 8 * 10**6), st.sampled_from(sorted(BYTE_UNITS)), st.sampled_from(["size", "download", "memory"]))
def test_whole_amounts_of_every_unit_are_exact(count, unit, name):
    assert parse(f"{name}={count}{unit}").limits() == {name: count * BYTE_UNITS[unit]}


@given(st.floats(min_value=1e-6, max_value=1e6))
def test_latency_and_drop_keep_their_number(value):
    budget = parse(f"latency={value!r}x,drop={value!r}")
    assert budget.latency_ratio == value
    assert budget.drop == value


@given(st.text(max_size=30))
def test_any_text_is_a_budget_or_a_usage_error(text):
    try:
        budget = parse(text)
    except UsageError as error:
        assert error.faults or error.cause == "it limits nothing"
    else:
        assert all(math.isfinite(value) and value >= 0 for value in budget.limits().values())


@pytest.mark.parametrize("text", ["drop=1", "size=5MB, drop = 2.5", "drop=1e1"])
def test_a_bare_drop_of_a_whole_fraction_is_refused_with_the_unit_that_was_meant(text):
    parse(text)
    with pytest.raises(UsageError, match="would allow any loss: top1 is a fraction") as caught:
        check_unit(text, "fraction", "top1")
    assert re.search(r"drop=(1|2.5|10)pt", caught.value.next_step)


@pytest.mark.parametrize("text, unit", [("drop=0.5", "fraction"), ("drop=100pt", "fraction"), ("drop=1", "nats")])
def test_other_drops_are_in_a_unit_that_fits(text, unit):
    check_unit(text, unit, "m")
    assert parse(text).drop in (0.5, 1.0)


@pytest.mark.parametrize("text", ["", " ", ",", " , ,"])
def test_a_budget_that_limits_nothing_is_refused(text):
    with pytest.raises(UsageError, match="it limits nothing") as caught:
        parse(text)
    assert (caught.value.where, caught.value.next_step) == ("--budget", EXAMPLE)


def test_percent_are_told_what_to_write():
    with pytest.raises(UsageError, match="drop=1pt"):
        parse("drop=1%")
    with pytest.raises(UsageError, match="the unit % does not fit"):
        parse("size=50%")
