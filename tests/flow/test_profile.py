"""The profile of a large calibration set: streamed, never held together, and not read again when it is known."""

from __future__ import annotations

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from haversack import metrics
from haversack.base.job import Job
from haversack.base.progress import silent
from haversack.flow import data as data_module
from haversack.flow.data import Data
from haversack.flow.steps import Steps
from haversack.flow.workshop import Workshop
from haversack.measure.local import LocalDevice
from haversack.targets.contract import SHELF as TARGETS

BATCHES, AT_ONCE = 24, 6


class Calibration:
    """Batches that are made anew for every pass, with a count of those that somebody still holds."""

    def __init__(self):
        self.alive = weakref.WeakSet()
        self.most = self.passes = 0

    def __call__(self):
        self.passes += 1
        for index in range(BATCHES):
            batch = Batch(np.random.default_rng(index).normal(size=(4, 6)).astype(np.float32))
            self.alive.add(batch)
            self.most = max(self.most, len(self.alive))
            yield (batch,)
            del batch


class Batch(np.ndarray):
    """An array that can be watched; its views keep it alive as those of any array do."""

    def __new__(cls, values):
        return np.asarray(values).copy().view(cls)

    __hash__ = object.__hash__


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setattr(data_module, "KEPT_BYTES", 0)
    calibration = Calibration()
    inputs = np.ones((8, 6), np.float32)
    job = Job("tiny", model, calibration, lambda: iter([((inputs,), np.zeros(8, np.int64))]), "top1")
    metric = metrics.resolve("top1")
    with Workshop(tmp_path / "out", "job", silent) as shop, LocalDevice() as device:
        targets = {"onnxruntime": TARGETS.build("onnxruntime")}
        yield lambda: Steps(shop, job, Data(job, None, metric), metric, targets, device), calibration


def test_the_batches_of_a_large_set_are_never_held_together(made):
    steps, calibration = made
    found = steps().profile
    assert len(found.sensitivity) == 2
    assert calibration.passes > 2
    assert calibration.most <= AT_ONCE < BATCHES


def test_a_known_profile_reads_no_sample(made):
    steps, calibration = made
    first = steps().profile
    again = steps()
    assert again.content
    before = calibration.passes
    assert again.profile == first
    assert calibration.passes == before


@pytest.mark.parametrize("light", [True, False])
def test_what_small_downloads_lose_is_learnt_where_it_is_worth_knowing(made, light):
    steps, _ = made
    found = replace(steps(), light=light).profile
    kinds = {kind for each in found.sensitivity.values() for kind in each}
    assert bool(found.rates) == light
    assert any("/" in kind for kind in kinds) == light


@pytest.mark.parametrize("limited", [True, False])
def test_what_palettes_lose_is_learnt_where_bytes_are_limited(made, limited):
    steps, _ = made
    found = replace(steps(), limited=limited).profile
    for each in (*found.sensitivity.values(), *found.rates.values()):
        assert ({"palette/kmeans/6", "palette/kmeans/4"} <= set(each)) == limited


def test_one_target_without_palettes_keeps_them_out(made):
    steps, _ = made
    both = {name: TARGETS.build(name) for name in ("onnxruntime", "litert")}
    assert "palette" not in both["litert"].precisions
    found = replace(steps(), limited=True, targets=both).profile
    assert not any("palette" in kind for each in found.sensitivity.values() for kind in each)
