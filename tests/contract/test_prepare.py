"""What holds for every preparation step on the shelf."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, fields, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from haversack.base.encodings import Encodings
from haversack.base.errors import UsageError, VerificationError
from haversack.compress.prepare.contract import SHELF, PrepareContext, PrepareStep, relative_error
from haversack.tools.graph.canonical import to_model
from haversack.tools.graph.execute import Executor
from haversack.tools.numerics.affine import quantize, symmetric

PARTS = SHELF.names()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.next = nn.Conv2d(4, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        return self.head(torch.relu(self.next(x)).mean(dim=[2, 3]))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    net = Net()
    net.norm.running_var.uniform_(0.5, 2)
    net.norm.running_mean.normal_()
    with torch.no_grad():
        net.next.weight *= torch.logspace(-2, 2, 6).reshape(-1, 1, 1, 1)
        net.next.bias *= torch.logspace(-2, 2, 6)
        net.head.weight /= torch.logspace(-2, 2, 6)  # so that narrow channels count as well
    program = torch.export.export(net.eval(), (torch.zeros(2, 2, 6, 6),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    return to_model(program, "net", input_names=["image"], output_names=["logits"])


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(2, 2, 6, 6)).astype(np.float32),) for _ in range(3)]


@pytest.fixture(scope="module")
def context(model, samples):
    key = "next:conv2d#0:weight"
    encoding = symmetric(np.abs(model.weights["next.weight"]).reshape(6, -1).max(axis=1) / np.float32(7), 4, 0)
    encodings = Encodings({key: encoding}, {key: quantize(model.weights["next.weight"], encoding)})
    return PrepareContext(lambda: samples, encodings)


def test_the_shelf_has_what_the_recipes_name():
    assert {"fold_norm", "equalize", "bias_correct"} <= set(PARTS)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_a_frozen_record_with_defaults_and_a_catalogue_line(name):
    part = SHELF.build(name)
    assert isinstance(part, PrepareStep)
    assert part.name == name
    assert part == SHELF.build(name, {field.name: getattr(part, field.name) for field in fields(part)})
    assert SHELF.catalogue()[name].endswith(".")
    assert part.needs <= {"encodings"}
    assert part.leaves <= {"outputs", "graph"}
    with pytest.raises((FrozenInstanceError, AttributeError)):
        part.other = 1
    with pytest.raises(UsageError):
        SHELF.build(name, {"no_such_setting": 1})


@pytest.mark.parametrize("name", PARTS)
def test_it_does_something_here_says_so_and_keeps_its_word(name, model, samples, context):
    part = SHELF.build(name)
    weights = {key: value.copy() for key, value in model.weights.items()}
    after = part.apply(model, context)
    assert after is not model
    assert after.notes[: len(model.notes)] == model.notes
    assert after.notes[len(model.notes)].startswith(f"{name}: ")
    assert (after.inputs, after.outputs) == (model.inputs, model.outputs)
    assert all(np.array_equal(model.weights[key], value) for key, value in weights.items())
    if "outputs" in part.leaves:
        for sample in samples:
            assert relative_error(Executor(after).run(sample), Executor(model).run(sample)) < 1e-5
    if "graph" in part.leaves:
        assert after.graph.digest == model.graph.digest
    layers = [node.key for node in model.graph.nodes if node.weight and node.op != "batch_norm"]
    assert set(layers) <= set(after.graph.by_key)


@pytest.mark.parametrize("name", PARTS)
def test_the_same_again_gives_the_same_bits(name, model, context):
    part = SHELF.build(name)
    assert part.apply(model, context).digest == part.apply(model, context).digest


@pytest.mark.parametrize("name", [name for name in PARTS if "outputs" in SHELF.type_of(name).leaves])
def test_twice_is_once_for_steps_that_keep_the_outputs(name, model, context):
    part = SHELF.build(name)
    once = part.apply(model, context)
    twice = part.apply(once, context)
    for key, value in once.weights.items():
        np.testing.assert_allclose(twice.weights[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", PARTS)
def test_encodings_that_are_needed_and_missing_are_told(name, model, samples):
    part = SHELF.build(name)
    bare = PrepareContext(lambda: samples)
    if "encodings" in part.needs:
        with pytest.raises(UsageError, match="needs encodings") as caught:
            part.apply(model, bare)
        assert caught.value.where == name
    else:
        assert part.apply(model, bare).digest == part.apply(model, replace(bare, encodings=Encodings.none())).digest


@dataclass(frozen=True)
class _Louder(PrepareStep):
    """A planted fault: it says that outputs stay."""

    leaves: ClassVar[frozenset[str]] = frozenset({"outputs"})
    factor: float = 1.01

    def _inner(self, model, context):
        return model.with_weights({"head.weight": model.weights["head.weight"] * np.float32(self.factor)})


@dataclass(frozen=True)
class _Renamed(PrepareStep):
    """A planted fault: it renames an input."""

    def _inner(self, model, context):
        return replace(model, inputs=(replace(model.inputs[0], name="picture"),))


@dataclass(frozen=True)
class _Regraphed(PrepareStep):
    """A planted fault: it says that the graph stays."""

    leaves: ClassVar[frozenset[str]] = frozenset({"graph"})

    def _inner(self, model, context):
        return replace(model, graph=replace(model.graph, outputs=model.graph.outputs * 2))


def test_the_contract_catches_a_bad_part(model, context):
    with pytest.raises(VerificationError, match="moved the float outputs by 0.01"):
        _Louder().apply(model, context)
    assert _Louder(1.0).apply(model, context).digest == model.digest
    with pytest.raises(VerificationError, match="NaN or infinite") as caught:
        _Louder(float("nan")).apply(model, context)
    assert caught.value.where == "head.weight"
    with pytest.raises(VerificationError, match="inputs or outputs"):
        _Renamed().apply(model, context)
    with pytest.raises(VerificationError, match="changed the graph"):
        _Regraphed().apply(model, context)


@pytest.mark.parametrize(
    "outputs, exact, error",
    [([3.0, 4.0], [3.0, 4.0], 0.0), ([3.0, 0.0], [3.0, 4.0], 0.8), ([1.0, 0.0], [0.0, 0.0], 1.0)],
)
def test_relative_error(outputs, exact, error):
    assert relative_error([np.array(outputs)], [np.array(exact)]) == pytest.approx(error)
