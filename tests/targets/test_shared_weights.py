"""A recurrent cell, written out step by step: every file holds its weights once, however often they are read."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.choose.options import stored_bits
from haversack.compress.encode import encode
from haversack.compress.plans import uniform
from haversack.profile.ranges import ranges
from haversack.targets.contract import SHELF
from haversack.targets.reference import Reference
from haversack.tools.graph import canonical

WIDE, STEPS = 96, (2, 5)
WEIGHTS = 3 * WIDE * WIDE
PRECISIONS = {
    "onnxruntime": ("int8", "w4a8", "w2a8", "int8_dynamic", "w4_grouped", "int8_weights", "float16", "palette"),
    "litert": ("int8", "w4a8", "int8_dynamic", "int8_weights", "float16"),
    "executorch": ("int8", "w4a8", "int8_dynamic", "w4_grouped"),
}
CASES = [(target, precision) for target, kinds in PRECISIONS.items() for precision in kinds]


def network(steps):
    """Return a gated recurrent unit that takes its state, and gives the next one."""
    import torch
    from torch import nn

    torch.manual_seed(2)

    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.gates, self.new = nn.Linear(WIDE, 2 * WIDE), nn.Linear(WIDE, WIDE)

        def forward(self, x, state):
            for step in range(steps):
                reset, update = torch.sigmoid(self.gates(state)).chunk(2, 1)
                new = torch.tanh(x[:, step] + reset * self.new(state))
                state = update * state + (1 - update) * new
            return state

    return Cell().eval()


@pytest.fixture(scope="module")
def cells():
    """Return number of steps -> (Model, samples)."""
    import torch

    found = {}
    for steps in STEPS:
        rng = np.random.default_rng(4)
        x = rng.normal(size=(6, steps, WIDE)).astype(np.float32)
        sample = (x, np.tanh(rng.normal(size=(6, WIDE))).astype(np.float32))
        free = torch.export.Dim.AUTO
        tensors = tuple(map(torch.from_numpy, sample))
        program = torch.export.export(network(steps), tensors, dynamic_shapes=({0: free}, {0: free}))
        found[steps] = canonical.to_model(program, "cell", input_names=("x", "state")), sample
    return found


def made(cells, steps, name, precision, folder):
    """Return (artifact, encodings, target) of a uniform plan."""
    model, sample = cells[steps]
    target = SHELF.build(name)
    demands = target.constraints(model.graph)
    settings = {"palette": ("kmeans", {"bits": 6}), "w4_grouped": ("mse", {"group": 32})}
    layers = uniform(
        model.graph,
        precision,
        weights=Step(*settings.get(precision, ("mse", {}))),
        integer_ops=demands.integer_ops,
        widths=demands.widths,
        groups=demands.groups,
    )
    assert {layer.precision for layer in layers.values()} == {precision}
    encodings, _ = encode(model, Plan(name, layers, constrained_by=(name,)), ranges(model, [sample]), demands)
    return target.lower(model, encodings, folder), encodings, target


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_more_steps_bring_no_more_weights(cells, tmp_path, name, precision):
    """Nodes, scales and biases of a step take some kB: less than half of the weights in their fewest bits."""
    few, many = (made(cells, steps, name, precision, tmp_path / str(steps))[0].bytes for steps in STEPS)
    node = next(node for node in cells[STEPS[0]][0].graph.nodes if node.weight)
    weights = WEIGHTS * stored_bits(LayerPlan(precision, weights=Step("mse", {"bits": 6})), node) / 8
    assert (many - few) / (STEPS[1] - STEPS[0]) < max(0.5 * weights, 7000)


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_it_computes_what_it_says(cells, tmp_path, name, precision):
    model, sample = cells[STEPS[1]]
    artifact, encodings, target = made(cells, STEPS[1], name, precision, tmp_path)
    assert artifact.injected == artifact.read_back
    path = tmp_path / artifact.files[0].path
    assert target.read(path, artifact).digest == encodings.digest
    feeds = dict(zip((port.name for port in model.inputs), sample, strict=True))
    (wanted,) = Reference().run(model, encodings, sample)
    asked = [artifact.session_options]
    asked += [{"session.x64quantprecision": "1"}] if name == "onnxruntime" else []
    for options in asked:
        session = target.open_session(path, options)
        found = session.run(feeds)[model.outputs[0].name]
        session.close()
        assert float(np.abs(found - wanted).max()) < 0.02


@pytest.mark.parametrize("name", PRECISIONS)
def test_integers_are_smaller_than_float(cells, tmp_path, name):
    model, _ = cells[STEPS[1]]
    whole = SHELF.build(name).lower(model, Encodings.none(), tmp_path / "float").bytes
    for precision in ("int8", "int8_dynamic"):
        small = made(cells, STEPS[1], name, precision, tmp_path / precision)[0].bytes
        assert small < 0.6 * whole


def test_a_table_and_a_layer_are_one_array_in_onnx(tmp_path):
    import onnx
    import torch
    from torch import nn

    torch.manual_seed(0)

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(200, 64)
            self.head = nn.Linear(64, 200, bias=False)
            self.head.weight = self.table.weight

        def forward(self, tokens):
            x = self.table(tokens)
            return self.head(torch.tanh(self.head(x) @ self.table.weight))

    tokens = np.random.default_rng(0).integers(0, 200, (2, 5))
    program = torch.export.export(Tied().eval(), (torch.from_numpy(tokens),))
    model = canonical.to_model(program, "tied")
    target = SHELF.build("onnxruntime")
    for precision in ("int8_dynamic", "int8_weights", "float16"):
        layers = uniform(model.graph, precision, weights=Step("mse"))
        encodings, _ = encode(model, Plan("onnxruntime", layers), {}, target.constraints(model.graph))
        artifact = target.lower(model, encodings, tmp_path / precision)
        path = tmp_path / precision / artifact.files[0].path
        held = [one for one in onnx.load(path).graph.initializer if len(one.raw_data) >= 200 * 64]
        small = [one for one in held if one.data_type != onnx.TensorProto.FLOAT]
        assert len(small) == 1, [one.name for one in held]
        assert target.read(path, artifact).digest == encodings.digest
        for options in (artifact.session_options, {"session.x64quantprecision": "1"}):
            found = target.open_session(path, options).run({model.inputs[0].name: tokens})[model.outputs[0].name]
            (wanted,) = Reference().run(model, encodings, (tokens,))
            np.testing.assert_allclose(found, wanted, atol=0.02 * float(np.abs(wanted).max()))
