"""A float file is run once after it is written: a runtime that fails on its own costs its target, and no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from haversack.base.budget import Budget
from haversack.base.errors import ConversionError
from haversack.flow import floats
from haversack.flow.pack import pack
from haversack.flow.search import exit_code
from haversack.measure.local import LocalDevice
from haversack.targets.contract import SHELF
from haversack.tools.worker.process import DEFAULT_LIMITS

FAKES = Path(__file__).parents[1] / "fakes" / "aborting"
WAYS = {"float open": "SIGABRT", "float run": "SIGABRT", "float hang": "no answer within", "float refused": "0x12"}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, 4)).eval()


@pytest.fixture
def device():
    """A device whose children find the fake, and do not wait long for it."""
    with LocalDevice(folders=[FAKES], limits=replace(DEFAULT_LIMITS, call_seconds=20.0)) as found:
        yield found


@pytest.mark.parametrize("way", WAYS)
def test_the_other_target_goes_on(network, device, steps_on, monkeypatch, way):
    monkeypatch.syspath_prepend(str(FAKES))
    monkeypatch.setenv("ABORTS_IN", way)
    steps = steps_on(network, device, "aborting")
    steps = replace(steps, targets={**steps.targets, "onnxruntime": SHELF.build("onnxruntime")})
    assert list(steps.floats) == ["onnxruntime"]
    assert WAYS[way] in steps.failed["aborting"].cause
    assert steps.running == ("onnxruntime",)
    assert list(steps.constraints) == list(steps.makers) == ["onnxruntime"]
    assert steps.checked_baseline().value == 1.0
    assert set(steps.profile.seconds) == {"onnxruntime"}


@pytest.mark.parametrize("way", WAYS)
def test_alone_it_is_an_error_that_says_which_runtime(network, device, steps_on, monkeypatch, way):
    monkeypatch.syspath_prepend(str(FAKES))
    monkeypatch.setenv("ABORTS_IN", way)
    with pytest.raises(ConversionError) as caught:
        steps_on(network, device, "aborting").checked_baseline()
    assert caught.value.cause == "aborting cannot run this model"
    assert WAYS[way] in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_lost_target_is_a_failed_candidate_and_no_success(network, device, steps_on, monkeypatch):
    monkeypatch.syspath_prepend(str(FAKES))
    monkeypatch.setenv("ABORTS_IN", "float run")
    steps = steps_on(network, device, "aborting")
    steps = replace(steps, targets={**steps.targets, "onnxruntime": SHELF.build("onnxruntime")})
    assert steps.floats
    lost = floats.lost("aborting", steps.failed["aborting"])
    assert (lost.verdict, lost.artifact, lost.plan.target) == ("failed", None, "aborting")
    assert [finding.kind for finding in lost.findings] == ["worker-crashed"]
    assert "does not run its own float file" in lost.reason
    assert exit_code([lost], (), Budget()) == 5
    refused = floats.lost("aborting", ConversionError("it has no form"))
    assert [finding.kind for finding in refused.findings] == ["unreadable"]


JOB = """
import numpy as np
import torch

torch.manual_seed(0)
NETWORK = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 3)).eval()
IMAGES = np.random.default_rng(0).normal(size=(24, 3, 8, 8)).astype(np.float32)
metric = "top1"

def model():
    return NETWORK

def calibration():
    return [(IMAGES[:8],)]

def evaluation():
    with torch.no_grad():
        labels = NETWORK(torch.from_numpy(IMAGES)).argmax(1).numpy()
    return [((IMAGES[start:start + 8],), labels[start:start + 8]) for start in range(0, 24, 8)]
"""


def test_a_whole_run_ships_the_other_target_and_tells(tmp_path, monkeypatch):
    """Children import the fake by PYTHONPATH, as a third party's target is found."""
    monkeypatch.syspath_prepend(str(FAKES))
    monkeypatch.setenv("PYTHONPATH", str(FAKES))
    monkeypatch.setenv("ABORTS_IN", "float run")
    (tmp_path / "job.py").write_text(JOB)
    outcome = pack(
        str(tmp_path / "job.py"),
        targets=("aborting", "onnxruntime"),
        budget="drop=20pt",
        allow=("slower-than-float",),
        out=tmp_path / "out",
    )
    assert (tmp_path / "out" / "best" / "onnxruntime" / "model.onnx").is_file()
    assert set(outcome.record.best) == {"onnxruntime"}
    dead = [one for one in outcome.record.candidates if one.target == "aborting"]
    assert [one.verdict for one in dead] == ["failed"]
    assert "SIGABRT" in dead[0].reason
    assert outcome.exit_code == 5, "a target that was asked for left nothing"
