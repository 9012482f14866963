"""Across runtimes, on real files: the same bits where the integers are the same, and one planted weight told."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from haversack import metrics
from haversack.base.candidate import Artifact, Candidate, Pair, Parity
from haversack.base.constraints import Constraints
from haversack.base.finding import Finding
from haversack.base.job import Job
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.flow.crossing import FLOAT, REFERENCE, crossed, parting, told
from haversack.flow.data import Data
from haversack.flow.steps import Steps
from haversack.flow.workshop import Workshop
from haversack.lower.emit import emit
from haversack.measure.local import LocalDevice
from haversack.targets.contract import SHELF

BOTH = ("onnxruntime", "litert")
LAYERS = ("0:conv2d#0", "3:linear#0")
SAMPLES, CLASSES = 24, 4
ALL = SAMPLES * CLASSES


def plan(target, precision="int8"):
    return Plan(target, dict.fromkeys(LAYERS, LayerPlan(precision)), (), Step("minmax"), BOTH)


def job(folder):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, CLASSES)).eval()
    images = np.random.default_rng(0).uniform(0, 1, (SAMPLES, 3, 8, 8)).astype(np.float32)
    with torch.no_grad():
        labels = net(torch.from_numpy(images)).argmax(1).numpy()
    return Job(
        name="small",
        source=str(folder / "job.py"),
        model=lambda: net,
        calibration=lambda: ((images[start : start + 8],) for start in range(0, SAMPLES, 8)),
        evaluation=lambda: (
            ((images[start : start + 8],), labels[start : start + 8]) for start in range(0, SAMPLES, 8)
        ),
        metric="top1",
    )


@pytest.fixture(scope="module")
def device():
    with LocalDevice() as opened:
        yield opened


@pytest.fixture
def begin(tmp_path, device):
    """A function that begins a run in a folder, tells its events to a list, and returns its steps."""
    shops = []

    def start(folder="run", targets=BOTH, events=None):
        shop = Workshop(tmp_path / folder, "small", (events if events is not None else []).append)
        shops.append(shop)
        shop.__enter__()
        metric, made = metrics.resolve("top1"), job(tmp_path)
        return Steps(shop, made, Data(made, None, metric), metric, {n: SHELF.build(n) for n in targets}, device)

    def close():
        while shops:
            shops.pop().__exit__(None, None, None)

    start.close = close
    yield start
    close()


def ships(steps, target, *, precision="int8", flip=False):
    """Write a plan's file as a maker does, and return its candidate; ``flip`` plants one other weight in the file."""
    wanted = plan(target, precision)
    maker = steps.makers[target]
    made = maker.squeeze(wanted)
    encodings = made.encodings
    if flip:
        key = f"{LAYERS[-1]}:weight"
        codes = encodings.integers[key].copy()
        place = np.unravel_index(np.argmax(np.abs(codes.astype(int))), codes.shape)
        codes[place] = 0
        encodings = replace(encodings, integers={**encodings.integers, key: codes})
    artifact = emit(made.model, encodings, target, maker.folder_of(wanted))
    maker._keep(wanted, made)
    return Candidate(wanted, artifact, None, None, Parity(1.0, 0.0), None, None, verdict="chosen")


def by_names(pairs):
    return {(one.first, one.second): one for one in pairs}


def test_the_same_integers_give_the_same_bits(begin):
    steps = begin()
    best = {name: ships(steps, name) for name in BOTH}
    pairs = crossed(steps, best)
    found = by_names(pairs)
    assert list(found) == [
        (*BOTH,),
        ("onnxruntime", REFERENCE),
        ("onnxruntime", FLOAT),
        ("litert", REFERENCE),
        ("litert", FLOAT),
        (REFERENCE, FLOAT),
    ]
    assert {one.compared for one in pairs} == {ALL}
    for names in (BOTH, ("onnxruntime", REFERENCE), ("litert", REFERENCE)):
        assert (found[names].differing, found[names].relative_error) == (0, 0.0)
    for name in (*BOTH, REFERENCE):
        assert found[name, FLOAT].differing > 0
        assert 0 < found[name, FLOAT].relative_error < 0.2
    assert parting(best, pairs, steps.constraints) == {}
    assert told(list(best.values()), parting(best, pairs, steps.constraints)) == list(best.values())


