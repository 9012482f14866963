"""A runtime that brings its process down costs the candidate, wherever it is asked, and never the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from haversack.base.plan import LayerPlan, Plan, Step
from haversack.measure.local import LocalDevice

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
