"""Layers of every shape: many of them side by side in one network, each output against the reference."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.targets.executorch import ExecuTorch, parse
from haversack.targets.reference import Reference

TARGET = ExecuTorch()
IMAGE, LINE, ROWS = (3, 6, 9, 8), (3, 6, 13), (3, 24)
CONV2D = {
    "a point": (5, 1),
    "three by three": (5, 3),
    "not square": (5, (3, 2)),
    "a row": (4, (1, 5)),
    "a column": (4, (4, 1)),
    "two by two": (4, 2),
    "stride": (4, 3, 2),
    "stride of each axis": (4, 3, (1, 3)),
    "a point with stride": (4, 1, 2),
    "padding": (4, 3, 1, 1),
    "padding of each axis": (4, (3, 5), 1, (1, 2)),
    "more padding than it needs": (4, 3, 1, 2),
    "stride and padding": (4, 3, 2, 1),
    "dilation": (4, 3, 1, 0, 2),
    "dilation of each axis": (4, 3, 1, (0, 2), (1, 3)),
    "two groups": (4, 3, 1, 1, 1, 2),
    "three groups": (9, 1, 1, 0, 1, 3),
    "groups with stride": (4, 3, 2, 1, 1, 2),
    "depthwise": (6, 3, 1, 1, 1, 6),
    "depthwise with stride": (6, 3, 2, 0, 1, 6),
    "depthwise, large": (6, 5, 1, 2, 1, 6),
    "depthwise, dilated": (6, 3, 1, 2, 2, 6),
    "depthwise, a point": (6, 1, 1, 0, 1, 6),
    "depthwise, twice as many": (12, 3, 1, 1, 1, 6),
    "one channel": (1, 3, 1, 1),
    "no bias": (4, 3, 1, 1, 1, 1, False),
    "depthwise without bias": (6, 3, 1, 1, 1, 6, False),
    "same": (4, 3, 1, "same"),
    "same, even": (4, 2, 1, "same"),
    "valid": (4, 3, 1, "valid"),
}
CONV1D = {
    "a point": (5, 1),
    "three": (5, 3),
    "stride and padding": (5, 3, 2, 1),
    "dilation": (4, 3, 1, 2, 2),
    "groups": (4, 3, 1, 0, 1, 2),
    "depthwise": (6, 3, 1, 1, 1, 6),
    "no bias": (4, 4, 1, 0, 1, 1, False),
}
LINEAR = {"some": (7, True), "one": (1, True), "many": (33, True), "no bias": (7, False), "as many": (24, True)}
SETS = {
    "conv2d": (CONV2D, IMAGE),
    "conv1d": (CONV1D, LINE),
    "linear": (LINEAR, ROWS),
}
CASES = [(kind, name) for kind, (table, _) in SETS.items() for name in table]


def side_by_side(kind):
    """Return a module with one layer of a kind for each row of its table, all reading the input."""
    import torch
    from torch import nn

    makers = {"conv2d": nn.Conv2d, "conv1d": nn.Conv1d, "linear": nn.Linear}
    table, shape = SETS[kind]
    torch.manual_seed(11)

    class Side(nn.Module):
        def __init__(self):
            super().__init__()
            self.all = nn.ModuleList([makers[kind](shape[1], *rest) for rest in table.values()])

        def forward(self, x):
            return tuple(layer(x) for layer in self.all)

    return Side()


@pytest.fixture(scope="module")
def results(exported, encoded, tmp_path_factory):
    """kind, form -> name -> (what the file gives, what the reference gives); one skeleton for a kind."""
    models, made = {}, {}

    def make(kind, form):
        if (kind, form) not in made:
            table, shape = SETS[kind]
            x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
            if kind not in models:
                models[kind] = exported(side_by_side(kind), x)
            model = models[kind]
            encodings = Encodings.none() if form == "float" else encoded(model, (x,), granularity=form)
            folder = tmp_path_factory.mktemp(f"{kind}-{form}")
            artifact = TARGET.lower(model, encodings, folder)
            assert TARGET.read(folder / "model.pte", artifact).digest == encodings.digest
            found = TARGET.open_session(folder / "model.pte").run({model.inputs[0].name: x})
            wanted = Reference().run(model, encodings, (x,))
            pairs = zip((found[port.name] for port in model.outputs), wanted, strict=True)
            made[kind, form] = dict(zip(table, pairs, strict=True)), parse.parse(folder / "model.pte")
        return made[kind, form]

    return make


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_float_layers_compute_what_the_reference_does(results, kind, name):
    found, wanted = results(kind, "float")[0][name]
    assert found.shape == wanted.shape
    assert float(np.abs(found - wanted).max()) <= 1e-5


@pytest.mark.parametrize("form", ["channel", "tensor"])
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_integer_layers_compute_the_references_codes(results, kind, name, form):
    found, wanted = results(kind, form)[0][name]
    assert found.shape == wanted.shape
    assert int((found != wanted).sum()) == 0
    assert len(np.unique(found)) > 2, "it computes something"


@pytest.mark.parametrize("kind", sorted(SETS))
def test_every_layer_has_an_integer_kernel(results, kind):
    program = results(kind, "channel")[1]
    assert program.portable == ()
    kinds = ("Conv2d", "DepthwiseConv2d", "FullyConnected")
    steps = [(delegate, step) for delegate in program.delegates for step in delegate.steps if step.kind in kinds]
    assert len(steps) == len(SETS[kind][0])
    for delegate, step in steps:
        datatypes = [delegate.values[value].datatype for value in (step.inputs[0], step.filter, step.output)]
        assert datatypes == [parse.QINT8, parse.QCINT8, parse.QINT8]


@pytest.mark.parametrize("kind", ["conv2d", "conv1d"])
def test_depthwise_layers_have_the_kernel_of_their_own(results, kind):
    wanted = sum(name.startswith("depthwise") for name in SETS[kind][0])
    steps = [step for delegate in results(kind, "channel")[1].delegates for step in delegate.steps]
    assert sum(step.kind == "DepthwiseConv2d" for step in steps) == wanted
