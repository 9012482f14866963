"""Sessions are lent in the order of asking, so many calls wait, and the others are refused with what to do."""

from __future__ import annotations

import threading
import time

import pytest

from haversack.base.errors import ConversionError, EnvironmentFault, UsageError
from haversack.run.pool import Busy, Pool


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


def test_all_are_opened_at_the_start_and_lent_once(pool, opened):
    made = pool(size=3)
    lent = [made.take() for _ in range(3)]
    assert len(opened) == 3
    assert {id(one) for one in lent} == {id(one) for one in opened}


def test_one_session_serves_many_calls_where_it_may(pool, opened):
    made = pool(size=3, shared=True, waiting=0)
    assert [made.take() for _ in range(3)] == opened * 3
    with pytest.raises(Busy):
        made.take()
    for _ in range(3):
        made.give(opened[0])
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
    assert made.take() is lent[0]


def test_a_call_waits_so_long_and_no_longer(pool):
    made = pool(seconds=0.05)
    lent = made.take()
    with pytest.raises(Busy, match="none became free in 0.0"):
        made.take()
    with pytest.raises(Busy):
        made.take(0.01)
    made.give(lent)
    assert made.take() is lent


def test_the_line_is_bounded(pool):
    made = pool(waiting=2, seconds=20)
    lent, found = made.take(), []
    threads = [threading.Thread(target=lambda: found.append(made.take())) for _ in range(2)]
    for thread in threads:
        thread.start()
    waits(lambda: len(made._line) == 2)
    with pytest.raises(Busy, match="2 calls wait already"):
        made.take()
    made.give(lent)
    waits(lambda: len(found) == 1)
    made.give(lent)
    for thread in threads:
        thread.join()
    assert found == [lent, lent]


def test_who_waits_longest_is_served_first(pool):
    made, order, threads = pool(waiting=5, seconds=20), [], []
    lent = made.take()

    def call(number):
        session = made.take()
        order.append(number)
        made.give(session)

    for number in range(5):
        threads.append(threading.Thread(target=call, args=(number,)))
        threads[-1].start()
        waits(lambda number=number: len(made._line) == number + 1)
    made.give(lent)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_a_late_call_does_not_pass_those_who_wait(pool):
    made, order = pool(waiting=2, seconds=20), []
    lent = made.take()
    waiting = threading.Thread(target=lambda: order.append(("first", made.take())))
    waiting.start()
    waits(lambda: len(made._line) == 1)
    made.give(lent)  # handed over: never free for the call below
    with pytest.raises(Busy):
        made.take(0)
    waiting.join()
    assert order == [("first", lent)]


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
            session = made.take()
            found.append(session.closed)
            made.give(session)

        waiting = threading.Thread(target=call)
        waiting.start()
        waits(lambda: len(made._line) == 1)
        made.close()
        made.give(lent)
        waiting.join()
        assert found == [0]
        assert opened[0].closed == 1


def test_no_session_is_in_two_hands(pool, opened):
    made, faults = pool(size=3, waiting=64, seconds=60), []
    held = set()

    def work():
        for _ in range(100):
            session = made.take()
            if id(session) in held:
                faults.append("twice")
            held.add(id(session))
            time.sleep(0)
            held.discard(id(session))
            made.give(session)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert len(opened) == len(made._free) == 3


@pytest.mark.parametrize("settings", [{"size": 0}, {"waiting": -1}, {"seconds": -1.0}, {"seconds": float("nan")}])
def test_numbers_that_are_none(pool, settings):
    with pytest.raises(UsageError, match="give size >= 1"):
        pool(**settings)
