"""Forecasts of transfers, and what is chosen by them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.release import Blob
from haversack.deliver import bandwidth
from haversack.deliver.bandwidth import Allowed, Choice, Past, Transfer, cheapest, choose

FULL = Blob("a" * 64, 4_000_000, "download")
DELTA = Blob("b" * 64, 500_000, "hvd1", "c" * 64)


def past(rate, wait=0.0, **work):
    return Past(transfers=(Transfer(1_000_000, wait, 1_000_000 / rate),), work=work)


def test_a_forecast_is_waiting_travelling_and_working():
    known = past(100_000, 0.5, hvd1=1e-6)
    assert known.seconds(DELTA, 5_000_000) == pytest.approx(0.5 + 5.0 + 5.0)
    assert known.seconds(FULL, 5_000_000) == pytest.approx(0.5 + 40.0 + 5_000_000 * bandwidth.WORK["download"])


def test_nothing_is_known_at_first():
    assert Past().rate() is None
    assert Past().seconds(FULL, 0) == 0.0


def test_newer_transfers_count_more():
    slow, fast = Transfer(1_000_000, 0.1, 10.0), Transfer(1_000_000, 0.1, 1.0)
    faster = Past().after(slow).after(fast)
    slower = Past().after(fast).after(slow)
    assert 100_000 < slower.rate() < faster.rate() < 1_000_000
    assert faster.rate() == pytest.approx((0.5 * 1e6 + 1e6) / (0.5 * 10 + 1))


def test_small_transfers_say_nothing_of_the_rate_where_there_are_others():
    known = Past().after(Transfer(1_000_000, 0.1, 10.0)).after(Transfer(300, 0.4, 1e-9))
    assert known.rate() == pytest.approx(100_000)
    assert known.wait() == pytest.approx((0.5 * 0.1 + 0.4) / 1.5)
    assert Past().after(Transfer(300, 0.1, 3.0)).rate() == pytest.approx(100)
    assert Past().after(Transfer(0, 0.1, 0.0)) == Past()


def test_only_the_last_are_kept():
    found = Past()
    for number in range(1, 40):
        found = found.after(Transfer(number, 0, 1))
    assert [one.bytes for one in found.transfers] == list(range(40 - bandwidth.MOST_PAST, 40))


def test_a_delta_on_a_slow_line_and_the_whole_file_on_a_quick_one():
    """A device that takes 10 s to apply a delta is quicker without it, once 4 MB come in less."""
    assert cheapest(past(100_000, hvd1=2e-6), [FULL, DELTA], 5_000_000) is DELTA
    assert cheapest(past(100_000_000, hvd1=2e-6), [FULL, DELTA], 5_000_000) is FULL
    assert cheapest(Past(), [FULL, DELTA], 5_000_000) is DELTA
    assert cheapest(past(100_000), [FULL], 5_000_000) is FULL


def test_bytes_are_saved_where_it_hardly_takes_longer():
    assert cheapest(past(100_000_000, hvd1=3e-7), [FULL, DELTA], 5_000_000) is DELTA  # 1.5 s


def test_a_smaller_variant_where_the_preferred_one_takes_too_long():
    large, small = Choice("litert", (FULL,), 40.0), Choice("onnxruntime", (DELTA,), 6.0)
    assert choose([large, small], Allowed()) is large
    assert choose([large, small], Allowed(seconds=50)) is large
    assert choose([large, small], Allowed(seconds=10)) is small
    assert choose([large, small], Allowed(bytes=1_000_000)) is small
    hopeless = choose([large, small], Allowed(seconds=1))
    assert hopeless is small
    assert not Allowed(seconds=1).holds(hopeless)


def test_what_work_takes_is_measured():
    found = Past().worked("hvd1", 1_000_000, 2.0).worked("plain", 10, 5.0)
    assert found.work == {"hvd1": 2e-6}


transfers = st.builds(
    Transfer, st.integers(0, 10**12), st.floats(0, 1e6, allow_nan=False), st.floats(0, 1e6, allow_nan=False)
)


@given(
    st.lists(transfers, max_size=20), st.dictionaries(st.sampled_from(["plain", "hvd1"]), st.floats(0, 1), max_size=2)
)
def test_what_is_remembered_is_read_again(tmp_path_factory, told, work):
    found = Past(work=work)
    for one in told:
        found = found.after(one)
    path = tmp_path_factory.mktemp("past") / "speeds.json"
    bandwidth.write(found, path)
    assert bandwidth.read(path) == found
    assert found.rate() is None or found.rate() > 0
    assert found.seconds(FULL, 10) >= 0


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", json.dumps({"format": 9}).encode(), b"{" * 70_000])
def test_what_cannot_be_read_is_forgotten(tmp_path, content):
    path = tmp_path / "speeds.json"
    assert bandwidth.read(path) == Past()
    path.write_bytes(content)
    assert bandwidth.read(path) == Past()
