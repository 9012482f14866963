"""What stands between layers: clamps, adds, means, moves and pads, each behind a convolution of its own."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.targets.executorch import ExecuTorch
from haversack.targets.reference import Reference

TARGET = ExecuTorch()
SHAPE = (3, 3, 8, 9)
JOINTS = {
    "relu": "torch.relu(a(x))",
    "relu6": "F.relu6(9 * a(x))",
    "relu6 behind a layer": "F.relu6(a(x))",
    "hardtanh": "F.hardtanh(a(x), -0.2, 0.3)",
    "hardtanh above zero": "F.hardtanh(a(x), 0.1, 0.3)",
    "clamp": "a(x).clamp(-0.25, 0.125)",
    "clamp from below": "a(x).clamp(min=-0.1)",
    "clamp from above": "a(x).clamp(max=0.2)",
    "relu twice": "torch.relu(torch.relu(a(x)))",
    "relu then clamp": "torch.relu(a(x)).clamp(max=0.2)",
    "relu that others bypass": "torch.cat([torch.relu(a(x)), b(x)], 1)",
    "add": "a(x) + b(x)",
    "add of a large and a small": "a(x) + 0.01 * b(x)",
    "add and relu": "torch.relu(a(x) + b(x))",
    "add and clamp": "(a(x) + b(x)).clamp(-0.2, 0.2)",
    "add to itself": "(lambda y: y + y)(a(x))",
    "add of a relu": "torch.relu(a(x)) + b(x)",
    "add of three": "a(x) + b(x) + c(x)",
    "add of a row": "a(x) + b(x).mean((2, 3), keepdim=True)",
    "add of a constant": "a(x) + 0.5",
    "mean": "a(x).mean((2, 3))",
    "mean kept": "a(x).mean((2, 3), keepdim=True)",
    "mean of negative axes": "a(x).mean((-1, -2))",
    "mean of a relu": "torch.relu(a(x)).mean((2, 3))",
    "mean and relu": "torch.relu(a(x).mean((2, 3)))",
    "pool to one": "F.adaptive_avg_pool2d(a(x), 1)",
    "pool to one and flatten": "F.adaptive_avg_pool2d(a(x), 1).flatten(1)",
    "mean of channels": "a(x).mean(1)",
    "cat": "torch.cat([a(x), b(x)], 1)",
    "cat of rows": "torch.cat([a(x), b(x)], 2)",
    "cat of columns": "torch.cat([a(x), b(x)], -1)",
    "cat of three": "torch.cat([a(x), b(x), c(x)], 1)",
    "cat of five": "torch.cat([a(x), b(x), c(x), torch.relu(a(x)), torch.relu(b(x))], 1)",
    "cat of seven": "torch.cat([a(x), b(x), c(x), a(x), b(x), c(x), a(x)], 1)",
    "flatten": "a(x).flatten(1)",
    "flatten of relu": "torch.relu(a(x)).flatten(1)",
    "flatten of space": "a(x).flatten(2)",
    "view": "a(x).view(x.shape[0], 8, 36)",
    "unsqueeze": "a(x).unsqueeze(1)",
    "unsqueeze and squeeze": "d(a(x).unsqueeze(-1).squeeze(4))",
    "permute": "a(x).permute(0, 2, 3, 1)",
    "transpose": "a(x).transpose(2, 3)",
    "slice": "a(x)[:, 1:3]",
    "slice of rows": "a(x)[:, :, 2:5]",
    "max_pool2d": "F.max_pool2d(a(x), 2)",
    "max_pool2d of relu": "F.max_pool2d(torch.relu(a(x)), 2)",
    "max_pool2d, then relu": "torch.relu(F.max_pool2d(a(x), 2))",
    "max_pool2d, overlapping": "F.max_pool2d(a(x), 3, 2)",
    "max_pool2d, padded": "F.max_pool2d(a(x), 3, 2, 1)",
    "max_pool2d, not square": "F.max_pool2d(a(x), (2, 3), (1, 2))",
    "max_pool2d, dilated": "F.max_pool2d(a(x), 2, 1, 0, 2)",
    "max_pool2d up to the ceiling": "F.max_pool2d(a(x), 2, ceil_mode=True)",
    "avg_pool2d": "F.avg_pool2d(a(x), 2)",
    "pad to the right": "c(F.pad(x, (0, 1)))",
    "pad on one side": "c(F.pad(x, (2, 0, 0, 1)))",
    "pad between layers": "d(F.pad(torch.relu(a(x)), (0, 1, 2, 0)))",
    "pad that two layers read": "(lambda y: d(y) + d(y))(F.pad(a(x), (1, 0, 1, 0)))",
    "pad that an add reads too": "(lambda y: d(F.pad(y, (0, 1, 0, 1))) + y)(a(x))",
    "pad and pool": "F.max_pool2d(F.pad(torch.relu(a(x)), (1, 1, 1, 1)), 2)",
    "pad of channels": "F.pad(a(x), (0, 0, 0, 0, 1, 1))",
    "pad with a number": "d(F.pad(a(x), (1, 1, 1, 1), value=0.25))",
    "pad at the end": "F.pad(a(x), (1, 2))",
    "pad twice": "d(F.pad(F.pad(a(x), (1, 0)), (0, 0, 1, 0)))",
    "dropout": "d(F.dropout(a(x), 0.5, training=False))",
    "residual": "(lambda y: d(torch.relu(e(y))) + y)(a(x))",
    "a sigmoid between": "d(torch.sigmoid(a(x)))",
    "its own input": "torch.cat([x, a(x)], 1)",
}
TOGETHER = 12
GROUPS = [list(JOINTS)[start : start + TOGETHER] for start in range(0, len(JOINTS), TOGETHER)]


def network(names):
    """Return a module with one output for each expression; no two of them share a layer."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(23)

    class Joint(nn.Module):
        def __init__(self, code):
            super().__init__()
            self.code = code
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
            self.d, self.e = nn.Conv2d(4, 4, 2), nn.Conv2d(4, 4, 1)
            if "+ y" in code:
                self.d = nn.Conv2d(4, 4, 1) if "F.pad" not in code else nn.Conv2d(4, 4, 2)

        def forward(self, x):
            layers = {name: getattr(self, name) for name in "abcde"}
            return eval(self.code, {"torch": torch, "F": functional, "x": x, **layers})  # noqa: S307 - the table above

    class All(nn.Module):
        def __init__(self):
            super().__init__()
            self.all = nn.ModuleList([Joint(JOINTS[name]) for name in names])

        def forward(self, x):
            return tuple(one(x) for one in self.all)

    return All()