def test_one_other_weight_in_one_file_is_told_of_that_target(begin):
    steps = begin()
    best = {"onnxruntime": ships(steps, "onnxruntime"), "litert": ships(steps, "litert", flip=True)}
    pairs = crossed(steps, best)
    found = by_names(pairs)
    assert 0 < found[BOTH].differing <= SAMPLES  # one weight belongs to one class of four
    assert found[BOTH].relative_error > 0
    assert found["onnxruntime", REFERENCE].differing == 0
    assert found["litert", REFERENCE].differing == found[BOTH].differing
    finding = parting(best, pairs, steps.constraints)
    assert list(finding) == ["litert"]
    assert finding["litert"].kind == "runtimes-differ"
    words = f"{found[BOTH].differing} of {ALL} output values are not those of onnxruntime (relative error "
    assert finding["litert"].text.startswith(words)
    final = told(list(best.values()), finding)
    assert [one.findings for one in final] == [(), (finding["litert"],)]


def test_the_ledger_returns_the_same_table(begin):
    steps = begin()
    first = crossed(steps, {name: ships(steps, name) for name in BOTH})
    begin.close()
    events = []
    again = begin(events=events)
    found = crossed(again, {name: replace(ships(again, name), seconds={"lower": 9.0}) for name in BOTH})
    assert found == first
    assert ("reused", "parity across runtimes") in [(one.kind, one.text) for one in events]
    assert not any(one.text == "parity across 2 runtimes" for one in events)


def test_another_plan_is_another_table(begin):
    steps = begin()
    first = crossed(steps, {name: ships(steps, name) for name in BOTH})
    mixed = {"onnxruntime": ships(steps, "onnxruntime"), "litert": ships(steps, "litert", precision="float32")}
    second = crossed(steps, mixed)
    assert by_names(second)[BOTH].differing > by_names(first)[BOTH].differing == 0
    assert by_names(second)["litert", FLOAT].relative_error < 1e-5
    assert parting(mixed, second, steps.constraints) == {}


def test_without_a_static_plan_there_is_no_reference(begin):
    steps = begin()
    best = {name: ships(steps, name, precision="float32") for name in BOTH}
    pairs = crossed(steps, best)
    assert list(by_names(pairs)) == [BOTH, ("onnxruntime", FLOAT), ("litert", FLOAT)]
    assert all(one.relative_error < 1e-5 for one in pairs)
    assert parting(best, pairs, steps.constraints) == {}


@pytest.mark.parametrize("targets", [(), ("onnxruntime",), ("litert",)], ids=["none", "onnxruntime", "litert"])
def test_fewer_than_two_have_no_table(begin, targets):
    steps = begin()
    assert crossed(steps, {name: ships(steps, name) for name in targets}) == ()


def test_what_failed_before_it_was_measured_is_not_opened_again(begin):
    steps = begin()
    good, broken = (ships(steps, name) for name in BOTH)
    file = steps.makers["litert"].folder_of(broken.plan) / broken.artifact.files[0].path
    file.write_bytes(b"no file of a runtime")
    broken = replace(broken, parity=None, verdict="failed")
    assert crossed(steps, {"onnxruntime": good, "litert": broken}) == ()


def small(target, *, layers=None, made=True, **changes):
    artifact = Artifact(target, (), (), (), "1") if made else None
    layers = dict.fromkeys(LAYERS, LayerPlan()) if layers is None else layers
    return replace(Candidate(Plan(target, layers), artifact, None, None, None, None, None), **changes)


def test_only_what_holds_the_same_integers_parts():
    other = {**dict.fromkeys(LAYERS, LayerPlan()), LAYERS[0]: LayerPlan(weights=Step("mse"))}
    for layers in (other, dict.fromkeys(LAYERS, LayerPlan("int8_dynamic")), {}):
        best = {"a": small("a"), "b": small("b", layers=layers)}
        assert parting(best, (Pair("a", "b", 7, 8, 0.1),), {}) == {}
    floats = dict.fromkeys(LAYERS, LayerPlan("float16"))
    best = {"a": small("a", layers=floats), "b": small("b", layers=floats)}
    assert parting(best, (Pair("a", "b", 7, 8, 0.1),), {}) == {}


def test_float_and_the_reference_are_no_runtimes_that_part():
    best = {"a": small("a"), "b": small("b")}
    pairs = (Pair("a", REFERENCE, 3, 8, 0.1), Pair("b", FLOAT, 8, 8, 0.1), Pair(REFERENCE, FLOAT, 8, 8, 0.1))
    assert parting(best, pairs, {}) == {}


