"""Sessions are lent in the order of asking, so many calls wait, and the others are refused with what to do."""

from __future__ import annotations

import random
import signal
import threading
import time

import pytest

from haversack.base.errors import ConversionError, EnvironmentFault, UsageError
from haversack.run.guard import within
from haversack.run.pool import Busy, Hung, Place, Pool


class Session:
    def __init__(self):
        self.closed = 0

    def close(self):
        self.closed += 1


@pytest.fixture
def opened():
    return []


@pytest.fixture
def pool(opened):
    """A function that makes a pool and counts what it opens."""

    def make(**settings):
        def opens():
            opened.append(Session())
            return opened[-1]

        return Pool(opens, **settings)

    return make


def waits(condition):
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "it never came to be"
        time.sleep(0.001)


def waiting(pool):
    """How many calls wait."""
    return sum(place.lent is None for place in pool._places)


def test_where_every_session_is_late_it_hangs(pool):
    made = pool(size=2, waiting=2)
    first, second = made.take(), made.take()
    made.late(first)
    with pytest.raises(Busy):  # one may still come back
        made.take(seconds=0.01, patience=0.01)
    made.late(second)
    began = time.monotonic()
    with pytest.raises(Hung, match="all 2 calls that have a session took longer than the limit"):
        made.take(seconds=60, patience=0.05)
    assert 0.05 <= time.monotonic() - began < 20
    with pytest.raises(Hung):
        made.take(seconds=0)
    made.give(first)
    assert made.take().session is not second.session


def test_who_waits_already_is_told_that_it_hangs(pool):
    made = pool()
    lent, found = made.take(), []

    def asks():
        try:
            made.take(seconds=60, patience=0.01)
        except Hung as error:
            found.append(error)

    threads = [threading.Thread(target=asks) for _ in range(3)]
    for thread in threads:
        thread.start()
    waits(lambda: waiting(made) == 3)
    made.late(lent)
    for thread in threads:
        thread.join(20)
    assert len(found) == 3
    assert waiting(made) == 0
    made.give(lent)
    assert made.take(seconds=0).session


def test_who_waits_where_it_hangs_gets_the_session_that_comes_back(pool):
    made = pool()
    lent, found = made.take(), []
    made.late(lent)
    thread = threading.Thread(target=lambda: found.append(made.take(seconds=60, patience=30)))
    thread.start()
    waits(lambda: waiting(made) == 1)
    made.give(lent)
    thread.join(20)
    assert [place.session for place in found] == [made.first]


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan"), 1e12])
def test_a_wait_that_no_clock_has(pool, opened, seconds):
    with pytest.raises(UsageError, match="seconds from 0 to 86400"):
        pool(seconds=seconds)
    assert opened == []


def test_all_are_opened_at_the_start_and_lent_once(pool, opened):
    made = pool(size=3)
    lent = [made.take() for _ in range(3)]
    assert len(opened) == 3
    assert {id(one.session) for one in lent} == {id(one) for one in opened}


def test_one_session_serves_many_calls_where_it_may(pool, opened):
    made = pool(size=3, shared=True, waiting=0)
    lent = [made.take() for _ in range(3)]
    assert [one.session for one in lent] == opened * 3
    with pytest.raises(Busy):
        made.take()
    for one in lent:
        made.give(one)
    made.close()
    assert opened[0].closed == 1


def test_what_was_opened_is_closed_when_another_cannot_be():
    opened = []

    def opens():
        if len(opened) == 2:
            raise ConversionError("no memory is left")
        opened.append(Session())
        return opened[-1]

    with pytest.raises(ConversionError, match="no memory"):
        Pool(opens, size=3)
    assert [one.closed for one in opened] == [1, 1]


@pytest.mark.parametrize("size", [1, 2])
def test_a_full_line_refuses_at_once_and_says_what_to_do(pool, size):
    made = pool(size=size, waiting=0)
    lent = [made.take() for _ in range(size)]
    began = time.monotonic()
    with pytest.raises(Busy) as caught:
        made.take()
    assert time.monotonic() - began < 5
    assert isinstance(caught.value, EnvironmentFault)
    assert ("the session is busy" if size == 1 else "all 2 sessions are busy") in str(caught.value)
    assert "0 calls wait already, as many as may" in str(caught.value)
    assert "open the model with more sessions" in caught.value.next_step
    made.give(lent[0])
    assert made.take().session is lent[0].session


def test_a_call_waits_so_long_and_no_longer(pool):
    made = pool(seconds=0.05)
    lent = made.take()
    with pytest.raises(Busy, match="none became free in 0.0"):
        made.take()
    with pytest.raises(Busy):
        made.take(0.01)
    made.give(lent)
    assert made.take().session is lent.session


def test_the_line_is_bounded(pool):
    made = pool(waiting=2, seconds=20)
    first, found = made.take(), []
    threads = [threading.Thread(target=lambda: found.append(made.take())) for _ in range(2)]
    for thread in threads:
        thread.start()
    waits(lambda: waiting(made) == 2)
    with pytest.raises(Busy, match="2 calls wait already"):
        made.take()
    made.give(first)
    waits(lambda: len(found) == 1)
    made.give(found[0])
    for thread in threads:
        thread.join()
    assert [place.session for place in found] == [first.session] * 2


