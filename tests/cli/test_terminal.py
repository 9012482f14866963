"""What a person sees: durations, plain lines, the time left, and standard output kept clean."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys

import pytest

from haversack import cli
from haversack.base.errors import Refused
from haversack.base.progress import Event
from haversack.cli import terminal
from haversack.cli.terminal import _Left, _Plain, clock, display, plain, results, say, say_json

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


def test_what_strangers_say_moves_no_cursor(capsys):
    """The reason in a server's status line, the words of a child: they may hold a terminal's commands."""
    assert plain("a line\nanother: ü × …") == "a line\nanother: ü × …"
    assert plain("\x1b[2J\x9b\r\x07\u202e\x00\ud800") == r"\x1b[2J\x9b\r\x07\u202e\x00\ud800"

    assert cli._failed(Refused("\x1b[2J", where="here"), ()) == 7
    assert capsys.readouterr().err == "haversack: here: \\x1b[2J\n"


@pytest.fixture
def now(monkeypatch):
    """A clock that is set by hand."""
    time = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: time[0])
    return time


def test_what_is_taken_from_before_again_and_again_is_told_once(capsys):
    plain_lines = _Plain()
    known = Event("profile", "reused", "activation ranges")
    for event in (known, known, known, Event("profile", "done", "time of layers"), known, known):
        plain_lines(event)
    told = [line.split("  ", 1)[1].strip() for line in capsys.readouterr().err.splitlines()]
    assert [line.partition("profile")[2].strip() for line in told] == [
        "activation ranges (as before)",
        "time of layers",
        "activation ranges (as before)",
    ]


def test_a_steps_time_left_follows_from_its_own_progress(now):
    left = _Left()
    step = [Event("profile", "progress", "layers", done, 10) for done in range(11)]
    assert left.words(step[0]) == ""
    now[0] += 8
    assert left.words(step[2]) == "about 32 s left of this step"
    now[0] += 2
    assert left.words(step[5]) == "about 10 s left of this step"
    assert left.words(step[10]) == ""
    now[0] += 100
    assert left.words(step[0]) == "", "the same step of another candidate begins anew"
    now[0] += 1
    assert left.words(step[1]) == "about 9 s left of this step"


def test_the_forecast_of_the_run_is_told_once_and_not_counted_down(now, capsys):
    plain = _Plain()
    plain(Event("load", "note", "a model", data={"forecast_seconds": 60}))
    for _ in range(3):
        now[0] += 30
        plain(Event("choose", "done", "candidate"))
    told = capsys.readouterr().err.splitlines()
    assert told[0].endswith("a model  [forecast: about 1 min 00 s more]")
    assert [line.endswith("choose   candidate") for line in told[1:]] == [True] * 3


def test_where_steps_are_reused_no_forecast_is_told():
    left = _Left()
    left.words(Event("lower", "reused", "float file"))
    assert left.words(Event("load", "note", "a model", data={"forecast_seconds": 60})) == ""


def test_plain_lines_are_no_flood(now, capsys):
    plain = _Plain()
    for count in range(101):
        now[0] += 0.1
        plain(Event("profile", "progress", "ranges", count, 100))
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 5
    assert lines[0].endswith("ranges 0/100")
    assert lines[-1].endswith("ranges 100/100"), "the end is always told"


def test_a_step_that_begins_again_is_told_though_it_ended_a_moment_ago(now, capsys):
    plain = _Plain()
    for _ in range(2):
        for count in range(3):
            now[0] += 0.1
            plain(Event("measure", "progress", "starts", count, 2))
    ends = [line.rpartition(" ")[2] for line in capsys.readouterr().err.splitlines()]
    assert ends == ["0/2", "2/2"] * 2


def test_every_other_event_is_told(now, capsys):
    plain = _Plain()
    for kind in ("start", "done", "finding", "note", "reused"):
        plain(Event("lower", kind, f"a {kind}"))
    told = capsys.readouterr().err
    assert told.count("\n") == 5
    assert "a reused (as before)" in told


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


SHOW = """
import time
from haversack.base.progress import Event
from haversack.cli.terminal import display
with display() as sink:
    for stage in ("load", "lower", "verify"):
        sink(Event(stage, "progress", "a step", 1, 3))
        time.sleep(0.15)
        sink(Event(stage, "done", f"[{stage}] is done"))
"""


def test_on_a_terminal_what_was_told_stays_with_its_stage(environment):
    """A real terminal, read as it stands at the end: what is erased is not there."""
    parent, child = pty.openpty()
    running = subprocess.Popen([sys.executable, "-c", SHOW], stdout=child, stderr=child, env=environment)
    os.close(child)
    told = bytearray()
    with contextlib.suppress(OSError):  # how Linux says that the other end was closed
        while piece := os.read(parent, 65536):
            told += piece
    os.close(parent)
    assert running.wait(60) == 0
    lines = [line.rpartition("\x1b[2K")[2] for line in told.decode().replace("\r\n", "\n").split("\n")]
    plain = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).strip("\r ") for line in lines]
    assert [line for line in plain if line.startswith("\u2713")] == [
        "\u2713     load [load] is done",
        "\u2713    lower [lower] is done",
        "\u2713   verify [verify] is done",
    ]
