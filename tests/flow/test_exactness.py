"""A real fault of a real runtime behind a float layer is found, and the place with it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from haversack.base.finding import Finding
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.flow import making
from haversack.flow.judging import judged
from haversack.lower.emit import emit
from haversack.measure.local import LocalDevice
from haversack.targets.onnxruntime import cpu

SATURATES = bool(cpu.session_options(cpu.features()))
"""Whether ONNX Runtime adds int16 products that saturate here, unless it is told not to."""


def network():
    """Its first layer is left in float; weights of one sign make the last one saturate."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, stride=2, groups=32), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 49, 10),
    ).eval()  # fmt: skip
    with torch.no_grad():
        net[5].weight.abs_()
    return net


PLAN = Plan(
    "onnxruntime",
    {"2:conv2d#0": LayerPlan("int8"), "5:linear#0": LayerPlan("int8")},
    (),
    Step("minmax"),
    ("onnxruntime",),
)


@pytest.fixture(scope="module")
def device():
    with LocalDevice() as opened:
        yield opened


@pytest.fixture
def looked(steps_on, device):
    """What a maker finds of the artefact, opened as it must be or without its session options, or with a parity."""
    steps = steps_on(network(), device)
    maker = steps.makers["onnxruntime"]
    compressed = maker.squeeze(PLAN)
    artifact = emit(compressed.model, compressed.encodings, "onnxruntime", maker.folder_of(PLAN))

    def look(artifact, **planted):
        opening = maker._opening(PLAN, artifact)
        handle = device.load(opening)
        parity, furthest = maker._parity(compressed, maker._predict(handle, artifact), exact=True)
        device.unload(handle)
        parity = replace(parity, **planted)
        return parity, list(maker._exactness(parity, furthest, compressed, opening, artifact))

    return look, artifact


def test_the_file_as_it_is_meant_is_not_failed(looked):
    look, artifact = looked
    _, found = look(artifact)
    assert [finding for finding in found if finding.severity == "error"] == []


@pytest.mark.skipif(not SATURATES, reason="this processor multiplies integers exactly, whatever the session says")
def test_a_runtime_that_saturates_behind_a_float_layer_is_not_exact_at_a_place(looked):
    look, artifact = looked
    parity, found = look(replace(artifact, session_options={}))
    assert parity.reference_differing > 0
    assert parity.relative_error < making.FLOAT_TOLERANCE, "small enough to pass for rounding"
    assert [finding.kind for finding in found] == ["not-exact", "large-error-at"]
    assert found[1].layer == "5:linear#0:out"


def test_what_the_search_told_of_few_samples_is_told_once_when_more_are_compared(steps_on, device):
    """The reference's last bias is spoiled: the artefact differs from it, on however many samples."""
    steps = steps_on(network(), device, allow=("slower-than-float",))
    measured = steps.evaluate(PLAN)
    folder = steps.makers["onnxruntime"].folder_of(PLAN)
    save_file({"5.bias": steps.model.weights["5.bias"] + 1}, folder / making.WEIGHTS)
    few = Finding("not-exact", "of 8 samples")
    told = steps.confirmed(replace(measured, findings=(few,))).findings
    (many,) = [one for one in told if one.kind == "not-exact"]
    assert "output values differ from the reference's" in many.text


def test_what_is_allowed_does_not_decide_what_is_measured(steps_on, device):
    """A second run that allows more finds the candidate in the ledger, and judges it anew."""
    strict = steps_on(network(), device)
    candidate = strict.evaluate(PLAN)
    strict.shop.__exit__(None, None, None)
    again = steps_on(network(), device, allow=("slower-than-float",))
    lenient = again.evaluate(PLAN)
    told = [json.loads(line) for line in (again.shop.out / "events.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in told if event["text"].startswith("candidate: ")] == ["done", "reused"]
    assert lenient.findings == candidate.findings
    slow = replace(lenient, findings=(*lenient.findings, Finding("slower-than-float", "planted")))
    assert judged(slow, ()).verdict == "failed"
    assert judged(slow, again.allow).verdict != "failed"


def test_a_file_that_is_the_float_file_is_not_slower_than_it(steps_on, device):
    """Two openings of one file differ, by where their memory lies: by definition they take the same time."""
    maker = steps_on(network(), device).makers["onnxruntime"]
    floats = maker.floats
    handle = device.load(floats.opening)
    cost, _, told = maker._costs(floats.opening, handle, floats.artifact)
    device.unload(handle)
    assert (cost.ratio, cost.ratio_low, cost.ratio_high, cost.cpu_ratio) == (1.0, 1.0, 1.0, 1.0)
    assert told == ()
    assert maker._is_float_file(floats.artifact)
    other = replace(floats.artifact, files=(replace(floats.artifact.files[0], sha256="0" * 64),))
    assert not maker._is_float_file(other)


def test_outputs_far_from_the_reference_are_no_rounding_though_no_tensor_tells_where(looked):
    """The file is right and no tensor differs: then only the reference's own error says what rounding can do."""
    look, artifact = looked
    far = 2 * max(making.FLOAT_TOLERANCE, look(artifact)[0].reference_error)
    planted = {"reference_differing": 5, "relative_error": 10.0}
    _, (rounding,) = look(artifact, reference_distance=0.5 * making.FLOAT_TOLERANCE, **planted)
    assert (rounding.kind, rounding.layer) == ("float-rounding", "0:conv2d#0"), "the first layer that is in float"
    _, (far_away,) = look(artifact, reference_distance=far, **planted)
    assert far_away.kind == "not-exact"
