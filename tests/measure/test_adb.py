"""Devices over adb: Debian's own client against a server that speaks the wire protocol and runs commands here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from haversack.base.errors import EXIT_ENVIRONMENT, UsageError
from haversack.measure import adb, devices
from haversack.measure.device import Opening
from haversack.tools.worker.faults import LinkLost, WorkerCrashed
from haversack.tools.worker.process import Limits

SERVER = Path(__file__).parents[1] / "fakes" / "adb" / "server.py"
SERIAL = "emulator-5554"
ONE = {"x": np.ones((1, 16), np.float32)}
ABORTING = "import os\nclass T:\n    def open_session(self, *_):\n        os.abort()\nt = T()\n"


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """A function that starts a server whose device has these programs: name -> lines of a shell script."""
    if shutil.which("adb") is None:
        reason = "adb is not installed; as root: make system"
        (pytest.fail if os.environ.get("CI", "").lower() in {"1", "true"} else pytest.skip)(reason)
    monkeypatch.setenv("HOME", str(tmp_path))  # where the client keeps its keys
    started = []

    def start(**programs):
        for name, text in programs.items():
            program(tmp_path / "system" / name.replace("_", "-"), text)
        for name in ("sh", "env"):
            (tmp_path / "system").mkdir(exist_ok=True)
            (tmp_path / "system" / name).symlink_to(shutil.which(name))
        words = [sys.executable, str(SERVER), SERIAL, str(tmp_path / "home"), str(tmp_path / "system")]
        (tmp_path / "home").mkdir()
        started.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", started[-1].stdout.readline().strip())

    yield start
    for one in started:
        one.communicate(timeout=10)


PYTHON = f'exec {sys.executable} "$@"'


def test_a_file_runs_on_a_board_with_its_own_python(phone, onnx_file):
    phone(python3=PYTHON)
    path, oracle = onnx_file()
    with devices.opened(f"adb:{SERIAL}") as device:
        handle = device.load(Opening(path, "onnxruntime"))
        found = device.run(handle, ONE)["r1"]
        assert device.name == f"adb:{SERIAL}"
    np.testing.assert_allclose(found, oracle(ONE["x"]), rtol=1e-5)


def test_termux_s_python_is_taken_where_its_package_lets_us_in(phone, tmp_path):
    inside = f"""echo "$@" >> {tmp_path}/asked
[ "$1" = com.termux ] || exit 1
shift
[ "$1" = test ] && exit 0
while [ "$1" != -u ]; do shift; done
HOME={tmp_path}/home; export HOME; exec {sys.executable} "$@\""""
    phone(run_as=inside)
    with devices.opened("adb:") as device:
        assert device.about.executable == sys.executable
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0] == "com.termux test -x /data/data/com.termux/files/usr/bin/python"
    assert "env HOME=/data/data/com.termux/files/home PREFIX=/data/data/com.termux/files/usr" in asked[1]
    assert "/data/data/com.termux/files/usr/bin/python -u -c import sys;exec(" in asked[1]


def test_a_device_without_python_is_told_what_adds_it(phone):
    phone()
    with pytest.raises(LinkLost, match="no connection to a Python there") as caught:
        devices.opened(f"adb:{SERIAL}")
    assert "there is no Python 3" in str(caught.value)
    assert "pkg install python python-numpy python-onnxruntime" in caught.value.next_step
    assert caught.value.exit_code == EXIT_ENVIRONMENT


def test_a_device_that_is_not_there_is_told_with_adb_s_own_words(phone):
    phone(python3=PYTHON)
    with pytest.raises(LinkLost) as caught:
        devices.opened("adb:0123456789")
    assert "device '0123456789' not found" in str(caught.value)
    assert caught.value.next_step.startswith("adb devices")


def test_a_crash_there_says_how(phone, tmp_path):
    phone(python3=PYTHON)
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "aborts.py").write_text(ABORTING)
    (tmp_path / "file").write_bytes(b"x")
    device = devices.RemoteDevice(
        adb.carrier(SERIAL), adb.INSTALLS, folders=[tmp_path / "modules"], limits=Limits(start_seconds=60.0)
    )
    with device, pytest.raises(WorkerCrashed, match="SIGABRT") as caught:
        device.load(Opening(tmp_path / "file", "aborts:t"))
    assert "aborts.py" in caught.value.log, "the fault handler's words come over the connection"


@pytest.mark.parametrize("serial", ["-x", "a b", "a;b", "$(id)", "a'b", "--", "x" * 200, "a\nb", "ä"])
def test_what_cannot_be_a_serial_reaches_no_command(serial):
    with pytest.raises(UsageError, match="is no serial") as caught:
        devices.opened(f"adb:{serial}")
    assert "adb devices" in caught.value.next_step


@pytest.mark.parametrize("serial", ["", SERIAL, "192.168.1.7:5555", "adb-R3_x._adb-tls-connect._tcp"])
def test_the_command_of_the_client(serial):
    command = list(adb.carrier(serial).program(123))
    chosen = command[1 : command.index("shell")]
    assert command[0] == "adb"
    assert chosen == (["-s", serial] if serial else [])
    assert command[-2] == "-T"
    assert subprocess.run(["sh", "-n", "-c", command[-1]], check=False).returncode == 0
    assert "read(123)" in command[-1]
