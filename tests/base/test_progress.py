"""Progress: what a sink is told, and when."""

from __future__ import annotations

import time

import pytest

from haversack.base.progress import Event, silent, steps


def test_steps_tell_before_the_first_and_after_each():
    told = []
    order = []
    for item in steps("ab", told.append, "profile", "ranges", 2):
        order.append((item, [event.done for event in told]))
    assert order == [("a", [0]), ("b", [0, 1])]
    assert [(event.stage, event.kind, event.text, event.done, event.total) for event in told] == [
        ("profile", "progress", "ranges", 0, 2),
        ("profile", "progress", "ranges", 1, 2),
        ("profile", "progress", "ranges", 2, 2),
    ]


def test_steps_are_lazy():
    def endless():
        while True:
            yield 1

    assert next(steps(endless(), silent, "load", "batches", 0)) == 1


def test_steps_of_nothing_tell_that_there_was_nothing():
    told = []
    assert list(steps([], told.append, "load", "none", 0)) == []
    assert len(told) == 1


def test_an_error_inside_passes_through():
    def broken():
        yield 1
        raise ValueError("in the middle")

    told = []
    with pytest.raises(ValueError, match="in the middle"):
        list(steps(broken(), told.append, "load", "broken", 2))
    assert [event.done for event in told] == [0, 1]


def test_an_event_knows_its_time():
    before = time.time()
    event = Event("load", "note", "text")
    assert before <= event.time <= time.time()
    assert (event.done, event.total, dict(event.data)) == (0, 0, {})


def test_silent_tells_nobody(capfd):
    assert silent(Event("load", "note", "text")) is None
    assert capfd.readouterr() == ("", "")
