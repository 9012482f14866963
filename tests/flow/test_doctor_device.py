"""What ``doctor --device`` says: whether the files of each target run there, and what adds what is missing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from haversack.flow import doctor_device
from haversack.flow.doctor_device import DeviceExamination, Seen
from haversack.measure import needs
from haversack.measure.device import Opening
from haversack.measure.remote import About
from haversack.targets.contract import SHELF
from haversack.tools.worker.faults import WorkerCrashed

ABOUT = About(
    (3, 11, 2), "/usr/bin/python3", "Linux 6.6", "aarch64", "", "", 4, 5 << 30, "/home/pi/.cache", {"numpy": "2"}
)
RUNS = Seen("onnxruntime")


def test_a_device_that_can_be_used():
    found = DeviceExamination("ssh:pi", ABOUT, (RUNS, Seen("litert", lacks="ssh:pi has no ai-edge-litert")))
    assert found.healthy
    assert found.lines() == [
        "device ssh:pi",
        "Python 3.11.2 (/usr/bin/python3), Linux 6.6 aarch64, 5.4 GB free in /home/pi/.cache",
        "target onnxruntime: it opened and ran a file there",
        "target litert: ssh:pi has no ai-edge-litert",
        "it can be used",
    ]
    data = json.loads(json.dumps(found.data()))
    assert [one["works"] for one in data["targets"]] == [True, False]
    assert data["about"]["packages"] == {"numpy": "2"}


@pytest.mark.parametrize("wrong", [{"lacks": "no numpy"}, {"cause": "it runs a file and gives wrong values"}])
def test_a_device_on_which_nothing_runs(wrong):
    found = DeviceExamination("ssh:pi", ABOUT, (replace(RUNS, **wrong),))
    assert not found.healthy
    assert next(iter(wrong.values())) in found.lines()[2]
    assert found.lines()[-1].startswith("nothing can run there yet")


def test_what_packing_lacks_and_what_is_of_another_version_is_told():
    seen = replace(RUNS, looks="ssh:pi has no onnx", versions={"onnxruntime": ("1.20.0", "1.32.0")})
    assert seen.works
    assert seen.lines()[1:] == [
        "  verify works; pack does not: ssh:pi has no onnx",
        "  onnxruntime 1.20.0 there, 1.32.0 here: files are verified with what runs them",
    ]


def test_versions_are_compared_without_their_local_part():
    mine = needs.here("onnxruntime")
    assert doctor_device._other(replace(ABOUT, packages={"onnxruntime": f"{mine}+cpu"}), "onnxruntime") == {}
    assert doctor_device._other(replace(ABOUT, packages={"onnxruntime": "1.0"}), "onnxruntime") == {
        "onnxruntime": ("1.0", mine)
    }
    assert doctor_device._other(None, "onnxruntime") == {}


@pytest.fixture
def onnxruntime_only(monkeypatch):
    monkeypatch.setattr(type(SHELF), "names", lambda self: ("onnxruntime",))


def test_a_real_device_is_looked_at(board, onnxruntime_only):
    found = doctor_device.examine(board.device)
    assert found.healthy, found.lines()
    assert found.about is not None
    assert found.lines()[-2:] == ["target onnxruntime: it opened and ran a file there", "it can be used"]


def test_a_runtime_that_dies_there_is_told(onnxruntime_only):
    class Dying:
        def load(self, opening: Opening):
            raise WorkerCrashed("the process died of SIGILL", method="load")

    told = doctor_device._tried(Dying(), "onnxruntime")
    assert told == "the process died of SIGILL (when asked to load)", "no class of ours, no method for a place"
