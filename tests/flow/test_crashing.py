"""A runtime that brings its process down twice costs the candidate, wherever it is asked, and never the run.

Once may be somebody else's doing, and a process that never opened the file says nothing of it.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from haversack.base.plan import LayerPlan, Plan, Step
from haversack.measure import ssh
from haversack.measure.local import LocalDevice
from haversack.measure.remote import RemoteDevice
from haversack.targets.contract import SHELF
from haversack.tools.worker.faults import NeverReady

FAKES = Path(__file__).parents[1] / "fakes" / "aborting"
LAYERS = ("0:conv2d#0", "3:linear#0")
STATIC = Plan("aborting", dict.fromkeys(LAYERS, LayerPlan("int8")), (), Step("minmax"), ("aborting",))
WEIGHTS = replace(STATIC, layers=dict.fromkeys(LAYERS, LayerPlan("float16")))


@pytest.mark.parametrize("place", ["open", "tensors", "unfused", "layer_seconds"])
def test_a_crash_fails_the_candidate_and_the_run_goes_on(steps_on, monkeypatch, place):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, 4)).eval()
    monkeypatch.syspath_prepend(str(FAKES))
    monkeypatch.setenv("ABORTS_IN", place)
    with LocalDevice(folders=[FAKES]) as device:
        steps = steps_on(network, device, "aborting")
        candidate = steps.evaluate(STATIC)
        assert candidate.verdict == "failed"
        assert [finding.kind for finding in candidate.findings if finding.severity == "error"] == ["worker-crashed"]
        assert "SIGABRT" in candidate.reason
        assert steps.evaluate(WEIGHTS).quality is not None


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, 4)).eval()


def kinds(candidate):
    found = [finding.kind for finding in candidate.findings if finding.severity == "error"]
    return [kind for kind in found if kind != "slower-than-float"]


def test_processes_killed_before_they_open_a_file_are_no_finding_and_not_in_the_ledger(steps_on, killer):
    plan = replace(STATIC, target="onnxruntime")
    with LocalDevice(python=killer.python) as device:
        steps = steps_on(network(), device, allow=("slower-than-float",))
        assert steps.baseline.rows is not None
        device.close()
        killer.next(2)
        before = len(steps.shop.ledger)
        with pytest.raises(NeverReady, match="SIGKILL") as caught:
            steps.evaluate(plan)
        assert caught.value.exit_code == 6
        assert len(steps.shop.ledger) - before <= 1, "the ranges alone"
        device.close()
        killer.next(1)
        candidate = steps.evaluate(plan)
        assert killer.left == 0
    assert (candidate.verdict, kinds(candidate)) == ("open", [])
    assert candidate.latency is not None


@pytest.mark.parametrize("kills", [1, 2])
def test_a_process_killed_in_a_call_is_believed_the_second_time(steps_on, killer, monkeypatch, kills):
    monkeypatch.syspath_prepend(str(FAKES))
    monkeypatch.setenv("ABORTS_IN", f"hunted in {killer.folder}")
    told = []
    with LocalDevice(folders=[FAKES]) as device:
        steps = steps_on(network(), device, "aborting", allow=("slower-than-float",))
        steps.shop._sink = told.append
        killer.next(kills)
        candidate = steps.evaluate(STATIC)
    assert killer.left == 0
    notes = [event.text for event in told if "once more in a fresh process" in event.text]
    assert len(notes) == 1, "the first death is told"
    assert "SIGKILL" in notes[0]
    if kills == 1:
        assert (candidate.verdict, kinds(candidate)) == ("open", [])
        assert candidate.memory is not None
    else:
        assert (candidate.verdict, kinds(candidate)) == ("failed", ["worker-crashed"])
        assert "SIGKILL" in candidate.reason


@contextmanager
def local(board, place):
    with LocalDevice(folders=[FAKES]) as device:
        yield device


@contextmanager
def over_ssh(board, place):
    """A machine whose own copy of the target dies; what it gets is looked at first, and has no variable of ours."""
    address = board().device.removeprefix("ssh:")
    with RemoteDevice(ssh.carrier(address), ssh.installs(address), folders=[place]) as device:
        device._guard = LocalDevice(folders=[FAKES])
        yield device


@pytest.mark.parametrize("kind", [local, over_ssh])
def test_one_target_s_file_kills_its_runtime_and_the_other_target_ships(steps_on, monkeypatch, tmp_path, request, kind):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, 4)).eval()
    deadly = tmp_path / "deadly"
    shutil.copytree(FAKES, deadly, ignore=shutil.ignore_patterns("__pycache__"))
    text = (
        (deadly / "aborting.py").read_text().replace("import os\n", 'import os\nos.environ["ABORTS_IN"] = "open"\n', 1)
    )
    (deadly / "aborting.py").write_text(text)
    monkeypatch.syspath_prepend(str(FAKES))
    if kind is local:
        monkeypatch.setenv("ABORTS_IN", "open")
    both = ("aborting", "onnxruntime")
    plans = {name: replace(STATIC, target=name, constrained_by=both) for name in both}
    with kind(lambda: request.getfixturevalue("board"), deadly) as device:
        steps = steps_on(network, device, "aborting")
        steps = replace(steps, targets={**steps.targets, "onnxruntime": SHELF.build("onnxruntime")})
        dead, alive = (steps.evaluate(plans[name]) for name in both)
    assert (dead.verdict, [one.kind for one in dead.findings if one.severity == "error"]) == (
        "failed",
        ["worker-crashed"],
    )
    assert "SIGABRT" in dead.reason
    assert alive.quality is not None
    assert alive.parity is not None
    assert alive.latency is not None
    assert alive.memory is not None
