"""Models in another order: the same values, keys and names, and less memory in the runtimes that keep the order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from haversack.base.encodings import Encodings
from haversack.measure import starts
from haversack.measure.device import Opening
from haversack.measure.local import LocalDevice
from haversack.targets.litert import LiteRT
from haversack.tools.graph.execute import Executor
from haversack.tools.graph.lifetimes import lifetimes
from haversack.tools.graph.reorder import lowered


class Branchy(nn.Module):
    """Wide branches that end small, written breadth first, so that all wide tensors are alive at once."""

    def __init__(self, width=8, branches=4):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.wide = nn.ModuleList(nn.Conv2d(4, width, 1) for _ in range(branches))
        self.small = nn.ModuleList(nn.Conv2d(width, 4, 2, stride=4) for _ in range(branches))
        self.head = nn.Linear(4 * branches, 3)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        wide = [torch.relu(layer(x)) for layer in self.wide]
        small = [layer(each) for layer, each in zip(self.small, wide, strict=True)]
        return self.head(torch.cat(small, 1).mean((2, 3)))


class Shaped(nn.Module):
    """Branches whose views ask other tensors for their lengths, and one that writes in place."""

    def forward(self, x):
        wide = [torch.cat([x * n] * 8, 1) for n in range(1, 4)]
        flat = [each.view(x.shape[0], -1).relu_().sum(1, keepdim=True) for each in wide]
        return torch.cat(flat, 1).view(wide[0].shape[0], 3)


def test_values_keys_and_names_stay(model_of, noise):
    torch.manual_seed(0)
    model = model_of(Branchy(), torch.zeros(2, 3, 16, 16))
    found = lowered(model)
    changed = found.model
    assert found.exact
    assert found.after.peak.bytes < 0.5 * found.before.peak.bytes
    assert found.after == lifetimes(changed.graph)
    assert set(changed.graph.by_key.items()) == set(model.graph.by_key.items())
    assert [n.key for n in changed.graph.nodes] != [n.key for n in model.graph.nodes]
    assert (changed.graph.inputs, changed.graph.outputs) == (model.graph.inputs, model.graph.outputs)
    assert (changed.inputs, changed.outputs, changed.weights) == (model.inputs, model.outputs, model.weights)
    calls = [node.name for node in changed.program.graph.nodes if node.name in {n.name for n in model.graph.nodes}]
    assert calls == [node.name for node in changed.graph.nodes]
    x = noise(3, 3, 16, 16)
    np.testing.assert_array_equal(Executor(changed).run((x,))[0], Executor(model).run((x,))[0])
    assert changed.notes[-1].startswith("order: ")


def test_the_model_given_is_left_alone(model_of, noise):
    model = model_of(Branchy(), torch.zeros(2, 3, 16, 16))
    before = ([node.name for node in model.program.graph.nodes], model.digest)
    assert lowered(model).model is not model
    assert ([node.name for node in model.program.graph.nodes], model.digest) == before
    assert lowered(model).model.digest == lowered(model).model.digest != model.digest


def test_lengths_and_writes_in_place_move_along(model_of, noise):
    model = model_of(Shaped(), torch.zeros(2, 3, 16))
    found = lowered(model)
    assert found.model is not model
    x = noise(5, 3, 16)
    np.testing.assert_array_equal(Executor(found.model).run((x,))[0], Executor(model).run((x,))[0])


def test_a_chain_stays_the_very_same(model_of):
    model = model_of(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(2, 4))
    found = lowered(model)
    assert found.model is model
    assert found.before is found.after


def test_lengths_count(model_of):
    model = model_of(nn.Linear(4, 4), torch.zeros(2, 6, 4), free=[{0: "batch", 1: "length"}])
    names = {size for size in model.inputs[0].spec.shape if isinstance(size, str)} - {"batch"}
    (length,) = names
    assert lowered(model, {length: 100}).before.peak.bytes == 100 * lowered(model).before.peak.bytes


def test_litert_takes_less_in_the_new_order(model_of, tmp_path):
    """Measured in fresh processes: LiteRT runs a file in its order, so its arena shrinks by what was counted."""
    torch.manual_seed(0)
    model = model_of(Branchy(64, 6), torch.zeros(2, 3, 96, 96))
    found = lowered(model)
    x = np.zeros((1, 96, 96, 3), np.float32)
    taken = []
    with LocalDevice() as device:
        for name, one in (("before", model), ("after", found.model)):
            artifact = LiteRT().lower(one, Encodings.none(), tmp_path / name)
            opening = Opening(tmp_path / name / artifact.files[0].path, "litert")
            inputs = {artifact.inputs[0].name: x}
            taken.append(starts.memory(device, opening, inputs, starts.take(device, opening, inputs, repeats=1)))
    counted = found.before.peak.bytes - found.after.peak.bytes
    assert taken[0].peak_bytes - taken[1].peak_bytes == pytest.approx(counted, rel=0.3)
    assert taken[0].private_bytes > taken[1].private_bytes > 0
