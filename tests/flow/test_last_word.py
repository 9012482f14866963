"""What is said for a process that ends without a word, and of no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from haversack.flow import last_word as module
from haversack.flow.last_word import last_word

TEXT = "it's gone: %s \\n"


def ended(environment, way):
    """Return the exit code and the standard error of a process that ends so inside."""
    head = "import os, signal, sys\nfrom haversack.flow.last_word import last_word\n"
    command = [sys.executable, "-c", f"{head}with last_word({TEXT!r}):\n    {way}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("way", "code"),
    [
        ("os._exit(1)", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.abort()", -signal.SIGABRT),
    ],
)
def test_a_process_that_ends_without_a_word_has_one(environment, way, code):
    assert ended(environment, way) == (code, f"{TEXT}\n")


@pytest.mark.parametrize(("way", "code"), [("pass", 0), ("sys.exit(3)", 3)])
def test_one_that_ends_by_itself_has_none(environment, way, code):
    assert ended(environment, way) == (code, "")


def test_an_error_is_its_own_word(environment):
    code, told = ended(environment, "raise ValueError('mine')")
    assert code == 1
    assert TEXT not in told
    assert told.endswith("ValueError: mine\n")


def test_what_the_terminal_sends_to_all_does_not_end_the_one_that_tells(environment):
    way = "signal.signal(signal.SIGINT, signal.SIG_IGN); os.killpg(os.getpid(), signal.SIGINT); os._exit(1)"
    assert ended(environment, f"os.setpgid(0, 0); {way}") == (1, f"{TEXT}\n")


def test_without_a_shell_the_work_is_done_all_the_same(monkeypatch):
    monkeypatch.setattr(module, "SHELL", "/no/such/shell")
    with last_word(TEXT):
        done = os.getpid()
    assert done