def test_one_finding_a_target_the_first():
    best = {name: small(name) for name in "abc"}
    pairs = (Pair("a", "b", 0, 2000, 0.0), Pair("a", "c", 5, 2000, 0.1), Pair("b", "c", 6, 2000, 0.1))
    found = parting(best, pairs, {})
    assert found == {"c": Finding("runtimes-differ", "5 of 2000 output values are not those of a (relative error 0.1)")}
    assert (found["c"].severity, found["c"].exit_code) == ("warning", 0)


@pytest.mark.parametrize("far, kind", [(1.9e-8, "float-rounding"), (9e-6, "float-rounding"), (2e-5, "runtimes-differ")])
def test_what_differs_in_the_last_bits_alone_is_a_note(far, kind):
    best = {"a": small("a"), "b": small("b")}
    (finding,) = parting(best, (Pair("a", "b", 700, 1000, far),), {}).values()
    assert finding.kind == kind
    assert f"(relative error {far:.0e})".replace("e-0", "e-0") in finding.text


def test_other_ranges_are_other_integers_and_no_runtime_is_to_blame():
    best = {"a": small("a"), "b": replace(small("b"), plan=replace(small("b").plan, ranges=Step("percentile")))}
    assert parting(best, (Pair("a", "b", 7, 8, 0.1),), {}) == {}


def test_who_else_constrains_a_plan_is_no_other_integer():
    best = {"a": small("a"), "b": replace(small("b"), plan=replace(small("b").plan, constrained_by=("b",)))}
    assert list(parting(best, (Pair("a", "b", 7, 8, 0.1),), {})) == ["b"]


@pytest.mark.parametrize("order", ["abc", "acb", "bca", "cab"])
def test_a_target_that_demands_other_encodings_is_told_once_with_what_parts_them(order):
    best = {name: small(name) for name in order}
    demands = {"a": Constraints(), "b": Constraints(symmetric=True, half_scales=True), "c": Constraints()}
    pairs = tuple(Pair(x, y, 0 if "b" not in x + y else 9, 2000, 0.1) for x, y in combinations(order, 2))
    found = parting(best, pairs, demands)
    assert list(found) == ["b"]
    other = next(name for name in order if name != "b")
    assert found["b"].kind == "runtimes-differ"
    assert found["b"].text == (
        f"9 of 2000 output values are not those of {other} (relative error 0.1): it holds other integers than "
        f"{other}, since b takes activations around 0 only (symmetric), and the grids of {other} do the work of clamps"
    )


def test_other_demands_are_told_by_their_names():
    best = {"a": small("a"), "b": small("b")}
    demands = {"a": Constraints(), "b": Constraints(half_scales=True, floats=frozenset({"x:out"}))}
    (finding,) = parting(best, (Pair("a", "b", 7, 8, 0.1),), demands).values()
    assert "since they demand other half scales, floats of encodings" in finding.text


def test_other_demands_that_change_no_value_and_plans_without_integers_are_not_told():
    demands = {"a": Constraints(), "b": Constraints(symmetric=True)}
    best = {"a": small("a"), "b": small("b")}
    assert parting(best, (Pair("a", "b", 0, 8, 0.0),), demands) == {}
    best = {"a": small("a"), "b": small("b", layers=dict.fromkeys(LAYERS, LayerPlan("int8_dynamic")))}
    assert parting(best, (Pair("a", "b", 7, 8, 0.1),), demands) == {}


def test_the_finding_stands_on_what_ships():
    noisy = Finding("noisy", "the median drifted")
    failed = small("b", made=False, verdict="failed")
    best, second = small("b", findings=(noisy,)), small("b", layers={})
    finding = Finding("runtimes-differ", "1 of 8")
    final = told([small("a"), failed, best, second], {"b": finding})
    assert [one.findings for one in final] == [(), (), (noisy, finding), ()]
    assert final[1] is failed


def test_a_padded_stride_is_a_detour_on_litert_alone(begin, monkeypatch):
    steps = begin()
    found = {}
    for name in BOTH:
        maker = steps.makers[name]
        monkeypatch.setattr(type(maker), "_costs", lambda *_: (None, None, []))  # time and memory are not the matter
        made = maker.make(plan(name)).candidate
        assert made.artifact is not None
        assert made.parity.reference_differing == 0
        found[name] = [one for one in made.findings if one.kind == "detour"]
    assert found["onnxruntime"] == []
    assert (LAYERS[0], "PAD") in [(one.layer, one.text.split()[0]) for one in found["litert"]]
    assert {one.severity for one in found["litert"]} == {"warning"}
