"""The search of one target on a tiny network: what fails its confirmation is not the end of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from haversack import metrics
from haversack.base.budget import Budget
from haversack.base.finding import Finding
from haversack.base.job import Job
from haversack.base.progress import silent
from haversack.flow.data import Data
from haversack.flow.making import is_static
from haversack.flow.reporting import confirmed
from haversack.flow.rules import Rules
from haversack.flow.search import searched
from haversack.flow.steps import Steps
from haversack.flow.workshop import Workshop
from haversack.measure.local import LocalDevice
from haversack.targets.contract import SHELF as TARGETS


@pytest.fixture
def steps(tmp_path):
    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5)).eval()

    images = np.random.default_rng(0).normal(0, 1, (24, 2, 6, 6)).astype(np.float32)
    made = Job(
        name="tiny",
        source=str(tmp_path / "job.py"),
        model=model,
        calibration=lambda: iter([(images,)]),
        evaluation=lambda: iter([((images,), np.zeros(24, np.int64))]),
        metric="top1",
    )
    with Workshop(tmp_path / "out", "job", silent) as shop, LocalDevice() as device:
        metric = metrics.resolve("top1")
        targets = {"onnxruntime": TARGETS.build("onnxruntime")}
        yield Steps(shop, made, Data(made, None, metric), metric, targets, device, ("slower-than-float",))


def test_when_no_static_plan_holds_on_more_samples_another_kind_ships(steps, monkeypatch):
    real = Steps.confirmed

    def on_more_samples(self, candidate):
        found = real(self, candidate)
        if not is_static(candidate.plan):
            return found
        told = (*found.findings, Finding("not-exact", "3 bits differ"))
        return replace(found, verdict="failed", reason="3 bits differ", findings=told)

    monkeypatch.setattr(Steps, "confirmed", on_more_samples)
    budget = Budget(size=100_000)
    found, barred = searched(steps, ["onnxruntime"], budget, {}, Rules())
    assert not barred
    assert found[0].verdict == "chosen"
    assert not is_static(found[0].plan)
    failed = [one for one in found if one.verdict == "failed"]
    assert len(failed) == 3, "the winner, the next variant, and the first layer in float"
    assert all(is_static(one.plan) and one.reason == "3 bits differ" for one in failed)
    final = confirmed(steps, found, budget)
    assert [one.id for one in final] == [one.id for one in found]
    assert final[0].verdict == "chosen"
