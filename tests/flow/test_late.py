"""Fixed scales in mostly linear models: tried last, where bytes are limited and nothing else meets or uses them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from haversack import metrics
from haversack.base.budget import Budget
from haversack.base.candidate import Artifact, ArtifactFile, Candidate
from haversack.base.job import Job
from haversack.base.plan import STATIC, LayerPlan, Plan
from haversack.base.quality import Drop
from haversack.choose.options import grouped
from haversack.flow import room
from haversack.flow.data import Data
from haversack.flow.effort import EFFORTS, FAST
from haversack.flow.late import late, widened
from haversack.flow.rules import Rules
from haversack.flow.scoping import ruled
from haversack.flow.search import LATE, searched, tell_effort
from haversack.flow.steps import Steps
from haversack.flow.workshop import Workshop
from haversack.measure.local import LocalDevice
from haversack.targets.contract import SHELF as TARGETS

HERE = "onnxruntime"
LARGE, SMALL = "0:linear#0", "2:linear#0"
WEIGHTS = 256 * 128 + 128 * 5
"""One layer holds nearly all of them."""


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 5)).eval()


def convolutional():
    return nn.Sequential(nn.Unflatten(1, (1, 16, 16)), nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(1568, 2)).eval()


@pytest.fixture
def told():
    return []


@pytest.fixture
def opened(tmp_path, told):
    """Return what opens the steps of a network."""
    rows = np.random.default_rng(0).normal(0, 1, (32, 256)).astype(np.float32)
    with torch.no_grad():
        labels = linear()(torch.from_numpy(rows)).argmax(1).numpy()
    metric = metrics.resolve("top1")
    with Workshop(tmp_path / "out", "job", told.append) as shop, LocalDevice() as device:

        def steps(model=linear, target=HERE, spend=FAST):
            job = Job(
                name="tiny",
                source=str(tmp_path / "job.py"),
                model=model,
                calibration=lambda: iter([(rows,)]),
                evaluation=lambda: iter([((rows,), labels)]),
                metric="top1",
            )
            targets, allow = {target: TARGETS.build(target)}, ("slower-than-float",)
            data = Data(job, None, metric)
            return Steps(shop, job, data, metric, targets, device, allow, EFFORTS[spend], light=False, limited=True)

        yield steps


def candidate(layer, size, drop=0.0):
    """Return a measured candidate whose large layer is so."""
    file = ArtifactFile("model.onnx", size, size, "0" * 64)
    plan = Plan(HERE, {LARGE: layer, SMALL: LayerPlan("int8_dynamic")})
    artifact = Artifact(HERE, (file,), (), (), "1.18")
    return Candidate(plan, artifact, None, Drop(drop, drop, drop, 32), None, None, None, verdict="open")


WIDE, FEW = LayerPlan("int8_dynamic"), grouped(32)


@pytest.mark.parametrize(
    ("best", "budget", "wanted"),
    [
        (candidate(WIDE, 36_000), Budget(size=34_000), True),
        (candidate(FEW, 32_000, drop=0.2), Budget(size=34_000, drop=0.1), True),
        (candidate(FEW, 22_000), Budget(size=34_000, drop=0.1), True),
        (candidate(FEW, 33_000), Budget(size=34_000, drop=0.1), False),
        (candidate(FEW, 22_000), Budget(size=34_000, download=23_000), False),
        (candidate(WIDE, 36_000), Budget(size=100_000), False),
        (candidate(WIDE, 36_000, drop=0.2), Budget(drop=0.1), False),
        (candidate(WIDE, 3_000, drop=0.2), Budget(size=3_500, drop=0.1), False),
    ],
    ids=[
        "the size is missed", "the drop is missed", "few bits leave room", "few bits fill it", "one limit is filled",
        "wide weights fit", "no bytes are limited", "all static plans are hopeless",
    ],
)  # fmt: skip
def test_when_fixed_scales_are_tried(opened, best, budget, wanted):
    steps = opened()
    found = late(steps, {HERE: [best]}, budget, {}, Rules())
    assert set(found) == ({HERE} if wanted else set())
    for ask in found.values():
        assert {layer.precision for layer in ask.proposals[0].layers.values()} <= STATIC
        assert ask.mixes
    assert late(steps, {HERE: [best]}, budget, {HERE: best.plan}, Rules()) == {}


def test_where_8_bits_are_hopeless_a_plan_of_fewer_comes_in_their_place(opened):
    steps, budget = opened(), Budget(size=round(WEIGHTS * 0.7))
    (ask,) = late(steps, {HERE: [candidate(FEW, 36_000)]}, budget, {}, Rules()).values()
    assert [plan.layers[LARGE].precision for plan in (*ask.proposals, *ask.fallbacks)] == ["w4a8"]
    assert not ask.hopeless(ask.proposals[0])


def test_a_network_of_convolutions_has_them_from_the_start(opened):
    assert late(opened(convolutional), {HERE: [candidate(WIDE, 36_000)]}, Budget(size=100), {}, Rules()) == {}


def test_rounding_by_outputs_and_to_nearest_are_both_made(opened):
    steps, missed, budget = opened(spend="default"), candidate(WIDE, 36_000), Budget(size=34_000)
    (ask,) = late(steps, {HERE: [missed]}, budget, {}, Rules()).values()
    assert [[step.part for step in plan.prepare] for plan in ask.proposals] == [["fold_norm", "gptq"], ["fold_norm"]]
    assert [plan.origin.rpartition(", ")[2] for plan in ask.proposals] == ["rounded by outputs", "rounded to nearest"]
    assert ask.proposals[0].layers == ask.proposals[1].layers
    (ask,) = late(opened(), {HERE: [missed]}, budget, {}, Rules()).values()
    assert len(ask.proposals) == 1, "bias_correct is nearest already"


def test_where_memory_is_short_they_are_not_tried_and_that_is_told(opened, told, monkeypatch):
    steps, missed, budget = opened(spend="default"), candidate(WIDE, 36_000), Budget(size=34_000)
    asked = steps, {HERE: [missed]}, budget, {}, Rules()
    needs = 10 * 8 * 256**2
    assert room.rounding(steps.model, steps.spend.rounding, 32) > needs
    assert room.ahead(steps.model, steps.data, (32, 32), steps.spend.rounding)[1] == 0
    monkeypatch.setattr(room, "left", lambda: room.Room(needs, "the limit of a group"))
    assert late(*asked) == {}
    assert "onnxruntime: fixed scales are not tried: rounding is forecast to need 5" in told[-1].text
    assert told[-1].text.endswith("MB are left (the limit of a group)")
    monkeypatch.setattr(room, "left", lambda: None)
    assert set(late(*asked)) == {HERE}


@pytest.mark.parametrize(("fixed", "without", "wanted"), [
    ([], ("int8",), False),
    (["*=int8_dynamic"], (), False),
    (["2=float32"], ("gptq",), True),
])  # fmt: skip
def test_what_the_user_says_holds(opened, fixed, without, wanted):
    steps = opened()
    rules = ruled(steps.model.graph, fixed, without, steps.targets)
    found = late(steps, {HERE: [candidate(WIDE, 37_000)]}, Budget(size=36_000), {}, rules)
    assert set(found) == ({HERE} if wanted else set())
    for ask in found.values():
        assert set(ask.proposals[0].layers) == {LARGE}
        assert not rules.scope.forbids(ask.proposals[0])


def test_the_profile_then_knows_both_kinds_of_layers(opened):
    steps = opened()
    before = steps.profile
    assert "w4a8" not in before.sensitivity[LARGE]
    found = widened(steps)
    assert steps.profile is found
    assert {"int8_dynamic", "w4_grouped/32", "int8", "w4a8"} <= set(found.sensitivity[LARGE])
    assert found.seconds == before.seconds
    assert math.isclose(found.sensitivity[LARGE]["int8_dynamic"], before.sensitivity[LARGE]["int8_dynamic"])


def test_a_width_between_ships_where_4_bits_leave_room_and_8_are_too_many(opened, told):
    budget = Budget(size=WEIGHTS)
    found, _ = searched(opened(), [HERE], budget, {}, Rules())
    first = found[0]
    assert first.verdict == "chosen"
    assert first.artifact.bytes <= budget.size
    assert first.plan.layers[LARGE].precision in STATIC - {"int8", "w4a8"}
    assert any(LATE in event.text for event in told)
    others = [one for one in found if any(layer.precision == "w4_grouped" for layer in one.plan.layers.values())]
    assert all(first.parity.relative_error < one.parity.relative_error for one in others if one.parity)
    assert len({one.id for one in found}) == len(found)


@pytest.mark.parametrize(
    ("model", "spend", "expected"),
    [(linear, "high", 1), (linear, "default", 0), (linear, FAST, 0), (convolutional, "high", 0)],
)
def test_an_effort_that_changes_nothing_is_told(opened, told, model, spend, expected):
    tell_effort(opened(model, spend=spend))
    assert sum("effort changes nothing" in event.text for event in told) == expected