@pytest.fixture(scope="module")
def results(exported, encoded, tmp_path_factory):
    """name, form -> (what the file gives, what the reference gives); some expressions share a skeleton."""
    models, made = {}, {}
    x = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)

    def make(name, form):
        number = next(index for index, group in enumerate(GROUPS) if name in group)
        if (number, form) not in made:
            if number not in models:
                models[number] = exported(network(GROUPS[number]), x)
            model = models[number]
            encodings = Encodings.none() if form == "float" else encoded(model, (x,), wide=form == "wide")
            folder = tmp_path_factory.mktemp(f"{number}-{form}")
            artifact = TARGET.lower(model, encodings, folder)
            assert artifact.injected == artifact.read_back
            found = TARGET.open_session(folder / "model.pte").run({model.inputs[0].name: x})
            wanted = Reference().run(model, encodings, (x,))
            pairs = zip((found[port.name] for port in model.outputs), wanted, strict=True)
            made[number, form] = dict(zip(GROUPS[number], pairs, strict=True))
        return made[number, form][name]

    return make


@pytest.mark.parametrize("name", JOINTS)
def test_in_float(results, name):
    found, wanted = results(name, "float")
    assert found.shape == wanted.shape
    assert float(np.abs(found - wanted).max()) <= 1e-5


IN_FLOAT = {"avg_pool2d", "a sigmoid between", "add of a constant", "mean of channels", "pad with a number"}
"""Some of their ops have no integers: what float kernels give may differ in its last bits."""


@pytest.mark.parametrize("form", ["int8", "wide"])
@pytest.mark.parametrize("name", JOINTS)
def test_in_integers(results, name, form):
    """Where the grid is wider than a clamp, the clamp is done in codes."""
    found, wanted = results(name, form)
    assert found.shape == wanted.shape
    if name in IN_FLOAT:
        np.testing.assert_allclose(found, wanted, rtol=0, atol=0.02)
    else:
        assert int((found != wanted).sum()) == 0


def test_an_input_that_gets_its_axis_of_channels_first_has_codes(exported, encoded, tmp_path):
    """Log-mel frames [n, bands, frames], as an image of one channel: XNNPACK moves the codes."""
    import torch

    class Heard(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Linear(4, 3)

        def forward(self, frames):
            return self.head(torch.relu(self.stem(frames.unsqueeze(1))).mean((2, 3)))

    x = np.random.default_rng(2).normal(size=(3, 6, 8)).astype(np.float32)
    model = exported(Heard(), x)
    made = encoded(model, (x,))
    before = {f"{model.graph.inputs[0]}:out": made.tensors[":unsqueeze#0:out"]}
    encodings = Encodings({**made.tensors, **before}, made.integers)
    artifact = TARGET.lower(model, encodings, tmp_path)
    assert not TARGET.findings(tmp_path / TARGET.file, artifact)
    found = TARGET.open_session(tmp_path / "model.pte").run({model.inputs[0].name: x})
    np.testing.assert_array_equal(found[model.outputs[0].name], Reference().run(model, encodings, (x,))[0])


def test_a_tensor_joined_to_itself_stays_in_float(exported, encoded, tmp_path):
    """XNNPACK does not take it: the target's own constraints must not ask for its codes."""
    import torch

    class Doubled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.before, self.behind = torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(8, 2, 1)

        def forward(self, x):
            y = self.before(x)
            return self.behind(torch.cat([y, y], 1)), torch.cat([y, y], 2)

    x = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
    model = exported(Doubled(), x)
    assert TARGET.constraints(model.graph).integer_ops == {"conv2d"}
    encodings = encoded(model, (x,))
    TARGET.lower(model, encodings, tmp_path)
    found = TARGET.open_session(tmp_path / "model.pte").run({model.inputs[0].name: x})
    for port, wanted in zip(model.outputs, Reference().run(model, encodings, (x,)), strict=True):
        np.testing.assert_array_equal(found[port.name], wanted)
