from __future__ import annotations

import gc
import json
import mmap
import resource
import sys
from pathlib import Path

import numpy as np
import pytest

from haversack.base.errors import EnvironmentFault, UsageError
from haversack.measure.sessions import Sessions, _no_collection, _resident, import_runtime, methods, opener
from haversack.tools.worker.process import Worker
from haversack.tools.worker.protocol import Frame, encode

ONE = {"x": np.ones((1, 2), np.float32)}


@pytest.fixture
def header(openers_folder, planned_file, monkeypatch):
    monkeypatch.syspath_prepend(str(openers_folder))
    yield lambda **more: {"path": str(planned_file()), "target": "openers:planned", "options": {}, "threads": 1, **more}
    sys.modules.pop("openers", None)


def test_the_factory_gives_every_caller_sessions_of_its_own(header):
    one, other = methods(), methods()
    one["load"](header(handle=1), {})
    assert one["run"]({"handle": 1}, ONE)[1]["y"].tolist() == [[1, 1]]
    with pytest.raises(KeyError):
        other["run"]({"handle": 1}, ONE)


def test_an_unloaded_session_is_closed_and_gone(header, planned_file, tmp_path):
    sessions = Sessions()
    path = planned_file("closing", log=str(tmp_path / "log"))
    sessions.load({**header(handle=1), "path": str(path)}, {})
    sessions.unload({"handle": 1}, {})
    assert (tmp_path / "log").read_text() == "closed"
    with pytest.raises(KeyError):
        sessions.run({"handle": 1}, ONE)


def test_every_answer_can_travel(header):
    sessions = Sessions()
    answers = [
        sessions.load(header(handle=1), {}),
        sessions.run({"handle": 1}, ONE),
        sessions.time({"handles": [1], "rounds": 2, "warmup": 1, "seconds": 5}, ONE),
        sessions.start(header(calls=2), ONE),
        sessions.import_only({"target": "openers:planned"}, ONE),
        sessions.unload({"handle": 1}, {}),
    ]
    for data, arrays in answers:
        assert encode(Frame(data, arrays))
        assert json.dumps(data)


def test_warm_up_and_rounds_are_counted(header):
    sessions = Sessions()
    sessions.load(header(handle=1), {})
    sessions.time({"handles": [1], "rounds": 5, "warmup": 2, "seconds": 60}, ONE)
    assert sessions.run({"handle": 1}, ONE)[1]["calls"] == 8


def test_a_start_tells_load_and_first_call_apart(header, planned_file):
    path = planned_file("slow", load_seconds=0.02, first_seconds=0.04)
    data, _ = Sessions().start({**header(calls=0), "path": str(path)}, ONE)
    assert 20e6 <= data["load_ns"] < 40e6 + 500e6
    assert data["first_ns"] >= 40e6
    assert data["peak_bytes"] > 0


def test_the_collector_rests_while_the_clock_runs_and_wakes_up_after_an_error():
    with _no_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), _no_collection():
        1 / 0  # noqa: B018
    assert gc.isenabled()


def test_the_peak_is_at_least_what_is_resident_now():
    ballast = np.ones(4 << 20)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    # The kernel counts pages per processor, and sums up lazily.
    assert _resident("VmHWM") >= pages * resource.getpagesize() - (2 << 20)
    assert _resident("VmHWM") > ballast.nbytes


def test_what_a_file_backs_is_not_private(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(bytes(32 << 20))
    before = _resident("RssAnon")
    mapped = np.memmap(path, np.uint8, "r")
    assert mapped.sum() == 0  # every page is read
    assert _resident("RssAnon") - before < 8 << 20
    # Pages from the kernel: an allocator may hand out what it kept, resident already.
    with mmap.mmap(-1, 32 << 20, mmap.MAP_PRIVATE) as own:
        own.write(b"\1" * len(own))
        assert _resident("RssAnon") - before > len(own) - (2 << 20)


def test_a_system_that_does_not_tell_the_peak_is_a_fault_and_no_zero(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "VmRSS:  100 kB\n")
    with pytest.raises(EnvironmentFault, match="does not tell the memory"):
        _resident("VmHWM")


def test_a_target_is_found_by_reference_or_by_name(header):
    assert type(opener("openers:planned")).__name__ == "Planned"
    with pytest.raises(ModuleNotFoundError):
        opener("no_such_module:planned")
    with pytest.raises(UsageError, match="no target named 'tensorflo'"):
        opener("tensorflo")


def test_a_target_s_runtime_has_its_name_or_the_one_it_states(header):
    sys.modules.pop("decimal", None)
    assert import_runtime("openers:planned") is opener("openers:planned")
    assert "decimal" in sys.modules
    assert type(import_runtime("onnxruntime")) is type(opener("onnxruntime"))
    assert "onnxruntime" in sys.modules


def test_opening_an_onnx_file_needs_no_torch(local_device, onnx_file, tmp_path):
    (tmp_path / "asking.py").write_text(ASKING)
    path, oracle = onnx_file()
    x = np.ones((2, 16), np.float32)
    with Worker.start("asking:methods", folders=[tmp_path]) as worker:
        opening = {"path": str(path), "target": "onnxruntime", "options": {}, "threads": 1}
        worker.call("load", {**opening, "handle": 1})
        np.testing.assert_allclose(worker.call("run", {"handle": 1}, {"x": x})[1]["r1"], oracle(x), rtol=1e-5)
        assert worker.call("loaded", {"modules": ["onnxruntime", "torch", "onnx", "scipy"]})[0]["found"] == [
            "onnxruntime"
        ]


ASKING = """
import sys
from haversack.measure import sessions
def methods():
    return {**sessions.methods(),
            "loaded": lambda header, arrays: ({"found": [n for n in header["modules"] if n in sys.modules]}, {})}
"""
