"""A runtime that dies, hangs, talks rubbish or takes all memory costs its own call, wherever the device is."""

from __future__ import annotations

import shutil
import time
from contextlib import contextmanager

import numpy as np
import pytest

from haversack.measure import ssh
from haversack.measure.device import Opening
from haversack.measure.emulated import EmulatedDevice
from haversack.measure.local import LocalDevice
from haversack.measure.remote import RemoteDevice
from haversack.tools.worker.faults import WorkerCrashed, WorkerError, WorkerTimeout
from haversack.tools.worker.process import Limits

PLANNED = "openers:planned"
ONE = {"x": np.ones((1, 3), np.float32)}
CALL_SECONDS = 2.0
x86 = pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="qemu-x86_64 is not installed; make system-arm64")

FAILURES = {
    "crashes on load": ({"load_crash": True}, WorkerCrashed, "the process died of SIGABRT"),
    "hangs on load": ({"load_seconds": 1000}, WorkerTimeout, "no answer within 2 s; the process was killed"),
    "crashes at the third run": ({"crash_at": 3}, WorkerCrashed, "the process died of SIGABRT"),
    "hangs at the third run": ({"hang_at": 3}, WorkerTimeout, "no answer within 2 s; the process was killed"),
    "ends at the third run": ({"leave_at": 3}, WorkerCrashed, "the process ended with status 7"),
    "sends rubbish": ({"rubbish_at": 3}, WorkerCrashed, "its answer is none: a frame begins with"),
    "is killed for its memory": ({"kill_at": 3}, WorkerCrashed, "SIGKILL: memory may have run out"),
    "gets no memory": ({"megabytes": 16384}, WorkerError, "Unable to allocate 16.0 GiB|MemoryError"),
}


@contextmanager
def local(folder, board, limits):
    with LocalDevice(folders=[folder], limits=limits) as device:
        yield device


@contextmanager
def over_ssh(folder, board, limits):
    address = board().device.removeprefix("ssh:")
    with RemoteDevice(ssh.carrier(address), ssh.installs(address), folders=[folder], limits=limits) as device:
        yield device


@contextmanager
def emulated(folder, board, limits):
    with EmulatedDevice("haswell", limits=limits) as device:
        device._folders = (*device._folders, folder)
        yield device


@pytest.fixture
def open_device(openers_folder, request):
    def begin(kind, **limits):
        limits = Limits(**{"call_seconds": CALL_SECONDS, "start_seconds": 60.0, **limits})
        return kind(openers_folder, lambda: request.getfixturevalue("board"), limits)

    return begin


def tried(device, opening):
    """Open a file and run it four times."""
    handle = device.load(opening)
    return [device.run(handle, ONE)["calls"][0] for _ in range(4)]


@pytest.mark.parametrize("kind", [local, over_ssh])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_told_with_its_cause_and_the_next_file_runs(open_device, planned_file, kind, failure):
    plan, fault, said = FAILURES[failure]
    limits = {"address_space": 8 << 30} if "megabytes" in plan else {}
    with open_device(kind, **limits) as device:
        good = device.load(Opening(planned_file("good", factor=2), PLANNED))
        assert device.run(good, ONE)["calls"] == 1
        began = time.monotonic()
        with pytest.raises(fault, match=said) as caught:
            tried(device, Opening(planned_file("bad", **plan), PLANNED))
        assert time.monotonic() - began < 5 * CALL_SECONDS
        assert caught.value.method in {"load", "run"}
        assert device.run(good, ONE)["y"].tolist() == [[2, 2, 2]]


@pytest.mark.parametrize("kind", [local, over_ssh])
@pytest.mark.parametrize("failure", ["crashes on load", "crashes at the third run"])
def test_a_failure_while_measuring_is_told_too(open_device, planned_file, kind, failure):
    plan, fault, said = FAILURES[failure]
    with open_device(kind) as device:
        with pytest.raises(fault, match=said):
            device.start(Opening(planned_file("bad", **plan), PLANNED), ONE)
        good, bad = planned_file("good"), planned_file("bad", **plan)
        with pytest.raises(fault, match=said):
            device.time([device.load(Opening(one, PLANNED)) for one in (good, bad)], ONE, rounds=5)
        assert device.start(Opening(good, PLANNED), ONE).load_ms < 1000 * CALL_SECONDS


@x86
@pytest.mark.timeout(300)
def test_a_crash_under_emulation_is_told_and_the_next_file_runs(open_device, planned_file):
    with open_device(emulated) as device:
        with pytest.raises(WorkerCrashed, match="SIGABRT"):
            tried(device, Opening(planned_file("bad", load_crash=True), PLANNED))
        assert tried(device, Opening(planned_file("good"), PLANNED)) == [1, 2, 3, 4]


def test_what_the_runtime_printed_before_it_died_comes_over_ssh(open_device, planned_file):
    with open_device(over_ssh) as device, pytest.raises(WorkerCrashed) as caught:
        tried(device, Opening(planned_file("bad", load_crash=True), PLANNED))
    assert "Fatal Python error: Aborted" in caught.value.log
    assert "openers.py" in str(caught.value)
