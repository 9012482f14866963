"""kill -9 and a full disk at every call that changes the home: the old or the new model answers, never neither.

A small library counts the calls of a real update (write, rename, fsync, unlink, link, truncate, making files and
folders) and ends the process at the n-th, for every n; or tears the n-th write in half; or refuses all that needs room
from the n-th on.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from shop import Shop, copied, tried_here

from haversack.base.errors import EnvironmentFault
from haversack.flow.client import Client

HERE = Path(__file__).parent
pytestmark = pytest.mark.timeout(1500)  # half a minute each, but on a machine that others use too
OLD, NEW = 2.0, 3.0


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """The library, built here."""
    made = tmp_path_factory.mktemp("shim") / "faults.so"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(made), str(HERE / "faults.c"), "-ldl"]
    subprocess.run(["gcc", *flags], check=True)
    return made


@pytest.fixture(scope="module")
def memory():
    """A folder in memory where there is one: what is counted is calls, and no disk is waited for."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="haversack-", dir=place))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def shop(memory):
    """Three releases: a home has the first two, and the third is offered, with a delta."""
    made = Shop.create(memory / "shop")
    made.publish("1.0.0", 1.0)
    client = Client(memory / "before", made.url, made.root, tune=None)
    client.update("digits")
    made.publish("1.1.0", OLD)
    client.update("digits")
    made.publish("1.2.0", NEW)
    copied(memory / "before", memory / "after")
    assert Client(memory / "after", test=tried_here, tune=None).update("digits").action == "installed"
    return made


def run(shim, memory, shop, environment, mode, *act, before="before", first=1, step=1):
    """Return what was told of every fault."""
    work = memory / f"work-{mode}-{before}-{first}"
    words = [memory / before, work, shop.root, shop.site.root, mode, first, step, *act]
    words = [sys.executable, "-B", HERE / "updater.py", *words]
    env = {**environment, "LD_PRELOAD": str(shim), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(list(map(str, words)), env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert told[-1]["whole"]
    assert not any("whole" in one for one in told[:-1])
    return told[:-1]


def check(told, allowed):
    """Say that the home answered at once, and that a second update completed, after every fault."""
    wrong = [one for one in told if one["then"] not in allowed]
    assert wrong == []
    wrong = [one for one in told if one["again"].get("action") not in {"installed", "current"} or one["last"] != NEW]
    assert wrong == []


@pytest.mark.parametrize("mode", ["kill", "tear"])
def test_killed_at_every_call(shim, memory, shop, environment, mode):
    told = run(shim, memory, shop, environment, mode)
    if mode == "kill":
        assert len(told) > 60
    else:
        assert len(told) > 10
    assert {one["ended"] for one in told} == {"SIGKILL"}
    check(told, {OLD, NEW})
    answers = [one["then"] for one in told]
    assert answers[0] == OLD
    assert answers[-1] == NEW
    assert answers == sorted(answers)  # one moment decides


def test_killed_at_every_call_of_a_first_install(shim, memory, shop, environment):
    told = run(shim, memory, shop, environment, "kill", before="nothing")
    assert len(told) > 60
    nothing = {one["then"] for one in told} - {NEW}
    assert len(nothing) == 1
    assert "nothing is installed" in nothing.pop()
    check(told, {one["then"] for one in told})


def test_a_disk_that_is_full_from_every_call_on(shim, memory, shop, environment):
    told = run(shim, memory, shop, environment, "full")
    assert len(told) > 30
    check(told, {OLD, NEW})
    failed = [one["ended"] for one in told if "error" in one["ended"]]
    assert len(failed) > 30
    assert {one["kind"] for one in failed} == {"EnvironmentFault"}
    assert all("the disk is full" in one["error"] for one in failed)


@pytest.mark.parametrize("mode", ["kill", "tear", "full"])
def test_a_way_back_that_is_stopped_at_every_call(shim, memory, shop, environment, mode):
    """One moment decides: before it the newer release is in use, and after it that is not installed again."""
    told = run(shim, memory, shop, environment, mode, "back", before="after")
    assert len(told) > (1 if mode == "tear" else 5)
    ends = [(one["then"], one["again"].get("action"), one["last"]) for one in told]
    assert set(ends) == {(NEW, "current", NEW), (OLD, "quarantined", OLD)}
    if mode != "full":  # one whose pointer alone could not be written says so, and comes to its end all the same
        assert ends == sorted(ends, reverse=True)


def test_a_small_disk(memory, shop, tmp_path):
    """A real file system that has ever more room for the update, until it has enough."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine lets nobody mount: {done.stderr.strip()}")
    try:
        ends = [with_room(memory, disk, blocks) for blocks in (1, 3, 6, 9, 12, 15, 18)]
        assert ends[0] == "1.1.0"
        assert ends == sorted(ends)
        assert ends[-1] == "1.2.0"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def with_room(memory, disk, blocks):
    """Return what is in use after an update with so many free blocks; the next one, with room, installs."""
    shutil.rmtree(disk / "home", ignore_errors=True)
    copied(memory / "before", disk / "home")
    filler = disk / "filler"
    free = os.statvfs(disk)
    filler.write_bytes(bytes((free.f_bavail - blocks) * free.f_frsize))
    client = Client(disk / "home", test=tried_here, tune=None)
    try:
        client.update("digits")
    except EnvironmentFault as error:
        assert "disk" in str(error) or "bytes" in str(error), error
    with client.open("digits", follow=False) as model:
        found = model.version
    filler.unlink()
    assert client.update("digits").installed.version == "1.2.0"
    with client.open("digits", follow=False) as model:
        assert model.version == "1.2.0"
    return found


def test_two_processes_update_one_home(memory, shop, environment):
    copied(memory / "before", memory / "shared")
    words = ["client", "update", "digits", "--home", str(memory / "shared"), "--json"]
    command = [sys.executable, "-m", "haversack.cli", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, env=environment, **pipes) for _ in range(2)]
    told = [(process.communicate()[0], process.returncode) for process in both]
    codes = sorted(code for _, code in told)
    assert codes in ([0, 0], [0, 6])
    actions = [json.loads(out).get("action", json.loads(out).get("error", {}).get("cause")) for out, _ in told]
    assert "installed" in actions
    assert set(actions) <= {"installed", "current", "another process or thread works here"}
    with Client(memory / "shared").open("digits", follow=False) as model:
        assert model.version == "1.2.0"
