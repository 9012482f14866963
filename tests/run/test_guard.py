"""A model that fails is set aside, the one before answers, and it is tried again: every trip is an event."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.errors import ConversionError, EnvironmentFault, Refused, UsageError, VerificationError
from haversack.base.graph import TensorSpec
from haversack.base.model import Port
from haversack.run.guard import Guard, TooSlow, Watch, look, within
from haversack.run.pool import Busy


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def events():
    return []


@pytest.fixture
def guard(clock, events):
    watch = Watch(faults=3, pause_seconds=10, longest_pause_seconds=35)
    return Guard("digits 1.3.0", watch, sink=events.append, clock=clock)


def good():
    return "own"


def bad():
    raise VerificationError("2 of its 4 values are NaN or infinite", where="scores")


def before():
    return "previous"


def told(events):
    return [event.data["guard"] for event in events]


def test_a_good_model_answers_and_nothing_is_told(guard, events):
    assert [guard.call(good, before) for _ in range(5)] == ["own"] * 5
    assert (guard.state, events) == ("closed", [])


def test_a_fault_is_answered_by_the_model_before(guard, events):
    assert guard.call(bad, before) == "previous"
    assert guard.call(good, before) == "own"
    assert told(events) == ["fault"]
    assert events[0].text == "digits 1.3.0: scores: 2 of its 4 values are NaN or infinite"
    assert (events[0].stage, events[0].kind, events[0].data["release"]) == ("run", "finding", "digits 1.3.0")


def test_without_one_before_the_fault_is_raised(guard):
    with pytest.raises(VerificationError, match="NaN"):
        guard.call(bad)


def test_faults_in_a_row_set_it_aside(guard, events):
    for _ in range(2):
        guard.call(bad, before)
    guard.call(good, before)  # not in a row
    for _ in range(3):
        guard.call(bad, before)
    assert guard.state == "open"
    assert told(events) == ["fault"] * 5 + ["tripped"]
    assert "set aside after 3 faults in a row, and tried again in 10 s" in events[-1].text
    calls = []
    assert guard.call(lambda: calls.append(1), before) == "previous"
    assert calls == []


def test_without_one_before_it_is_never_set_aside(guard, events):
    for _ in range(5):
        with pytest.raises(VerificationError, match="NaN"):
            guard.call(bad)
    assert guard.call(good) == "own"
    assert (guard.state, told(events)) == ("closed", ["fault"] * 5)


@pytest.mark.parametrize(
    "error",
    [
        EnvironmentFault("there is no other model any more"),
        ConversionError("the runtime does not open it"),
        Refused("it is not what was installed"),
        Busy("all 2 sessions are busy"),
    ],
)
def test_where_the_one_before_cannot_answer_it_is_not_set_aside(guard, events, error):
    def gone():
        raise error

    for _ in range(5):
        with pytest.raises(VerificationError, match="NaN"):
            guard.call(bad, gone)
    assert guard.call(good, gone) == "own"
    assert (guard.state, told(events)) == ("closed", ["fault"] * 5)


def test_set_aside_it_answers_where_the_one_before_cannot_any_more(guard, clock):
    def gone():
        raise EnvironmentFault("there is no other model any more")

    def busy():
        raise Busy("all 2 sessions are busy")

    trip(guard)
    assert guard.call(good, gone) == "own"
    with pytest.raises(VerificationError, match="NaN"):
        guard.call(bad, gone)
    with pytest.raises(Busy):  # it may be called again
        guard.call(good, busy)
    assert guard.state == "open"
    clock.now += 11
    with pytest.raises(VerificationError, match="NaN"):
        guard.call(bad, gone)
    assert guard.state == "open"
    assert guard.call(good, before) == "previous"
    clock.now += 21
    assert guard.call(good, before) == "own"


def test_set_aside_says_what_to_do_where_nothing_answers(guard):
    def fails_too():
        raise VerificationError("3 values are NaN")

    trip(guard)
    with pytest.raises(VerificationError) as caught:
        guard.call(good, fails_too)
    assert "digits 1.3.0 is set aside after 3 faults in a row, and tried again in 10 s" in str(caught.value)
    assert "haversack client rollback" in caught.value.next_step
    assert guard.call(good) == "own"  # nobody was named who would answer


def test_a_sink_that_raises_stops_no_call_and_is_told_once(clock, caplog):
    heard = []

    def deaf(event):
        heard.append(event)
        raise OSError("the disk of the log is full")

    guard = Guard("digits 1.3.0", Watch(faults=3, pause_seconds=10), sink=deaf, clock=clock)
    trip(guard)
    assert (guard.state, told(heard)) == ("open", ["fault", "fault", "fault", "tripped"])
    clock.now += 11
    assert guard.call(good, before) == "own"
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("haversack.run", "WARNING")
    assert "the sink of events raises OSError: the disk of the log is full" in record.getMessage()
    assert "2 of its 4 values are NaN or infinite" in record.getMessage()


def test_ctrl_c_in_a_sink_is_not_kept(clock):
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Guard("digits 1.3.0", sink=stop, clock=clock).call(bad, before)


@pytest.mark.parametrize("error", [VerificationError("3 values are NaN"), RuntimeError("Non-zero status code")])
def test_an_input_that_both_fail_on_counts_against_neither(guard, clock, events, error):
    def fails_too():
        raise error

    for _ in range(5):
        with pytest.raises(VerificationError, match="2 of its 4 values are NaN"):
            guard.call(bad, fails_too)
    assert guard.state == "closed"
    assert told(events) == ["input"] * 5
    assert "the release before fails on the same input" in events[0].text
    trip(guard)
    clock.now += 11
    with pytest.raises(VerificationError):
        guard.call(bad, fails_too)
    assert guard.call(good, before) == "own"  # the trial was given back


def test_set_aside_it_answers_what_only_it_takes(guard):
    """A release may take an input that the one before did not have; what neither takes its own words are about."""

    def unfit(words):
        def call():
            raise UsageError(words)

        return call

    trip(guard)
    assert guard.call(good, unfit("the inputs do not fit 1.2.0")) == "own"
    with pytest.raises(UsageError, match=r"do not fit 1\.3\.0"):
        guard.call(unfit("the inputs do not fit 1.3.0"), unfit("the inputs do not fit 1.2.0"))
    assert guard.state == "open"


def trip(guard):
    for _ in range(3):
        guard.call(bad, before)


def test_it_is_tried_again_and_answers(guard, clock, events):
    trip(guard)
    clock.now += 9.9
    assert guard.call(good, before) == "previous"
    clock.now += 0.2
    assert guard.call(good, before) == "own"
    assert guard.state == "closed"
    assert told(events)[-1] == "recovered"
    assert guard.call(good, before) == "own"


def test_each_trial_that_fails_doubles_the_pause(guard, clock, events):
    trip(guard)
    for pause in (20, 35, 35):
        clock.now += 36
        assert guard.call(bad, before) == "previous"
        assert guard.state == "open"
        assert events[-1].data["pause_seconds"] == pause
    clock.now += 36
    guard.call(good, before)
    trip(guard)
    assert events[-1].data["pause_seconds"] == 10


def test_one_call_at_a_time_tries_it_again(guard, clock):
    trip(guard)
    clock.now += 11
    inside, go, found = threading.Event(), threading.Event(), []

    def slow():
        inside.set()
        assert go.wait(20)
        return "own"

    trial = threading.Thread(target=lambda: found.append(guard.call(slow, before)))
    trial.start()
    assert inside.wait(20)
    assert guard.state == "trying"
    assert guard.call(good, before) == "previous"
    go.set()
    trial.join()
    assert found == ["own"]
    assert guard.state == "closed"


def test_a_late_answer_of_an_older_call_does_not_end_a_trial(guard, clock):
    """A call that began before the trip comes back, well or not, while another call tries the model."""
    inside, go, found = threading.Event(), threading.Event(), []

    def old():
        inside.set()
        assert go.wait(20)
        return "own"

    late = threading.Thread(target=lambda: found.append(guard.call(old, before)))
    late.start()
    assert inside.wait(20)
    trip(guard)
    clock.now += 11

    def trial():
        go.set()
        late.join()
        assert guard.state == "trying"
        return "own"

    assert guard.call(trial, before) == "own"
    assert found == ["own"]
    assert guard.state == "closed"


@pytest.mark.parametrize("error", [UsageError("the inputs do not fit"), Busy("the session is busy")])
def test_what_is_no_fault_of_the_model(guard, clock, events, error):
    def refused():
        raise error

    for _ in range(5):
        with pytest.raises(type(error)):
            guard.call(refused, before)
    assert (guard.state, events) == ("closed", [])
    trip(guard)
    clock.now += 11
    with pytest.raises(type(error)):
        guard.call(refused, before)
    assert guard.call(good, before) == "own"  # the trial was given back


def stopped():
    raise KeyboardInterrupt


@pytest.mark.parametrize("calls", [(stopped, before), (bad, stopped)], ids=["at the model", "at the one before"])
def test_an_interrupted_trial_is_given_back(guard, clock, calls):
    trip(guard)
    clock.now += 11
    with pytest.raises(KeyboardInterrupt):
        guard.call(*calls)
    assert guard.call(good, before) == "own"


def test_errors_of_a_runtime_are_faults(guard, events):
    def died():
        raise RuntimeError("Non-zero status code\nmore of it")

    assert guard.call(died, before) == "previous"
    assert events[0].text == "digits 1.3.0: Non-zero status code"


def test_where_the_one_before_fails_too_the_models_own_error_is_told(guard):
    def gone():
        raise VerificationError("the slot is empty")

    with pytest.raises(VerificationError, match="NaN"):
        guard.call(bad, gone)


@given(st.lists(st.sampled_from(["good", "bad", "wait"]), max_size=60))
def test_it_is_a_circuit_breaker(steps):
    """The states of a plain breaker, for any order of good answers, faults and pauses."""
    clock, watch = Clock(), Watch(faults=2, pause_seconds=4, longest_pause_seconds=16)
    guard = Guard("x", watch, clock=clock)
    row, until, pause, is_open = 0, 0.0, 4.0, False
    for step in steps:
        if step == "wait":
            clock.now += 3
            continue
        trial = is_open and clock.now >= until
        wanted = "own" if step == "good" and (not is_open or trial) else "previous"
        assert guard.call(good if step == "good" else bad, before) == wanted
        if is_open and not trial:
            continue
        if step == "good":
            row, is_open, pause = 0, False, 4.0 if trial else pause
            continue
        row += 1
        if trial:
            pause = min(2 * pause, 16)
        if trial or row >= 2:
            is_open, until = True, clock.now + pause
        assert guard.state == ("open" if is_open else "closed")


PORTS = (Port("scores", TensorSpec(("batch", 4), "float32")), Port("count", TensorSpec((1,), "int64")))


def outputs(**other):
    return {"scores": np.zeros((2, 4), np.float32), "count": np.zeros(2, np.int64)} | other


def test_a_good_answer_is_looked_at():
    look(PORTS, outputs())
    look(PORTS, outputs(scores=np.zeros((7, 4), np.float32)))
    with pytest.raises(VerificationError):
        look(PORTS, {})


@pytest.mark.parametrize(
    "wrong, cause",
    [
        ({"scores": np.full((2, 4), np.nan, np.float32)}, "scores: 8 of its 8 values are NaN or infinite"),
        ({"scores": np.array([[0, 1, 2, np.inf]], np.float32)}, "1 of its 4 values are NaN or infinite"),
        ({"scores": np.zeros((2, 5), np.float32)}, "it is float32 [2, 5], not ['batch', 4] float32"),
        ({"scores": np.zeros(4, np.float32)}, "it is float32 [4]"),
        ({"scores": np.zeros((2, 4))}, "it is float64 [2, 4]"),
        ({"count": np.zeros(2, np.int32)}, "count: it is int32 [2]"),
    ],
)
def test_wrong_answers(wrong, cause):
    with pytest.raises(VerificationError) as caught:
        look(PORTS, outputs(**wrong))
    assert cause in str(caught.value)


class TestWithin:
    def test_without_a_limit_it_runs_in_the_callers_thread(self):
        after = []
        assert within(0, threading.get_ident, lambda: after.append(1)) == threading.get_ident()
        assert after == [1]

    def test_in_time(self):
        after = []
        assert within(20, lambda: 5, lambda: after.append(1)) == 5
        assert after == [1]

    @pytest.mark.parametrize("seconds", [0, 20])
    def test_its_errors_are_raised_and_it_ends(self, seconds):
        after = []
        with pytest.raises(VerificationError, match="NaN"):
            within(seconds, bad, lambda: after.append(1))
        assert after == [1]

    def test_an_error_that_looks_like_ours_is_the_works(self):
        def late():
            raise TimeoutError("of the work")

        with pytest.raises(TimeoutError, match="of the work"):
            within(20, late, lambda: None)

    def test_too_late(self):
        go, after = threading.Event(), []
        with pytest.raises(TooSlow, match="it took longer than 0.02 s"):
            within(0.02, lambda: go.wait(20), lambda: after.append(1))
        assert after == []
        go.set()
        until = time.monotonic() + 20
        while not after and time.monotonic() < until:
            time.sleep(0.001)
        assert after == [1]

    @pytest.mark.parametrize("seconds", [0, 20])
    def test_it_ends_too_where_it_cannot_begin(self, seconds):
        def before():
            done.append("before")
            raise Busy("the session is busy")

        done = []
        with pytest.raises(Busy):
            within(seconds, lambda: done.append("work"), lambda: done.append("after"), before)
        assert done == ["before", "after"]

    @pytest.mark.parametrize(
        "error, told, cause",
        [
            (RuntimeError("can't start new thread"), Busy, "the system has no thread left"),
            (KeyboardInterrupt(), KeyboardInterrupt, None),
        ],
    )
    def test_it_ends_too_where_no_thread_starts(self, monkeypatch, error, told, cause):
        def start(thread):
            threads.append(thread)
            raise error

        done, threads = [], []
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(told, match=cause):
            within(20, lambda: done.append("work"), lambda: done.append("after"))
        threads[0].run()  # it starts after all: too late
        assert done == ["after"]

    def test_an_interrupt_of_its_end_does_not_keep_it_from_ending(self):
        def after():
            done.append("after")
            if len(done) == 1:
                raise KeyboardInterrupt

        done = []
        with pytest.raises(KeyboardInterrupt):
            within(0, lambda: 5, after)
        assert done == ["after"] * 2


@pytest.mark.parametrize(
    "watch",
    [
        {"faults": 0},
        {"pause_seconds": 0},
        {"longest_pause_seconds": 8},
        {"longest_pause_seconds": float("inf")},
        *({"limit_seconds": limit} for limit in (-1, float("inf"), float("nan"), 1e12)),
        {"faults": -1, "limit_seconds": -1},
    ],
)
def test_a_watch_that_is_none(watch):
    with pytest.raises(UsageError) as caught:
        Watch(**watch)
    assert [fault.where for fault in caught.value.faults] == [*watch]
    assert all(f"not {value}" in str(caught.value) for value in watch.values())


def test_the_longest_limit_is_waited_for():
    assert within(Watch(limit_seconds=86_400).limit_seconds * 10**9, lambda: 7, lambda: None) == 7
