from __future__ import annotations

import numpy as np
import pytest

from haversack.measure.device import Opening
from haversack.measure.local import LocalDevice
from haversack.tools.worker.faults import NeverReady, WorkerCrashed, WorkerError, WorkerTimeout

PLANNED = "openers:planned"
REAL = "openers:real"
ONE = {"x": np.ones((1, 3), np.float32)}


def test_a_real_file_runs_in_its_real_runtime(local_device, onnx_file):
    path, oracle = onnx_file()
    handle = local_device.load(Opening(path, REAL))
    x = np.random.default_rng(1).standard_normal((5, 16)).astype(np.float32)
    outputs = local_device.run(handle, {"x": x})
    assert list(outputs) == ["r1"]
    np.testing.assert_allclose(outputs["r1"], oracle(x), rtol=1e-5, atol=1e-6)


def test_an_artefact_is_a_function_of_samples(local_device, onnx_file):
    path, oracle = onnx_file()
    predict = local_device.predict(local_device.load(Opening(path, REAL)), ["x"])
    x = np.ones((2, 16), np.float32)
    (y,) = predict((x,))
    np.testing.assert_allclose(y, oracle(x), rtol=1e-5)
    with pytest.raises(ValueError, match="zip"):
        predict((x, x))


def test_options_and_threads_reach_the_session(local_device, planned_file):
    handle = local_device.load(Opening(planned_file(), PLANNED, {"some.option": "2"}, threads=3))
    outputs = local_device.run(handle, ONE)
    assert outputs["threads"] == 3
    assert outputs["some.option"] == 2


def test_handles_live_side_by_side(local_device, planned_file):
    double, triple = (
        local_device.load(Opening(planned_file(f"x{factor}", factor=factor), PLANNED)) for factor in (2, 3)
    )
    assert local_device.run(double, ONE)["y"].tolist() == [[2, 2, 2]]
    assert local_device.run(triple, ONE)["y"].tolist() == [[3, 3, 3]]
    assert local_device.run(double, ONE)["calls"] == 2


def test_a_foreign_file_is_the_runtime_s_error_and_costs_nobody_else(local_device, tmp_path, onnx_file):
    path, _ = onnx_file()
    good = local_device.load(Opening(path, REAL))
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(WorkerError) as caught:
        local_device.load(Opening(tmp_path / "bad.onnx", REAL))
    assert "onnxruntime" in caught.value.type
    assert local_device.run(good, {"x": np.ones((1, 16), np.float32)})["r1"].shape == (1, 32)


def test_a_wrong_shape_is_the_runtime_s_error(local_device, onnx_file):
    path, _ = onnx_file()
    handle = local_device.load(Opening(path, REAL))
    with pytest.raises(WorkerError, match="InvalidArgument|INVALID_ARGUMENT"):
        local_device.run(handle, {"x": np.ones((1, 7), np.float32)})


def test_an_unknown_target_is_told(local_device, planned_file):
    with pytest.raises(WorkerError, match="no target named 'onnxruntim'"):
        local_device.load(Opening(planned_file(), "onnxruntim"))
    with pytest.raises(WorkerError, match="no attribute"):
        local_device.load(Opening(planned_file(), "openers:nothing"))


def test_a_crash_ends_the_call_and_the_other_handles_open_again(new_device, planned_file):
    device = new_device()
    good = device.load(Opening(planned_file("good", factor=2), PLANNED))
    assert device.run(good, ONE)["calls"] == 1
    bad = device.load(Opening(planned_file("bad", crash=True), PLANNED))
    with pytest.raises(WorkerCrashed, match="SIGABRT"):
        device.run(bad, ONE)
    outputs = device.run(good, ONE)
    assert outputs["y"].tolist() == [[2, 2, 2]]
    assert outputs["calls"] == 1  # a new session in a new process
    with pytest.raises(WorkerCrashed):
        device.time((good, bad), ONE, rounds=2)
    assert device.run(good, ONE)["calls"] == 1


def test_a_hang_ends_the_call(new_device, planned_file):
    device = new_device(call_seconds=0.5)
    hanging = device.load(Opening(planned_file("hanging", hang=True), PLANNED))
    with pytest.raises(WorkerTimeout):
        device.run(hanging, ONE)
    assert device.run(device.load(Opening(planned_file("good"), PLANNED)), ONE)["calls"] == 1


def test_calls_are_interleaved_and_every_other_round_is_reversed(local_device, planned_file, tmp_path):
    log = tmp_path / "order"
    handles = [local_device.load(Opening(planned_file(name, log=str(log)), PLANNED)) for name in "abc"]
    times = local_device.time(handles, ONE, rounds=4, warmup=2)
    assert log.read_text() == "abcabc" + "abc" + "cba" + "abc" + "cba"
    assert times.wall.shape == times.cpu.shape == (4, 3)
    assert times.wall.dtype == np.int64


