"""The clock of a transfer, with a clock that can be set."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.errors import EXIT_ENVIRONMENT
from haversack.deliver.patience import Bounds, Patience, TooSlow


class Clock:
    """Seconds that only a test lets go by."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def patient(clock, **bounds):
    return Patience(Bounds(**bounds), "https://x/y", clock)


def test_the_next_byte_may_be_awaited_until_the_window_or_the_deadline_ends(clock):
    patience = patient(clock, deadline_seconds=100, rate_seconds=30, least_rate=10)
    assert patience.left() == 30
    clock.now += 12
    assert patience.left() == 18
    patience.came(1000)
    clock.now += 18
    assert patience.left() == 30  # enough came: another window begins
    patience.came(1000)
    clock.now += 30
    patience.left()
    patience.came(1000)
    clock.now += 29
    assert patience.left() == 1
    clock.now += 10.5
    assert patience.left() == pytest.approx(0.5)  # the deadline is nearer than the end of the window
    assert patience.spent == pytest.approx(99.5)


def test_too_few_bytes(clock):
    patience = patient(clock, rate_seconds=30, least_rate=10)
    patience.came(299)
    clock.now += 30
    with pytest.raises(TooSlow, match=r"299 bytes came in 30.0 s, and 10 a second is the least") as caught:
        patience.left()
    assert caught.value.where == "https://x/y"
    assert caught.value.exit_code == EXIT_ENVIRONMENT


def test_just_enough_bytes(clock):
    patience = patient(clock, rate_seconds=30, least_rate=10)
    patience.came(300)
    clock.now += 30
    assert patience.left() == 30


def test_the_rate_is_taken_of_one_window_and_not_of_all(clock):
    patience = patient(clock, rate_seconds=30, least_rate=10)
    patience.came(1_000_000)
    clock.now += 30
    patience.left()
    clock.now += 30
    with pytest.raises(TooSlow, match="0 bytes came"):
        patience.left()


def test_a_new_connection_begins_a_new_window_and_not_a_new_deadline(clock):
    patience = patient(clock, deadline_seconds=50, rate_seconds=30, least_rate=10)
    clock.now += 29
    patience.again()
    assert patience.left() == 21
    clock.now += 21
    with pytest.raises(TooSlow, match="longer than 50 s"):
        patience.left()


def test_pauses_double_and_end_with_the_deadline(clock, monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    patience = patient(clock, deadline_seconds=100, rate_seconds=1000, pause_seconds=0.5)
    for attempt in (1, 2, 3, 4):
        patience.pause(attempt)
    assert slept == [0.5, 1.0, 2.0, 4.0]
    clock.now += 99
    patience.pause(5)
    assert slept[-1] == 1.0
    clock.now += 1
    with pytest.raises(TooSlow):
        patience.pause(6)


@given(
    steps=st.lists(st.tuples(st.floats(0, 20), st.integers(0, 500)), max_size=40),
    deadline=st.floats(1, 200),
    window=st.floats(1, 40),
    least=st.floats(0, 50),
)
def test_it_never_waits_beyond_the_deadline_and_never_long_without_bytes(steps, deadline, window, least):
    """Whatever comes, and when: a wait ends by the deadline, and silence ends within two windows."""
    clock = Clock()
    patience = Patience(Bounds(deadline_seconds=deadline, rate_seconds=window, least_rate=least), "x", clock)
    silent_since = clock.now
    for seconds, count in steps:
        try:
            left = patience.left()
        except TooSlow:
            return
        assert 0 < left <= window + 1e-9
        assert clock.now < 100 + deadline
        assert clock.now + left <= 100 + deadline + 0.001
        clock.now += min(seconds, left)
        patience.came(count)
        silent_since = clock.now if count else silent_since
        if least * window >= 1:
            assert clock.now - silent_since <= 2 * window + 0.01
