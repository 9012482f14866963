"""The clock of a transfer against plain arithmetic: a deadline for all of it, a rate over each window, pauses."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.base.errors import EnvironmentFault
from haversack.deliver import patience
from haversack.deliver.patience import Bounds, Patience, TooSlow

BOUNDS = Bounds(deadline_seconds=100.0, least_rate=10.0, rate_seconds=8.0, pause_seconds=1.0)


@dataclass
class Watch:
    """A clock that is moved by hand, and by sleeping."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def watch(monkeypatch):
    found = Watch()
    monkeypatch.setattr(patience.time, "sleep", found.sleep)
    return found


def test_time_is_counted_from_where_it_began(watch):
    clock = Patience(BOUNDS, "x", watch)
    assert clock.spent == 0.0
    watch.now += 3.5
    assert clock.spent == 3.5
    clock.again()
    assert clock.spent == 3.5  # another connection is not another transfer


@pytest.mark.parametrize(
    "passed, left",
    [(0.0, 8.0), (3.0, 5.0), (7.5, 0.5), (7.9999, 0.001)],  # never 0: a socket would not wait at all
)
def test_the_next_byte_is_awaited_until_the_window_ends(watch, passed, left):
    clock = Patience(BOUNDS, "x", watch)
    watch.now += passed
    assert clock.left() == pytest.approx(left, abs=1e-9)


def test_and_not_beyond_the_deadline(watch):
    clock = Patience(BOUNDS, "x", watch)
    for _ in range(12):  # 96 s, enough bytes in each window
        watch.now += 8.0
        clock.came(80)
        clock.left()
    assert clock.left() == pytest.approx(4.0)
    watch.now += 4.0
    with pytest.raises(TooSlow, match="it took longer than 100 s") as caught:
        clock.left()
    assert caught.value.where == "x"
    assert "goes on from where it was" in caught.value.next_step
    assert caught.value.exit_code == EnvironmentFault.exit_code == 6


@pytest.mark.parametrize("came, enough", [(0, False), (79, False), (80, True), (81, True)])
def test_the_rate_is_taken_over_the_window(watch, came, enough):
    clock = Patience(BOUNDS, "http://h/x", watch)
    clock.came(came)
    watch.now += 8.0
    if enough:
        assert clock.left() == pytest.approx(8.0)
        return
    with pytest.raises(TooSlow, match=f"http://h/x: {came} bytes came in 8.0 s, and 10 a second is the least"):
        clock.left()


def test_bytes_of_one_window_do_not_count_in_the_next(watch):
    clock = Patience(BOUNDS, "x", watch)
    clock.came(10_000)
    watch.now += 8.0
    clock.left()
    watch.now += 8.0
    with pytest.raises(TooSlow, match="x: 0 bytes came"):
        clock.left()


def test_a_new_connection_begins_a_new_window_and_not_a_new_deadline(watch):
    clock = Patience(BOUNDS, "x", watch)
    for _ in range(14):
        watch.now += 7.0
        clock.again()
        assert clock.left() > 0
    watch.now += 2.0
    with pytest.raises(TooSlow, match="longer than 100 s"):
        clock.left()


def test_pauses_double_and_end_with_the_deadline(watch):
    clock = Patience(BOUNDS, "x", watch)
    for attempt in (1, 2, 3):
        clock.pause(attempt)
        clock.again()
    assert watch.slept == [1.0, 2.0, 4.0]
    clock.pause(30)
    assert watch.slept[-1] <= BOUNDS.rate_seconds
    watch.now = 1000.0 + 100.0
    with pytest.raises(TooSlow):
        clock.pause(1)
    assert len(watch.slept) == 4


@settings(max_examples=40)
@given(
    steps=st.lists(st.tuples(st.floats(0, 20), st.integers(0, 400), st.booleans()), max_size=20),
    least=st.floats(0, 50),
    window=st.floats(0.5, 20),
    deadline=st.floats(0.5, 120),
)
def test_it_is_given_up_when_the_rules_say_so(steps, least, window, deadline):
    """Each step lets time pass and bytes come, sometimes over a new connection; the model keeps three numbers."""
    watch = Watch(0.0)
    clock = Patience(Bounds(deadline_seconds=deadline, least_rate=least, rate_seconds=window), "x", watch)
    since, came = 0.0, 0
    for passed, count, anew in steps:
        watch.now += passed
        clock.came(count)
        came += count
        if anew:
            clock.again()
            since, came = watch.now, 0
        over = watch.now >= deadline
        slow = watch.now >= since + window and came < least * (watch.now - since)
        if over or slow:
            with pytest.raises(TooSlow):
                clock.left()
            return
        if watch.now >= since + window:
            since, came = watch.now, 0
        assert clock.left() == max(0.001, min(since + window, deadline) - watch.now)


@given(
    steps=st.lists(st.tuples(st.floats(0, 20), st.integers(0, 500)), max_size=40),
    deadline=st.floats(1, 200),
    window=st.floats(1, 40),
    least=st.floats(0, 50),
)
def test_it_never_waits_beyond_the_deadline_and_never_long_without_bytes(steps, deadline, window, least):
    """Whatever comes, and when: a wait ends by the deadline, and silence ends within two windows."""
    clock = Watch(100.0)
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
