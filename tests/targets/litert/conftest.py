"""Small real models of every kind, with encodings made by haversack's own plans under the target's constraints."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.base.plan import Plan, Step
from haversack.compress import encode
from haversack.compress.plans import uniform
from haversack.profile.ranges import ranges
from haversack.targets.litert import LiteRT
from haversack.targets.reference import Reference
from haversack.tools.data.layouts import to_file, to_model
from haversack.tools.graph import canonical


def export(module, *examples, free=(0,), names=(), outputs=()):
    """Return the Model of a module; axes in ``free`` have no fixed length."""
    import torch

    tensors = tuple(torch.from_numpy(np.asarray(array)) for array in examples)
    shapes = tuple(dict.fromkeys(free, torch.export.Dim.AUTO) for _ in tensors)
    program = torch.export.export(module.eval(), tensors, dynamic_shapes=shapes)
    dims = {name: {1: "length"} for name in names} if 1 in free else None
    return canonical.to_model(program, "tiny", input_names=names, output_names=outputs, dims=dims)


def plan(model, samples, precision="int8", granularity="channel"):
    """Return the encodings of a uniform plan."""
    demands = LiteRT().constraints(model.graph)
    layers = uniform(model.graph, precision, granularity=granularity, integer_ops=demands.integer_ops)
    made = Plan("litert", layers, (), Step("minmax"), ("litert",))
    found, _ = encode.encode(model, made, ranges(model, list(samples)) if precision == "int8" else {}, demands)
    return found


class Both:
    """A model lowered: what the file gives and what the reference gives, both with the model's axes."""

    def __init__(self, model, encodings, folder, target=None):
        self.model, self.encodings = model, encodings
        self.target = target or LiteRT()
        self.artifact = self.target.lower(model, encodings, folder)
        self.path = folder / self.artifact.files[0].path
        self.session = self.target.open_session(self.path)

    def file(self, *sample):
        layouts = self.artifact.layouts
        ports = [port.name for port in self.model.inputs]
        feeds = {name: to_file(array, layouts.get(name, "")) for name, array in zip(ports, sample, strict=True)}
        found = self.session.run(feeds)
        return [to_model(found[port.name], layouts.get(port.name, "")) for port in self.model.outputs]

    def reference(self, *sample):
        return list(Reference().run(self.model, self.encodings, sample))


def _zoo():  # noqa: C901 - one class a model
    """Return name -> (module, inputs) of models that together use what vision and sound use."""
    import torch
    from torch import nn

    torch.manual_seed(7)

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 8, 3, padding=1)
            self.two = nn.Conv2d(8, 8, 1, bias=False)
            self.act = nn.ReLU6()
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            x = self.act(self.one(x))
            x = x + self.two(x)
            return self.head(x.mean((2, 3)))

    class Block(nn.Module):
        """As in a ResNet: a stride of 2 with a pad that is not SAME, and a shortcut."""

        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 1, 1)
            self.short = nn.Conv2d(3, 6, 1, 2)
            self.head = nn.Linear(6, 4)

        def forward(self, x):
            y = torch.relu(self.two(torch.relu(self.one(x))) + self.short(x))
            return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(y, 1), 1))

    class Depthwise(nn.Module):
        def __init__(self):
            super().__init__()
            self.pad = nn.ZeroPad2d((0, 1, 0, 1))
            self.conv = nn.Conv2d(3, 6, 3, stride=2)
            self.deep = nn.Conv2d(6, 12, 3, padding=1, groups=6)
            self.group = nn.Conv2d(12, 8, 3, padding=1, groups=4)
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.out = nn.Linear(8, 4)

        def forward(self, x):
            x = torch.relu(self.deep(torch.relu(self.conv(self.pad(x)))))
            return self.out(torch.flatten(self.pool(self.group(x)), 1))

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
            self.last = nn.Conv2d(8, 3, 1)

        def forward(self, x):
            x = torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], 1)
            return self.last(nn.functional.max_pool2d(x, 2))

    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Conv1d(4, 6, 3, padding=1)
            self.act = nn.Hardtanh(-0.5, 0.5)
            self.out = nn.Linear(6, 3)

        def forward(self, x):
            return self.out(self.act(self.mix(x)).transpose(1, 2))

    class Keywords(nn.Module):
        """Spectrogram in, flattened before the last layer: the order of the flattened values matters."""

        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(1, 4, (3, 5), padding=(1, 2)), nn.Conv2d(4, 6, 3, stride=2)
            self.out = nn.Linear(6 * 4 * 5, 3)

        def forward(self, x):
            x = torch.relu(self.two(torch.relu(self.one(x.unsqueeze(1)))))
            return self.out(x.flatten(1))

    class Squeeze(nn.Module):
        """Gates by sigmoid and hard swish, as mobile networks have them."""

        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 8, 3, padding=1)
            self.down, self.up = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
            self.out = nn.Conv2d(8, 4, 1)

        def forward(self, x):
            x = nn.functional.hardswish(self.one(x))
            gate = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))
            return torch.softmax(self.out(x * gate).mean((2, 3)), 1)

    rng = np.random.default_rng(3)

    def images(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return {
        "residual": (Residual(), images(4, 3, 8, 8)),
        "block": (Block(), images(4, 3, 8, 8)),
        "depthwise": (Depthwise(), images(4, 3, 8, 8)),
        "branches": (Branches(), images(4, 3, 8, 8)),
        "sequence": (Sequence(), images(4, 4, 10)),
        "keywords": (Keywords(), images(4, 9, 12)),
        "squeeze": (Squeeze(), images(4, 3, 6, 6)),
    }


class Zoo:
    """Name -> (Model, sample), exported on first use."""

    def __init__(self):
        self.parts = _zoo()
        self.made = {}
        self.names = tuple(self.parts)

    def __getitem__(self, name):
        if name not in self.made:
            module, data = self.parts[name]
            self.made[name] = (export(module, data), (data,))
        return self.made[name]


@pytest.fixture(scope="session")
def zoo():
    """Name -> (Model, sample)."""
    return Zoo()


@pytest.fixture(scope="session")
def exported():
    """module, examples -> Model."""
    return export


@pytest.fixture(scope="session")
def encoded():
    """model, samples, precision … -> Encodings."""
    return plan


@pytest.fixture
def both(tmp_path):
    """model, encodings -> the lowered model beside the reference."""
    counter = iter(range(1000))
    return lambda model, encodings=None, target=None: Both(
        model, encodings or Encodings.none(), tmp_path / str(next(counter)), target
    )
