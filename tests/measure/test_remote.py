"""A machine over SSH: a real server on loopback, with a home of its own and no path to our source."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from threading import Timer

import numpy as np
import pytest

from haversack.base.errors import UsageError
from haversack.measure import devices, needs, remote, ssh
from haversack.measure.device import NotThere, Opening
from haversack.measure.local import LocalDevice
from haversack.measure.remote import RemoteDevice
from haversack.tools.worker.faults import LinkLost, WorkerCrashed, WorkerError
from haversack.tools.worker.link import Carrier
from haversack.tools.worker.process import Limits

PLANNED = "openers:planned"
REAL = "openers:real"
ONE = {"x": np.ones((1, 16), np.float32)}


@pytest.fixture(scope="module")
def shared(sshd, openers_folder):
    """One device for the tests that leave it as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ssh.CONFIG, str(sshd.config))
        with reached(sshd, openers_folder) as device:
            yield device


def reached(board, folder, **settings):
    address = board.device.removeprefix("ssh:")
    return RemoteDevice(ssh.carrier(address), ssh.installs(address), folders=[folder], **settings)


def test_a_file_runs_there_in_its_real_runtime(shared, onnx_file, sshd):
    path, oracle = onnx_file()
    handle = shared.load(Opening(path, REAL, threads=2))
    x = np.random.default_rng(1).standard_normal((5, 16)).astype(np.float32)
    np.testing.assert_allclose(shared.run(handle, {"x": x})["r1"], oracle(x), rtol=1e-5, atol=1e-6)
    assert shared.name == sshd.device
    shared.unload(handle)


def test_options_and_threads_reach_the_session(shared, planned_file):
    outputs = shared.run(shared.load(Opening(planned_file(), PLANNED, {"some.option": "2"}, threads=3)), ONE)
    assert (outputs["threads"], outputs["some.option"]) == (3, 2)


def test_times_are_taken_there_side_by_side(shared, planned_file):
    slow, fast = (
        shared.load(Opening(planned_file(name, seconds=seconds), PLANNED))
        for name, seconds in (("slow", 0.006), ("fast", 0.002))
    )
    times = shared.time((slow, fast), ONE, rounds=5)
    assert times.wall.shape == times.cpu.shape == (5, 2)
    assert times.wall[:, 0].min() >= 6e6
    assert np.median(times.wall[:, 0]) > np.median(times.wall[:, 1])


def test_a_start_and_its_memory_are_measured_in_a_fresh_process_there(shared, planned_file):
    start = shared.start(Opening(planned_file("large", load_seconds=0.05, megabytes=64), PLANNED), ONE)
    small = shared.start(Opening(planned_file("small"), PLANNED), ONE)
    assert 50 <= start.load_ms < 5000
    assert 60e6 < start.peak_bytes - small.peak_bytes < 80e6


def test_what_importing_takes_is_measured_there_once(shared):
    first = shared.import_peak(REAL, ONE)
    assert first > 10e6
    assert shared._imports[REAL, ONE["x"].nbytes] == shared.import_peak(REAL, ONE) == first


def test_files_are_kept_there_by_their_content(shared, planned_file, sshd):
    path = planned_file(factor=2)
    shared.load(Opening(path, PLANNED))
    found = [one for one in sshd.kept.glob("*/plan.json") if one.read_bytes() == path.read_bytes()]
    assert len(found) == 1
    again = planned_file(factor=3)
    assert shared.run(shared.load(Opening(again, PLANNED)), ONE)["y"][0, 0] == 3, "the same name, another content"
    assert not [one for one in sshd.kept.glob("*") if one.name.startswith("draft-")]


