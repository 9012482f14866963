"""Small real models of every kind, with encodings made by haversack's own plans under ncnn's constraints."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.plan import Plan, Step
from haversack.compress import encode
from haversack.compress.plans import uniform
from haversack.profile.ranges import ranges
from haversack.targets.ncnn import Ncnn
from haversack.targets.reference import Reference
from haversack.tools.graph import canonical


def export(module, *examples, free=True, outputs=()):
    """Return the Model of a module; its batch is free."""
    import torch

    tensors = tuple(torch.from_numpy(np.asarray(array)) for array in examples)
    shapes = tuple({0: torch.export.Dim.AUTO} for _ in tensors) if free else None
    program = torch.export.export(module.eval(), tensors, dynamic_shapes=shapes)
    return canonical.to_model(program, "tiny", output_names=outputs)


def plan(model, samples, precision="int8", granularity="channel"):
    """Return the encodings of a uniform plan."""
    demands = Ncnn().constraints(model.graph)
    layers = uniform(model.graph, precision, granularity=granularity, integer_ops=demands.integer_ops)
    made = Plan("ncnn", layers, (), Step("minmax"), ("ncnn",))
    found, _ = encode.encode(model, made, ranges(model, list(samples)) if precision == "int8" else {}, demands)
    return found


def image(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class Lowered:
    """A model lowered: what the files give, and what the reference means."""

    def __init__(self, model, encodings, folder, target=None):
        self.model, self.encodings = model, encodings
        self.target = target or Ncnn()
        self.artifact = self.target.lower(model, encodings, folder)
        self.path = folder / self.artifact.files[0].path
        self.session = self.target.open_session(self.path)

    def file(self, *sample):
        feeds = dict(zip([port.name for port in self.model.inputs], sample, strict=True))
        found = self.session.run(feeds)
        return [found[port.name] for port in self.model.outputs]

    def reference(self, *sample, arithmetic="symmetric"):
        return list(Reference(arithmetic=arithmetic).run(self.model, self.encodings, sample))


def modules():
    """Return name -> (module, shapes of its inputs) of models that together use what ncnn can hold."""
    import torch
    from torch import nn

    torch.manual_seed(7)

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 16, 3, padding=1)
            self.wise = nn.Conv2d(16, 16, 5, stride=2, padding=2, groups=16)
            self.two = nn.Conv2d(16, 16, 1, bias=False)
            self.head = nn.Linear(16, 5)

        def forward(self, x):
            x = nn.functional.relu6(self.wise(nn.functional.relu6(self.one(x))))
            x = x + self.two(x)
            return self.head(x.mean((2, 3)))

    class Moves(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(2, 8, 3, padding=1)
            self.other = nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False)
            self.head = nn.Linear(16 * 4 * 4, 7)

        def forward(self, x):
            y = nn.functional.relu(self.one(nn.functional.pad(x, (1, 0, 1, 0))))
            z = self.other(nn.functional.max_pool2d(y, 2))
            z = torch.cat([z, z], 1)[:, :, 1:]
            return self.head(nn.functional.max_pool2d(nn.functional.pad(z, (0, 0, 1, 0)), 1).flatten(1))

    class Line(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv1d(4, 6, 3, padding=1)
            self.two = nn.Linear(6, 3)

        def forward(self, x):
            return self.two(nn.functional.relu(self.one(x)).permute(0, 2, 1))

    class Clamped(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 8, 3, stride=2)
            self.wise = nn.Conv2d(8, 8, 3, groups=8)
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.head = nn.Conv2d(8, 4, 1)

        def forward(self, x):
            x = torch.clamp(self.one(x), -0.3, 0.4)
            x = torch.clamp(self.wise(x), -0.1, 0.2)
            return torch.clamp(self.head(self.pool(x)), max=0.1)

    return {
        "residual": (Residual(), [(3, 12, 12)]),
        "moves": (Moves(), [(2, 7, 7)]),
        "line": (Line(), [(4, 9)]),
        "clamped": (Clamped(), [(3, 9, 9)]),
    }


@pytest.fixture(scope="session")
def exported():
    """Return the Model of a module."""
    return export


@pytest.fixture(scope="session")
def planned():
    """Return the encodings of a uniform plan."""
    return plan


@pytest.fixture(scope="session")
def picture():
    """Return random numbers of a seed and a shape."""
    return image


@pytest.fixture
def lower(tmp_path):
    """Lower a model with encodings."""
    return lambda model, encodings, target=None: Lowered(model, encodings, tmp_path, target)


@pytest.fixture(scope="module")
def lowered_once(tmp_path_factory):
    """Lower a model with encodings, for the tests of one file."""
    return lambda model, encodings: Lowered(model, encodings, tmp_path_factory.mktemp("once"))


@pytest.fixture(scope="session")
def zoo():
    """Name -> (model, one batch of three)."""
    found = {}
    for name, (module, shapes) in modules().items():
        sample = tuple(image(number, 3, *shape) for number, shape in enumerate(shapes))
        found[name] = export(module, *sample), sample
    return found


@pytest.fixture(scope="session")
def lowered(tmp_path_factory, zoo):
    """(name, precision) -> the model lowered; each is made once."""
    made = {}

    def of(name, precision="int8"):
        if (name, precision) not in made:
            model, sample = zoo[name]
            encodings = plan(model, [sample], precision)
            made[name, precision] = Lowered(model, encodings, tmp_path_factory.mktemp(f"{name}-{precision}"))
        return made[name, precision]

    return of