def test_times_are_of_the_handle_they_stand_for(local_device, planned_file):
    slow, fast = (
        local_device.load(Opening(planned_file(name, seconds=seconds), PLANNED))
        for name, seconds in (("slow", 0.006), ("fast", 0.002))
    )
    times = local_device.time((slow, fast), ONE, rounds=9)
    assert times.wall[:, 0].min() >= 6e6
    assert times.wall[:, 1].min() >= 2e6
    assert np.median(times.wall[:, 0]) > np.median(times.wall[:, 1])
    assert np.median(times.cpu[:, 0]) > 3e6  # it spins: the processor works for most of that time
    swapped = local_device.time((fast, slow), ONE, rounds=9)
    assert swapped.wall[:, 1].min() >= 6e6


def test_cpu_time_does_not_count_sleep(local_device, planned_file):
    sleepy = local_device.load(Opening(planned_file("sleepy", rest_seconds=0.02), PLANNED))
    times = local_device.time((sleepy,), ONE, rounds=5)
    assert times.wall.min() >= 20e6
    assert np.median(times.cpu) < 5e6


def test_a_hang_while_timing_ends_the_call(new_device, planned_file):
    device = new_device(call_seconds=0.2)
    hanging = device.load(Opening(planned_file("hanging", hang=True), PLANNED))
    with pytest.raises(WorkerTimeout):
        device.time((hanging,), ONE, rounds=1, seconds=0.1)


def test_no_round_begins_after_the_time_is_up(local_device, planned_file):
    handle = local_device.load(Opening(planned_file(seconds=0.01), PLANNED))
    times = local_device.time((handle,), ONE, rounds=1000, seconds=0.1)
    assert 1 <= len(times.wall) <= 11
    assert len(local_device.time((handle,), ONE, rounds=1000, seconds=0.0).wall) == 1


def test_an_unloaded_handle_opens_again_on_use(local_device, planned_file):
    handle = local_device.load(Opening(planned_file(), PLANNED))
    local_device.run(handle, ONE)
    local_device.unload(handle)
    local_device.unload(handle)
    assert local_device.run(handle, ONE)["calls"] == 1


def test_a_closed_device_starts_again_and_may_be_closed_twice(new_device, planned_file):
    device = new_device()
    handle = device.load(Opening(planned_file(), PLANNED))
    device.close()
    device.close()
    assert device.run(handle, ONE)["calls"] == 1


def test_a_start_is_measured_in_a_fresh_process(local_device, planned_file):
    path = planned_file(load_seconds=0.05, first_seconds=0.03)
    start = local_device.start(Opening(path, PLANNED), ONE)
    assert 50 <= start.load_ms < 1000
    assert 30 <= start.first_ms < 1000
    held = local_device.load(Opening(path, PLANNED))
    assert local_device.run(held, ONE)["calls"] == 1  # the start's calls were not made in this process


def test_a_start_that_crashes_is_told(local_device, planned_file):
    with pytest.raises(WorkerCrashed, match="SIGABRT"):
        local_device.start(Opening(planned_file(crash=True), PLANNED), ONE)


def test_the_peak_of_importing_is_measured_once_for_a_target_and_its_inputs(local_device, monkeypatch):
    first = local_device.import_peak(REAL, ONE)
    assert first > 10e6
    monkeypatch.setattr(local_device, "_fresh", None)  # a second process would fail
    assert local_device.import_peak(REAL, ONE) == first


def test_a_child_killed_before_it_opens_anything_is_started_once_more(killer, openers_folder, planned_file):
    with LocalDevice(folders=[openers_folder], python=killer.python) as device:
        killer.next(1)
        assert device.run(device.load(Opening(planned_file(), PLANNED)), ONE)["calls"] == 1
        killer.next(1)
        assert device.start(Opening(planned_file(), PLANNED), ONE).load_ms > 0
        killer.next(1)
        assert device.import_peak(REAL, ONE) > 10e6
        assert killer.left == 0


def test_two_children_killed_before_they_open_anything_say_nothing_of_the_file(killer, openers_folder, planned_file):
    with LocalDevice(folders=[openers_folder], python=killer.python) as device:
        killer.next(3)
        with pytest.raises(NeverReady, match="SIGKILL: memory may have run out"):
            device.load(Opening(planned_file(), PLANNED))
        assert killer.left == 1, "it is tried twice, not for ever"
        assert device.run(device.load(Opening(planned_file(), PLANNED)), ONE)["calls"] == 1, (
            "the last one dies, no more"
        )


def test_a_process_that_dies_of_importing_alone_says_nothing_of_a_file(new_device, openers_folder, monkeypatch):
    (openers_folder / "deadly.py").write_text("import os\nos.abort()\n")
    with pytest.raises(NeverReady, match="SIGABRT"):
        new_device().import_peak("deadly:target", ONE)