def test_files_beside_the_main_one_go_with_it(tmp_path):
    for name in ("model.onnx", "model.onnx.data", "model.onnx2", "other.onnx", "encodings.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "model.onnx.d").mkdir()
    assert list(remote._artefact(tmp_path / "model.onnx")) == ["model.onnx", "model.onnx.data"]


def test_our_code_travels_and_nothing_that_a_device_does_not_need(openers_folder):
    names = set(remote._code([openers_folder]))
    assert {"haversack/tools/worker/serve.py", "haversack/measure/sessions.py", "openers.py"} <= names
    folders = {name.split("/")[1] for name in names if name.count("/") > 1}
    assert folders == set(remote.OURS)


def test_a_file_that_was_removed_there_comes_again(board, openers_folder, planned_file):
    with reached(board, openers_folder) as device:
        handle = device.load(Opening(planned_file(factor=5), PLANNED))
        for folder in board.kept.iterdir():
            if (folder / "plan.json").exists():
                shutil.rmtree(folder)
        device.unload(handle)
        assert device.run(handle, ONE)["y"][0, 0] == 5


def test_a_foreign_file_is_the_runtime_s_error_there(shared, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(WorkerError) as caught:
        shared.load(Opening(tmp_path / "bad.onnx", REAL))
    assert "onnxruntime" in caught.value.type


def test_what_it_says_of_itself(shared, sshd):
    about = shared.about
    assert about.folder == str(sshd.kept)
    assert about.packages["onnxruntime"] == needs.here("onnxruntime")
    assert about.cores == os.cpu_count()
    assert not about.old
    assert shared.lacks("onnxruntime", looking=True) == shared.lacks("litert") == ""


def changed(device, **fields):
    """Return a device that says something else of itself; it shares all that is open."""
    other = object.__new__(RemoteDevice)
    other.__dict__ |= {**device.__dict__, "about": replace(device.about, **fields)}
    return other


def test_what_is_missing_is_told_with_the_command_that_adds_it(shared, planned_file):
    device = changed(shared, packages={**shared.about.packages, "onnxruntime": "", "onnx": ""})
    why = device.lacks("onnxruntime")
    assert f"{shared.name} has no onnxruntime, which onnxruntime needs there" in why
    assert f"~/.haversack/bin/pip install onnxruntime=={needs.here('onnxruntime')}'" in why
    assert "onnx" in device.lacks("onnxruntime", looking=True).split("has no ")[1].split(",")[1]
    assert device.lacks("litert") == ""
    with pytest.raises(NotThere, match="has no onnxruntime"):
        device.load(Opening(planned_file(), "onnxruntime"))


def test_only_what_packing_needs_may_be_missing_where_one_verifies(shared):
    device = changed(shared, packages={**shared.about.packages, "onnx": ""})
    assert device.lacks("onnxruntime") == ""
    assert "no onnx," in device.lacks("onnxruntime", looking=True)


def test_a_python_that_is_too_old_is_told(shared):
    device = changed(shared, python=(3, 9, 2))
    assert device.about.old
    assert "has Python 3.9.2" in device.lacks("onnxruntime")
    assert "3.11 or later" in device.lacks("anything")


def test_measurements_are_filed_under_the_device_as_it_is(shared):
    assert shared.identity[0] == shared.name
    updated = changed(shared, packages={**shared.about.packages, "onnxruntime": "9.9"})
    assert updated.identity != shared.identity
    assert changed(shared, disk_bytes=1).identity == shared.identity, "a file more there changes nothing"
    assert LocalDevice().identity == ("local",)


def test_needs():
    assert needs.of("onnxruntime") == ("numpy", "onnxruntime")
    assert set(needs.of("litert", looking=True)) == {"numpy", "ai-edge-litert", "cattrs", "flatbuffers"}
    assert needs.of("module:attribute") == ("numpy",)
    assert set(needs.every()) >= {"numpy", "torch", "onnx"}
    assert needs.pinned(("numpy", "no-such-distribution")) == f"numpy=={np.__version__} no-such-distribution"


def test_a_file_just_written_is_opened_in_a_child_here(shared, planned_file, monkeypatch):
    monkeypatch.setattr(shared, "_worker", None)
    shared.opens(Opening(planned_file(), PLANNED))
    assert shared._worker is None, "nothing went over the connection"
    with pytest.raises(WorkerError, match="no attribute"):
        shared.opens(Opening(planned_file(), "openers:nothing"))


def test_a_device_that_vanishes_in_a_call_and_comes_back_costs_that_call(board, openers_folder, planned_file):
    with reached(board, openers_folder, patience=(0.0,)) as device:
        good = device.load(Opening(planned_file("good", factor=2), PLANNED))
        slow = device.load(Opening(planned_file("slow", hang=True), PLANNED))
        assert device.run(good, ONE)["calls"] == 1
        Timer(0.3, os.killpg, (device._worker._process.pid, signal.SIGKILL)).start()
        with pytest.raises(WorkerCrashed, match="lost in this call, and the device can be reached again"):
            device.run(slow, ONE)
        assert device.run(good, ONE)["calls"] == 1


def test_a_device_that_stays_away_ends_with_its_own_error(board, openers_folder, planned_file, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_RETRY_SECONDS", 0.0)
    real = ssh.carrier(board.device.removeprefix("ssh:"))
    off = tmp_path / "off"
    carrier = Carrier(real.name, lambda size: ["false"] if off.exists() else real.program(size), real.hints)
    with RemoteDevice(carrier, "pip install {packages}", folders=[openers_folder], patience=(0.0,)) as device:
        off.write_text("")
        with pytest.raises(LinkLost, match="there is no connection to a Python there"):
            device.load(Opening(planned_file(), PLANNED))


def test_devices_by_their_names(board):
    with devices.opened(board.device, Limits(call_seconds=3.0)) as device:
        assert type(device) is RemoteDevice
        assert device._limits.call_seconds == 3.0
    assert set(devices.FAR) < set(devices.names())


def test_an_emulated_processor_measures_nothing():
    with pytest.raises(UsageError, match="qemu:cortex-a76 is emulated") as caught:
        devices.measuring("qemu:cortex-a76")
    assert "haversack verify OUT --device qemu:cortex-a76" in caught.value.next_step
    assert type(devices.measuring("local")) is LocalDevice
