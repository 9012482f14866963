"""Ctrl-C and kill -9 at any moment: the same command goes on, and ends with the same bytes as a run left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

SAME = ("recipe.toml", "best/onnxruntime/encodings.safetensors", "best/onnxruntime/model.onnx")
KILLS = 2


def candidates_made(out) -> list[str]:
    path = out / "events.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    found = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event["stage"] == "choose" and event["kind"] == "done":
            found.append(event["text"])
    return found


def events(out) -> int:
    path = out / "events.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def stopped(command, out, environment, after: int, what: signal.Signals) -> tuple[int, str]:
    """Run until ``after`` more events were told, and send a signal; return the exit code and what was said."""
    goal = events(out) + after
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    # A shell starts background jobs with SIGINT ignored, and children inherit that.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, **pipes, env=environment, text=True) as run:
        signal.signal(signal.SIGINT, heard)
        until = time.monotonic() + 200
        while events(out) < goal and run.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        run.send_signal(what)
        said = run.communicate()[1]
    return run.returncode, said


@pytest.fixture(scope="module")
def interrupted(packed, environment):
    """The tiny job interrupted, killed at random moments, and finished; and what each of these said."""
    # A sibling of the other run: the recipe names the job as seen from its folder.
    out = packed.out.parent / f"interrupted-{os.getpid()}"
    command = packed.command(out)
    moments = random.Random(20260101)
    first = stopped(command, out, environment, moments.randint(12, 25), signal.SIGINT)
    killed = [stopped(command, out, environment, moments.randint(14, 30), signal.SIGKILL)[0] for _ in range(KILLS)]
    last = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return out, first, killed, last


def test_ctrl_c_is_exit_code_130_and_says_that_the_run_goes_on(interrupted):
    _, (code, said), _, _ = interrupted
    assert code == 130, said
    assert "the same command goes on" in said
    assert "Traceback" not in said


def test_sigterm_is_exit_code_143_and_the_run_goes_on(packed, environment):
    out = packed.out.parent / f"terminated-{os.getpid()}"
    code, said = stopped(packed.command(out), out, environment, 12, signal.SIGTERM)
    assert code == 143, said
    assert "the same command goes on" in said
    assert "Traceback" not in said


def test_it_was_killed_in_the_middle(interrupted):
    _, _, killed, _ = interrupted
    assert killed == [-signal.SIGKILL] * KILLS


def test_the_same_command_ends_well(interrupted):
    _, _, _, last = interrupted
    assert last.returncode == 0, last.stderr
    assert "(as before)" in last.stderr


@pytest.mark.parametrize("name", SAME)
def test_it_ends_with_the_bytes_of_a_run_left_alone(interrupted, packed, name):
    out, *_ = interrupted
    assert (out / name).read_bytes() == (packed.out / name).read_bytes()


def test_no_candidate_is_made_twice(interrupted):
    out, *_ = interrupted
    made = candidates_made(out)
    assert len(made) == len(set(made))


def test_nothing_half_written_is_left(interrupted):
    out, *_ = interrupted
    assert list(out.rglob("*.part")) == []
    assert list((out / "best").rglob(".*")) == []


def test_sigterm_is_heard_while_a_call_does_not_return():
    """As a runtime's: the main thread never comes back to Python, and other threads run."""
    script = """
import atexit, ctypes, os, signal, threading
from haversack.cli import process
process.GRACE_SECONDS = 0.2
atexit.register(lambda: os.write(1, b"tidied"))
libc = ctypes.CDLL(None)
with process.orderly():
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    mutex = (ctypes.c_char * 256)()
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)  # for ever, whatever signal comes
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (143, b"tidied"), done.stderr


def test_a_second_sigterm_ends_it_at_once():
    script = """
import os, signal
from haversack.cli.process import Terminated, orderly
try:
    with orderly():
        os.kill(os.getpid(), signal.SIGTERM)
except Terminated:
    os.kill(os.getpid(), signal.SIGTERM)
    print("again")
"""
    with_handler = script.replace("    os.kill(os.getpid(), signal.SIGTERM)\n    print", "    print")
    assert subprocess.run([sys.executable, "-c", with_handler], capture_output=True, check=False).returncode == 0
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGTERM


@pytest.mark.parametrize("imported", ["haversack.cli.process", "cyclopts", "haversack.flow.pack", "torch"])
def test_ctrl_c_while_modules_are_loaded_is_told_in_words_too(imported, packed, environment, tmp_path):
    """The signal is sent to itself by the process at the moment when it imports a module."""
    script = f"""
import importlib.abc, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Stop(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {imported!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Stop())
from haversack.cli import main
sys.exit(main({packed.command(tmp_path / "out")[3:]}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False, timeout=100
    )
    assert done.returncode == 130, done.stderr
    last = done.stderr.splitlines()[-2:]  # before them at most the line that says what is read
    assert last[0] == "haversack: stopped; the same command goes on from where it was"
    assert last[1].startswith("  next: haversack")
    assert str(tmp_path / "out") in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_forked_child_hears_sigterm_as_ever():
    """As the workers of a pool that a job makes, which ends them so: neither they nor their parent hear it as ours."""
    script = """
import os, signal, time
from haversack.cli import process
process.GRACE_SECONDS = 0.3
with process.orderly():
    child = os.fork()
    if not child:
        time.sleep(30)
    time.sleep(0.3)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    time.sleep(1.0)
print("went on", os.WTERMSIG(status) == signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on True\n", "")


def test_a_second_sigterm_is_heard_while_a_call_does_not_return():
    script = """
import ctypes, os, signal, threading
from haversack.cli import process
process.GRACE_SECONDS = 30.0
mutex = (ctypes.c_char * 256)()
libc = ctypes.CDLL(None)
with process.orderly():
    for seconds in (0.3, 0.6):
        threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)  # for ever
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    assert done.returncode == 143
    assert time.monotonic() - began < 20
