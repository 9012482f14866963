"""The race of variants, on a tiny network with one channel that no common range fits."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from haversack import metrics
from haversack.base.job import Job
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.base.progress import silent
from haversack.flow import race as racing
from haversack.flow.data import Data
from haversack.flow.proposals import proposals
from haversack.flow.race import race
from haversack.flow.steps import Steps
from haversack.flow.workshop import Workshop
from haversack.measure.local import LocalDevice
from haversack.targets.contract import SHELF as TARGETS


def job(tmp_path):
    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5)).eval()

    random = np.random.default_rng(0)
    images = random.normal(0, 1, (24, 2, 6, 6)).astype(np.float32)
    images[0, 0, 0, 0] = 60.0  # one far value: a range over all of them leaves few codes for the rest
    return Job(
        name="tiny",
        source=str(tmp_path / "job.py"),
        model=model,
        calibration=lambda: ((images[start : start + 8],) for start in range(0, 24, 8)),
        evaluation=lambda: iter([((images,), np.zeros(24, np.int64))]),
        metric="top1",
    )


@pytest.fixture
def steps(tmp_path):
    made = job(tmp_path)
    with Workshop(tmp_path / "out", "job", silent) as shop, LocalDevice() as device:
        metric = metrics.resolve("top1")
        targets = {"onnxruntime": TARGETS.build("onnxruntime")}
        yield Steps(shop, made, Data(made, None, metric), metric, targets, device)


def variant(steps, ranges, origin, weights="mse"):
    keys = [node.key for node in steps.model.graph.nodes if node.weight]
    layers = {key: LayerPlan("int8", weights=Step(weights)) for key in keys}
    return Plan(
        "onnxruntime", layers, (Step("fold_norm"), Step("bias_correct")), Step(ranges), ("onnxruntime",), origin
    )


def test_the_variant_with_the_least_simulated_error_is_first(steps):
    clipped, whole = variant(steps, "percentile", "clipped"), variant(steps, "minmax", "whole")
    clipped = replace(clipped, ranges=Step("percentile", {"percentile": 60.0}))
    found = race(steps, [clipped, whole])
    assert [plan.origin for plan in found.order] == ["whole", "clipped"], "60 % of the values cannot serve"
    assert set(found.lost) == {clipped.digest}
    assert found.lost[clipped.digest].startswith("forecast output error ")
    assert ", whole has " in found.lost[clipped.digest]
    assert found.lost[clipped.digest].endswith("(simulated on 16 calibration rows)")
    assert found.rows == 16


def test_what_differs_by_chance_does_not_overtake(steps, monkeypatch):
    plans = [variant(steps, "minmax", str(index), weights) for index, weights in enumerate(("mse", "minmax"))]
    monkeypatch.setattr(racing, "_errors", lambda *_: ([0.100, 0.0975], 9))
    found = race(steps, plans)
    assert [plan.origin for plan in found.order] == ["0", "1"]
    said = "forecast output error 0.0975 does not lead 0.1000 of 0 by 3% (simulated on 9 calibration rows)"
    assert found.lost[plans[1].digest] == said
    monkeypatch.setattr(racing, "_errors", lambda *_: ([0.100, 0.096], 9))
    assert [plan.origin for plan in race(steps, plans).order] == ["1", "0"]


def test_the_others_come_in_the_order_of_their_errors(steps, monkeypatch):
    plans = [variant(steps, "minmax", str(index), "mse") for index in range(4)]
    plans = [replace(plan, ranges=Step("percentile", {"percentile": 99.0 + i / 10})) for i, plan in enumerate(plans)]
    monkeypatch.setattr(racing, "_errors", lambda *_: ([0.3, 0.1, math.inf, 0.2], 16))
    found = race(steps, plans)
    assert [plan.origin for plan in found.order] == ["1", "3", "0", "2"]
    assert found.lost[plans[2].digest] == "its forecast output is not finite (simulated on 16 calibration rows)"


def test_each_variant_is_told(steps, monkeypatch):
    told = []
    monkeypatch.setattr(steps.shop, "tell", told.append)
    race(steps, [variant(steps, "minmax", "a"), variant(steps, "mse", "b")])
    counts = [(event.done, event.total) for event in told if event.text == "variants by simulation"]
    assert counts == [(0, 2), (1, 2), (2, 2)]


def test_with_fewer_rows_all_are_run_and_counted(steps, monkeypatch):
    monkeypatch.setattr(steps.data, "held", lambda: iter([(np.ones((3, 2, 6, 6), np.float32),)]))
    plans = [variant(steps, "minmax", "a"), variant(steps, "minmax", "b", "minmax")]
    assert race(steps, plans).rows == 3


def test_one_variant_needs_no_race(steps, monkeypatch):
    monkeypatch.setattr(racing, "_errors", lambda *_: pytest.fail("nothing is simulated"))
    only = variant(steps, "minmax", "only")
    assert race(steps, [only]).order == (only,)
    assert race(steps, []).order == ()


def test_the_result_is_read_from_the_ledger(steps, monkeypatch):
    plans = [variant(steps, "minmax", "a"), variant(steps, "mse", "b")]
    first = race(steps, plans)
    monkeypatch.setattr(racing, "error_of", lambda *_: pytest.fail("it was simulated before"))
    assert race(steps, plans) == first


def test_simulated_errors_are_close_to_what_the_reference_measures(steps):
    """Without bias correction the simulation and the integers of the artefact say nearly the same."""
    plain = replace(variant(steps, "mse", "plain"), prepare=())
    (forecast, _), _ = racing._errors(steps, [plain, replace(plain, ranges=Step("minmax"))])
    measured = steps.evaluate(plain).parity.relative_error
    assert math.isclose(forecast, measured, rel_tol=0.35)


def test_layers_are_held_against_float_in_the_scale_of_their_channels(tmp_path):
    """What equalize scales by channel is another tensor, not an error."""

    def model():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(16, 5))
        with torch.no_grad():
            factors = torch.logspace(-2, 2, 8)
            network[0].weight *= factors.reshape(-1, 1, 1, 1)
            network[0].bias *= factors
            network[2].weight /= factors.reshape(1, -1, 1, 1)
        return network.eval()

    uneven = replace(job(tmp_path), model=model)
    with Workshop(tmp_path / "out", "job", silent) as shop, LocalDevice() as device:
        targets = {"onnxruntime": TARGETS.build("onnxruntime")}
        metric = metrics.resolve("top1")
        steps = Steps(shop, uneven, Data(uneven, None, metric), metric, targets, device)
        plan = replace(variant(steps, "minmax", "evened out"), prepare=(Step("fold_norm"), Step("equalize")))
        assert any(note.startswith("equalize") for note in steps.squeeze(plan).model.notes)
        found = steps.evaluate(plan).parity
    assert found.reference_differing == 0
    assert max(found.layers.values()) < 0.1
    assert found.relative_error < 0.1


def test_every_proposed_variant_can_run_in_the_race(steps):
    offered = proposals(steps.model.graph, "onnxruntime", ("int8", "float32"), ("onnxruntime",))
    found = race(steps, offered.variants)
    assert len(offered.variants) == 5
    assert len(found.lost) == 4
    assert {plan.digest for plan in found.order} == {plan.digest for plan in offered.variants}