def test_who_waits_longest_is_served_first(pool):
    made, order, threads = pool(waiting=5, seconds=20), [], []
    lent = made.take()

    def call(number):
        place = made.take()
        order.append(number)
        made.give(place)

    for number in range(5):
        threads.append(threading.Thread(target=call, args=(number,)))
        threads[-1].start()
        waits(lambda number=number: waiting(made) == number + 1)
    made.give(lent)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_a_late_call_does_not_pass_those_who_wait(pool):
    made, order = pool(waiting=2, seconds=20), []
    lent = made.take()
    other = threading.Thread(target=lambda: order.append(("first", made.take().session)))
    other.start()
    waits(lambda: waiting(made) == 1)
    made.give(lent)  # handed over: never free for the call below
    with pytest.raises(Busy):
        made.take(0)
    other.join()
    assert order == [("first", lent.session)]


class TestClosing:
    def test_what_is_free_is_closed_now(self, pool, opened):
        made = pool(size=2)
        made.close()
        made.close()
        assert [one.closed for one in opened] == [1, 1]
        with pytest.raises(UsageError, match="the model is closed"):
            made.take()

    def test_what_is_lent_is_closed_when_the_last_comes_back(self, pool, opened):
        made = pool(size=2)
        first, second = made.take(), made.take()
        made.close()
        made.give(first)
        assert [one.closed for one in opened] == [0, 0]
        made.give(second)
        assert [one.closed for one in opened] == [1, 1]

    def test_who_waits_already_is_still_served(self, pool, opened):
        made, found = pool(waiting=1, seconds=20), []
        lent = made.take()

        def call():
            place = made.take()
            found.append(place.session.closed)
            made.give(place)

        other = threading.Thread(target=call)
        other.start()
        waits(lambda: waiting(made) == 1)
        made.close()
        made.give(lent)
        other.join()
        assert found == [0]
        assert opened[0].closed == 1


def test_no_session_is_in_two_hands(pool, opened):
    made, faults = pool(size=3, waiting=64, seconds=60), []
    held = set()

    def work():
        for _ in range(100):
            place = made.take()
            if id(place.session) in held:
                faults.append("twice")
            held.add(id(place.session))
            time.sleep(0)
            held.discard(id(place.session))
            made.give(place)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert len(opened) == 3
    assert made._places == []


class TestInterrupts:
    """Ctrl-C, here by a timer."""

    @pytest.fixture
    def interrupted(self):
        """A function that calls another until it is interrupted, so many seconds later."""

        def interrupt(*_):
            raise KeyboardInterrupt

        def run(seconds, call):
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, seconds)
                while True:
                    call()

        before = signal.signal(signal.SIGALRM, interrupt)
        yield run
        signal.signal(signal.SIGALRM, before)

    def test_who_no_longer_waits_is_lent_nothing(self, pool, interrupted):
        made = pool(waiting=1, seconds=20)
        lent = made.take()
        interrupted(0.05, made.take)
        made.give(lent)
        again = made.take(0)
        assert again.session is not None
        made.give(again)

    def test_at_any_moment_of_a_call(self, pool, opened, interrupted):
        made, chance = pool(size=2, waiting=0), random.Random(0)

        def call():
            place = Place()
            within(0, lambda: place.session, lambda: made.give(place), lambda: made.take(place=place))

        for _ in range(500):
            interrupted(chance.uniform(1e-6, 2e-4), call)
            assert made._places == []
        made.close()
        assert [one.closed for one in opened] == [1, 1]

    def test_what_was_lent_at_that_moment_goes_to_the_next(self, pool, monkeypatch):
        made, found = pool(waiting=2, seconds=20), []
        lent, place = made.take(), Place()

        class Stopped:
            """A lock that is interrupted when it has waited: a session came just before."""

            def acquire(self, timeout):
                threads[0].start()
                waits(lambda: waiting(made) == 2)
                made.give(lent)
                raise KeyboardInterrupt

            def locked(self):
                return False

        place.waits = Stopped()
        threads = [threading.Thread(target=lambda: found.append(made.take().session))]
        with pytest.raises(KeyboardInterrupt):
            made.take(place=place)
        threads[0].join()
        assert place.lent is lent.session
        assert found == [lent.session]

    def test_a_place_is_given_back_once(self, pool, opened):
        made = pool()
        lent = made.take()
        made.give(lent)
        again = made.take()
        made.give(lent)
        with pytest.raises(Busy):
            made.take(0)
        made.close()
        made.give(again)
        made.give(again)
        assert opened[0].closed == 1

    def test_a_place_without_a_session_has_none(self):
        with pytest.raises(UsageError, match="it waits for a session"):
            Place().session  # noqa: B018 - it raises


@pytest.mark.parametrize("settings", [{"size": 0}, {"waiting": -1}, {"seconds": -1.0}, {"seconds": float("nan")}])
def test_numbers_that_are_none(pool, settings):
    with pytest.raises(UsageError, match="give size >= 1"):
        pool(**settings)
