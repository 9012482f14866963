"""What a person sees: durations, plain lines, the time left, and standard output kept clean."""

from __future__ import annotations

import json
import os
import sys

import pytest

from haversack.base.progress import Event
from haversack.cli import terminal
from haversack.cli.terminal import _Left, _Plain, clock, display, results, say, say_json

DURATIONS = [
    (0, "0 s"),
    (59.4, "59 s"),
    (59.6, "1 min 00 s"),
    (200, "3 min 20 s"),
    (3599.7, "1 h 00 min"),
    (3900, "1 h 05 min"),
]


@pytest.mark.parametrize("seconds, words", DURATIONS)
def test_durations(seconds, words):
    assert clock(seconds) == words


@pytest.fixture
def now(monkeypatch):
    """A clock that is set by hand."""
    time = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: time[0])
    return time


def test_time_left_is_the_forecast_less_what_has_passed(now):
    left = _Left()
    assert left.words() == ""
    now[0] += 10
    left.take(Event("load", "note", "x", data={"forecast_seconds": 60}))
    assert left.words() == "about 1 min 00 s left"
    now[0] += 45
    assert left.words() == "about 15 s left"
    now[0] += 20
    assert left.words() == "longer than forecast"


def test_plain_lines_are_no_flood(now, capsys):
    plain = _Plain()
    for count in range(101):
        now[0] += 0.1
        plain(Event("profile", "progress", "ranges", count, 100))
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 5
    assert lines[0].endswith("ranges 0/100")
    assert lines[-1].endswith("ranges 100/100"), "the end is always told"


def test_every_other_event_is_told(now, capsys):
    plain = _Plain()
    for kind in ("start", "done", "finding", "note", "reused"):
        plain(Event("lower", kind, f"a {kind}"))
    told = capsys.readouterr().err
    assert told.count("\n") == 5
    assert "a reused (from the last run)" in told


def test_quiet_shows_nothing(capsys):
    with display(quiet=True) as sink:
        sink(Event("load", "start", "export"))
    assert capsys.readouterr().err == ""


def test_elsewhere_than_on_a_terminal_lines_are_plain(capsys):
    with display() as sink:
        sink(Event("load", "start", "export"))
    told = capsys.readouterr().err
    assert "load     export" in told
    assert "\x1b" not in told


def test_libraries_and_jobs_that_print_do_not_reach_standard_output(capfd):
    with results(as_json=True):
        os.write(1, b"native\n")
        print("python")  # noqa: T201
        print("to the saved one", file=sys.stdout)  # noqa: T201
    say_json({"a": 1})
    told = capfd.readouterr()
    assert json.loads(told.out) == {"a": 1}
    assert "native" in told.err
    assert "python" in told.err


def test_standard_output_comes_back_after_an_error(capfd):
    with pytest.raises(ZeroDivisionError), results(as_json=True):
        raise ZeroDivisionError
    say("here")
    assert capfd.readouterr().out == "here\n"


def test_a_person_sees_everything(capfd):
    with results(as_json=False):
        os.write(1, b"native\n")
    assert capfd.readouterr().out == "native\n"


def test_json_holds_no_nan():
    with pytest.raises(ValueError, match="JSON"):
        say_json({"a": float("nan")})
