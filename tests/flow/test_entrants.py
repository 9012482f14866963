"""What the user says of layers and parts, and the memory that is left, where a job gives several architectures."""

from __future__ import annotations

from dataclasses import replace

import pytest
from layered import network

from haversack.base import recipe
from haversack.base.errors import EnvironmentFault, UsageError
from haversack.base.graph import Graph
from haversack.flow import choice, room
from haversack.flow.pack import pack, preflight
from haversack.flow.request import Request
from haversack.flow.room import Room
from haversack.flow.scoping import parted
from haversack.load.forecast import OTHERS, Preflights

TARGET = "onnxruntime"
JOB = """
import numpy as np
import torch
from torch import nn
def net(width, deep=False):
    torch.manual_seed(width)
    more = [nn.Linear(width, width), nn.ReLU()] if deep else []
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), *more, nn.Linear(width, 4)).eval()
def models():
    return {"flat": net(8), "deep": net(16, deep=True)}
input_names, output_names = ("pixels",), ("scores",)
metric = "top1"
def calibration():
    yield (np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32),)
def evaluation():
    images = np.random.default_rng(1).normal(size=(16, 8)).astype(np.float32)
    yield (images,), net(8)(torch.from_numpy(images)).argmax(1).numpy()
"""
DEEP_ALONE = "4=float32"
"""Names the last layer of the deep one; the flat one has no such module."""


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "job.py"
    path.write_text(JOB)
    return path


def request_of(job, out, **more):
    return Request(
        str(job), **{"budget": "drop=60pt", "effort": "fast", "allow": ("slower-than-float",), "out": out, **more}
    )


def test_a_rule_is_of_those_that_have_the_layer():
    whole = network()
    cut = Graph(tuple(one for one in whole.nodes if not one.key.startswith("head")), whole.inputs, whole.outputs)
    found = parted({"whole": whole, "cut": cut}, ("head=float32", "*=int8"))
    assert found == {"whole": ("head=float32", "*=int8"), "cut": ("*=int8",)}


def test_a_rule_that_names_no_layer_of_any_is_refused_with_the_nearest_of_each():
    with pytest.raises(UsageError) as told:
        parted({"one": network(), "two": network()}, ("haed=float32", "head=int8"))
    (fault,) = told.value.faults
    assert fault.where == "haed=float32"
    assert fault.cause.startswith("one: it names no layer")
    assert "two: it names no layer" in fault.cause


def test_each_obeys_what_is_said_of_it_and_all_is_kept(job, tmp_path):
    said = {"layers": (DEEP_ALONE, "0=float32"), "without": ("int8_dynamic",)}
    outcome = pack(request_of(job, tmp_path / "out", **said))
    made = [one for one in outcome.record.candidates if one.artifact is not None]
    assert {one.architecture for one in made} == {"flat", "deep"}
    for one in made:
        held = {key.split(":")[0]: layer.precision for key, layer in one.plan.layers.items()}
        assert held.get("0", "float32") == "float32"
        assert "int8_dynamic" not in held.values()
        if one.architecture == "deep":
            assert held.get("4", "float32") == "float32"
    assert any("2" in key.split(":")[0] for one in made for key in one.plan.layers), "nothing is compressed at all"
    kept = recipe.read(tmp_path / "out" / "recipe.toml")
    assert (kept.layers, kept.without) == (said["layers"], said["without"])
    scopes = {one.architecture: one.scope for one in choice.read_all(tmp_path / "out")}
    assert all(one.rules == said["layers"] for one in scopes.values())
    fixed = {name: {key.split(":")[0] for key in one.fixed} for name, one in scopes.items()}
    assert fixed == {"flat": {"0"}, "deep": {"0", "4"}}
    again = pack(Request(str(tmp_path / "out" / "recipe.toml"), out=tmp_path / "again", allow=("slower-than-float",)))
    assert again.record.best_of(TARGET).plan == outcome.record.best_of(TARGET).plan


def test_rules_that_contradict_each_other_name_the_architecture(job, tmp_path):
    with pytest.raises(UsageError) as told:
        preflight(request_of(job, tmp_path / "out", layers=("4=float32", "4*=int8")))
    assert told.value.cause.startswith("deep: ")


def test_memory_that_is_not_left_for_one_refuses_the_run(job, tmp_path, monkeypatch):
    alone = preflight(request_of(job, tmp_path / "out"))
    most = max(one.forecast_bytes for one in alone.architectures.values())
    monkeypatch.setattr(room, "left", lambda: Room(most - 1, "a test"))
    found = preflight(request_of(job, tmp_path / "out"))
    assert found.exit_code == 6
    with pytest.raises(EnvironmentFault, match="packing deep is forecast to need"):
        pack(request_of(job, tmp_path / "out"))
    monkeypatch.setattr(room, "left", lambda: Room(most, "a test"))
    assert preflight(request_of(job, tmp_path / "out")).exit_code == 0


def test_the_weights_of_the_others_count(job, tmp_path):
    found = preflight(request_of(job, tmp_path / "out")).architectures
    assert found["flat"].memory[OTHERS] == room.KEPT_COPIES * found["deep"].weight_bytes
    assert found["flat"].forecast_bytes == sum(found["flat"].memory.values())
    one = replace(found["flat"], memory={}, forecast_bytes=5)
    assert room.among({"flat": one}) == {"flat": one}, "alone it has no others"
    assert Preflights({"flat": one}).exit_code == 0
