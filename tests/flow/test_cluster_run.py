"""``pack --ray local:2``: Ctrl-C, kill -9, and the same bytes as a run that spreads nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

SAME = ("recipe.toml", "best/onnxruntime/encodings.safetensors", "best/onnxruntime/model.onnx")
PATIENCE = 200.0


def until(true, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return true()


def lives(process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def told(out) -> str:
    path = out / "events.jsonl"
    return path.read_text() if path.exists() else ""


def stopped(command, out, environment, what):
    """Run until layers are looked at, send a signal; return the exit code, what was said, Ray's processes by name."""
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, env=environment, text=True) as run:
        signal.signal(signal.SIGINT, heard)
        before = told(out)
        until(lambda: "sensitivity of layers" in told(out)[len(before) :] or run.poll() is not None)
        below = psutil.Process(run.pid).children(recursive=True)
        rays = {one: one.name() for one in below if "ray" in " ".join(one.cmdline())}
        run.send_signal(what)
        said = run.communicate()[1]
    return run.returncode, said, rays


@pytest.fixture(scope="module")
def begun(packed, environment):
    """The tiny job with two workers: its command, its folder, and the environment with a folder for what is passing."""
    out = packed.out.parent / f"spread-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="hv-", dir="/tmp") as passing:
        yield packed.command(out, "--ray", "local:2"), out, {**environment, "TMPDIR": passing}, Path(passing)


def test_ctrl_c_ends_with_130_and_leaves_nothing(begun):
    command, out, environment, passing = begun
    code, said, rays = stopped(command, out, environment, signal.SIGINT)
    assert code == 130, said
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert rays
    assert until(lambda: not [one for one in rays if lives(one)], 60)
    assert list(passing.glob("haversack-ray-*")) == []


def test_kill_9_takes_the_cluster_along(begun):
    command, out, environment, _ = begun
    code, _, rays = stopped(command, out, environment, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert len(rays) > 4, "two workers and what rules them"
    # Ray's two agents look for who started them, and end a minute later.
    working = [one for one, name in rays.items() if not name.endswith("Agent")]
    assert until(lambda: not any(map(lives, working)), 30)


@pytest.fixture(scope="module")
def runs(begun):
    """The run that goes on to its end."""
    command, out, environment, _ = begun
    return out, subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_the_same_command_goes_on_and_ends_well(runs):
    _, last = runs
    assert last.returncode == 0, last.stderr
    assert "(as before)" in last.stderr
    assert "pure work goes to 2 workers of 1 thread in a Ray cluster (local:2)" in last.stderr


def test_ray_says_nothing_of_its_own(runs, packed):
    _, last = runs
    ours = re.compile(r" *\d+\.\d s  [a-z]+ ")
    strange = [line for line in last.stderr.splitlines() if not ours.match(line)]
    assert set(strange) <= set(packed.stderr.splitlines())
    assert "raylet" not in last.stdout


@pytest.mark.parametrize("name", SAME)
def test_it_ends_with_the_bytes_of_a_run_that_spreads_nothing(runs, packed, name):
    assert (runs[0] / name).read_bytes() == (packed.out / name).read_bytes()
