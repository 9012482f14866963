"""One set of integers for all runtimes: a plan is applied once, whatever its target."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from haversack import load
from haversack.base.constraints import Constraints
from haversack.base.job import Job
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.compress.apply import apply
from haversack.flow import squeeze as squeezing
from haversack.flow.squeeze import KEPT, Squeezer, groupable, together
from haversack.profile.ranges import ranges
from haversack.targets.contract import SHELF

BATCH = (np.random.default_rng(0).normal(size=(4, 2, 6, 6)).astype(np.float32),)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    job = Job("tiny", model=lambda: network, calibration=lambda: [BATCH], evaluation=list, metric="")
    return load.export(job)


@pytest.fixture
def calls(monkeypatch):
    made = []

    def counted(model, plan, **settings):
        made.append(plan)
        return apply(model, plan, **settings)

    monkeypatch.setattr(squeezing, "apply", counted)
    return made


@pytest.fixture
def squeezer(model):
    constraints = together({n: SHELF.build(n).constraints(model.graph) for n in ("onnxruntime", "litert", "tensorrt")})
    return Squeezer(model, partial(ranges, samples=[BATCH]), constraints, lambda: [BATCH])


LAYERS = {"0:conv2d#0": LayerPlan("int8"), "3:linear#0": LayerPlan("int8")}
PLAN = Plan("onnxruntime", LAYERS, (Step("bias_correct"),), Step("mse"), ("onnxruntime", "litert"))


def test_a_plan_for_another_runtime_gets_the_same_integers(squeezer, calls):
    first = squeezer(PLAN)
    assert set(first.encodings.integers) == {f"{key}:weight" for key in LAYERS}
    assert squeezer(replace(PLAN, target="litert")) is first
    assert len(calls) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"layers": {**LAYERS, "3:linear#0": LayerPlan("int8", "tensor")}},
        {"prepare": ()},
        {"ranges": Step("minmax")},
        {"constrained_by": ("onnxruntime",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_else_differs_is_applied_anew(squeezer, calls, change):
    first = squeezer(PLAN)
    assert squeezer(replace(PLAN, **change)) is not first
    assert len(calls) == 2


def test_few_are_kept(squeezer, calls):
    plans = [replace(PLAN, ranges=Step("percentile", {"percentile": 99.0 + index / 10})) for index in range(KEPT + 1)]
    for plan in plans:
        squeezer(plan)
    squeezer(plans[-1])
    assert len(calls) == KEPT + 1
    squeezer(plans[0])
    assert len(calls) == KEPT + 2
    assert len(squeezer.made) == KEPT


def test_a_runtime_with_contrary_demands_gets_encodings_of_its_own_and_it_is_told(squeezer, calls):
    told = []
    shared, own = squeezer(PLAN), squeezer(replace(PLAN, target="tensorrt"), told.append)
    assert len(calls) == 2
    zeros = {key: int(one.zero_point) for key, one in own.encodings.tensors.items() if key.endswith(":out")}
    assert set(zeros.values()) == {128}
    assert {int(shared.encodings.tensors[key].zero_point) for key in zeros} != {128}
    assert squeezer.alike("tensorrt") == ("tensorrt",)
    assert squeezer.alike("litert") == ("onnxruntime", "litert")
    notes = [event.text for event in told if "contradicts" in event.text]
    assert notes == ["encodings for tensorrt alone: what onnxruntime, litert demands contradicts them"]


def test_groups_are_those_of_every_runtime():
    one = Constraints(groups={"a": frozenset({32, 128}), "b": frozenset({32}), "c": frozenset({32})})
    other = Constraints(groups={"a": frozenset({64, 128}), "b": frozenset({64})}, symmetric=True)
    assert groupable([one]) == one.groups
    assert groupable([one, other]) == {"a": frozenset({128})}
    assert groupable([one, other, Constraints()]) == {}
