"""A run's memory: the order that is packed, and what its report tells."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from haversack.flow.order import frugal, lengths
from haversack.tools.graph.canonical import to_model


class Wide(nn.Module):
    """Three wide tensors at once, each of which ends small."""

    def forward(self, x):
        wide = [torch.cat([x * n] * 8, 1) for n in range(1, 4)]
        return torch.cat([each.sum(1, keepdim=True) for each in wide], 1)


def exported(module, *inputs, free):
    shapes = tuple(dict.fromkeys(axes, torch.export.Dim.AUTO) for axes in free)
    dims = {f"in{n}": axes for n, axes in enumerate(free)}
    program = torch.export.export(module.eval(), inputs, dynamic_shapes=shapes, strict=False)
    return to_model(program, "net", input_names=[f"in{n}" for n in range(len(inputs))], dims=dims)


def test_what_changes_is_told():
    model = exported(Wide(), torch.zeros(2, 5, 7), free=[{0: "batch"}])
    events = []
    found = frugal(model, (np.zeros((2, 5, 7), np.float32),), events.append)
    assert found is not model
    (event,) = events
    assert event.stage == "load"
    assert event.data["before"] > event.data["after"] > 0
    assert event.data["at"] in found.graph.by_key


def test_what_does_not_change_is_the_same_and_silent():
    model = exported(nn.Linear(3, 3), torch.zeros(2, 3), free=[{0: "batch"}])
    events = []
    assert frugal(model, (np.zeros((2, 3), np.float32),), events.append) is model
    assert events == []


def test_lengths_are_those_of_one_sample():
    model = exported(nn.Linear(3, 3), torch.zeros(2, 9, 3), free=[{0: "batch", 1: "time"}])
    assert lengths(model, (np.zeros((4, 21, 3), np.float32),)) == {"batch": 1, "time": 21}


def test_a_run_reports_where_memory_peaks(packed):
    report = json.loads((packed.out / "report.json").read_text(encoding="utf-8"))
    (found,) = report["activations"].values()
    assert found["node"] in {one["key"] for one in found["live"]}
    assert found["peak_bytes"] == max(one["bytes"] for one in found["live"]) == sum(o["bytes"] for o in found["alive"])
    assert found["peak_bytes"] < found["float_bytes"]
    (floats,) = report["floats"].values()
    assert floats["memory"]["peak_bytes"] > 0
    best = next(one for one in report["candidates"] if one["id"] in report["best"].values())
    assert best["memory"]["private_bytes"] == pytest.approx(best["memory"]["peak_bytes"], rel=1.0)
