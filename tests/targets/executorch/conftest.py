"""Small real models, and encodings for them under this target's own constraints."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from haversack.base.encodings import Dynamic, Encodings
from haversack.targets.executorch import ExecuTorch
from haversack.tools.graph import canonical, execute
from haversack.tools.graph.roles import Role, role, units
from haversack.tools.numerics import affine, ties

TARGET = ExecuTorch()
MOVING = (Role.ADD, Role.MEAN, Role.SAME, Role.CONCAT)


def export(module, *examples, free=True):
    """Return the Model of a module, its batch free."""
    import torch

    tensors = tuple(torch.from_numpy(np.asarray(array)) for array in examples)
    shapes = tuple({0: torch.export.Dim.AUTO} if free else {} for _ in tensors)
    program = torch.export.export(module.eval(), tensors, dynamic_shapes=shapes)
    return canonical.to_model(program, "tiny")


def weights(model, chosen, tensors, granularity="channel", bits=8):
    """Return the integers of some layers' weights; their encodings go into ``tensors``."""
    integers = {}
    for node in model.graph.nodes:
        if node.key not in chosen:
            continue
        weight, key = model.weights[node.weight], f"{node.key}:weight"
        size = np.abs(weight.reshape(len(weight), -1)).max(1) if granularity == "channel" else np.abs(weight).max()
        scale = np.asarray(np.maximum(size / (2 ** (bits - 1) - 1), 1e-8), np.float32)
        source = tensors.get(f"{node.inputs[0]}:out")
        if node.bias and source is not None:
            scale, _ = affine.raise_for_bias(scale, model.weights[node.bias], source.scale)
        tensors[key] = affine.symmetric(scale, bits, 0 if granularity == "channel" else None)
        integers[key] = affine.quantize(weight, tensors[key])
    return integers


def encode(model, sample, *, granularity="channel", only=None, wide=False, bits=8):
    """Return int8 encodings: min-max ranges under the constraints; ``wide`` ignores the clamps."""
    layers = {n.key for n in model.graph.nodes if role(n) is Role.LAYER and (only is None or n.key in only)}
    tensors = activations(model, sample, layers, wide)
    return Encodings(tensors, weights(model, layers, tensors, granularity, bits) | {})


def stored(model, *, dynamic=False, bits=8):
    """Return encodings of the linear layers' weights alone, with inputs quantized at run time where asked."""
    layers = {n.key for n in model.graph.nodes if n.op == "linear"}
    tensors = {}
    integers = weights(model, layers, tensors, bits=bits)
    if dynamic:
        tensors |= {f"{key}:in": Dynamic() for key in layers}
    return Encodings(tensors, integers)


def activations(model, sample, chosen, wide=False):  # noqa: C901 - one pass a demand
    """Return the encodings of what integer units read and give."""
    demands, parts = TARGET.constraints(model.graph), units(model.graph)
    integer, wanted = {}, set()
    for unit in parts:
        moves = role(unit.head) in MOVING and unit.head.op in demands.integer_ops
        whole = moves and all(integer.get(key) for key in unit.head.inputs)
        integer[unit.last.key] = unit.head.key in chosen or whole
        if integer[unit.last.key]:
            wanted |= {unit.out, *(f"{key}:out" for key in unit.head.inputs)}
    spans = {}

    def watch(node, value):
        if node.out in wanted:
            spans[node.out] = min(0.0, float(value.min())), max(0.0, float(value.max()))

    execute.Executor(model).run(sample, observe=watch)
    group = {key: {key} for key in wanted}
    for tie in demands.ties:
        if tie <= wanted:
            merged = set().union(*(group[key] for key in tie))
            group |= dict.fromkeys(merged, merged)
    found = {}
    for key in sorted(wanted):
        low, high = min(spans[k][0] for k in group[key]), max(spans[k][1] for k in group[key])
        for limits in [demands.bounds[k] for k in group[key] if k in demands.bounds and not wide]:
            low, high = max(low, limits[0]), min(high, limits[1])
        found[key] = affine.from_range(low, high)
    for unit in reversed(parts):
        for ratio in demands.ratios:
            if ratio.output == unit.out and {ratio.input, ratio.output} <= set(found):
                old = found[ratio.input]
                scale = ties.tie_free(old.scale, found[ratio.output].scale, ratio.denominator, ratio.multiple)
                found |= dict.fromkeys(group[ratio.input], dataclasses.replace(old, scale=scale))
    return found


def _zoo():  # noqa: C901 - one class a model
    """Return name -> (module, inputs)."""
    import torch
    from torch import nn

    torch.manual_seed(7)

    class Block(nn.Module):
        def __init__(self, narrow, wide, stride):
            super().__init__()
            self.one, self.two = nn.Conv2d(narrow, wide, 3, stride, 1), nn.Conv2d(wide, wide, 3, 1, 1)
            self.short = nn.Conv2d(narrow, wide, 1, stride) if narrow != wide else nn.Identity()

        def forward(self, x):
            return torch.relu(self.two(torch.relu(self.one(x))) + self.short(x))

    class Resnet(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, 1, 1)
            self.blocks = nn.Sequential(Block(8, 8, 1), Block(8, 16, 2))
            self.head = nn.Linear(16, 10)

        def forward(self, x):
            x = self.blocks(torch.relu(self.stem(x)))
            return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))

    class Keywords(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(1, 16, (10, 4), (2, 2), (5, 1))
            self.deep, self.point = nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.Conv2d(16, 16, 1, bias=False)
            self.drop, self.head = nn.Dropout(0.2), nn.Linear(16, 12)

        def forward(self, x):
            x = torch.relu(self.point(torch.relu(self.deep(torch.relu(self.first(x))))))
            return self.head(self.drop(x.mean((2, 3))))

    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.before, self.conv = nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 6, 3, stride=2)
            self.between, self.deep = nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(6, 6, 3, groups=6)
            self.act, self.out = nn.ReLU6(), nn.Conv2d(6, 2, 1)

        def forward(self, x):
            return self.out(self.act(self.deep(self.between(self.act(self.conv(self.before(x)))))))

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
            self.last = nn.Conv2d(8, 3, 1)

        def forward(self, x):
            x = torch.cat([torch.relu(self.left(x)), self.right(x)], 1)
            return self.last(nn.functional.max_pool2d(x, 2))

    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.act, self.out = nn.Conv1d(4, 6, 3, padding=1), nn.Hardtanh(-0.5, 0.5), nn.Linear(6, 3)

        def forward(self, x):
            return self.out(self.act(self.mix(x)).transpose(1, 2))

    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.norm = nn.Embedding(20, 16), nn.LayerNorm(16)
            self.query, self.key, self.value = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
            self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16, bias=False)

        def forward(self, tokens):
            x = self.table(tokens)
            y = self.norm(x)
            mixed = torch.softmax(self.query(y) @ self.key(y).transpose(1, 2) * 0.25, -1) @ self.value(y)
            return x + self.down(nn.functional.gelu(self.up(mixed)))

    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(36, 3)

        def forward(self, x):
            x = nn.functional.max_pool2d(torch.relu(self.norm(self.conv(x))), 2)
            return self.head(torch.flatten(x, 1))

    rng = np.random.default_rng(3)

    def images(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return {
        "resnet": (Resnet(), images(3, 3, 12, 12)),
        "keywords": (Keywords(), images(3, 1, 49, 10)),
        "padded": (Padded(), images(3, 3, 9, 9)),
        "branches": (Branches(), images(3, 3, 8, 8)),
        "sequence": (Sequence(), images(3, 4, 10)),
        "words": (Words(), rng.integers(0, 20, (3, 7))),
        "normed": (Normed(), images(3, 3, 8, 8)),
    }


class Zoo:
    """Name -> (Model, sample), exported on first use."""

    def __init__(self):
        self.parts, self.made = _zoo(), {}

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
    """model, sample … -> static int8 Encodings."""
    return encode


@pytest.fixture(scope="session")
def stored_weights():
    """model … -> Encodings of linear weights."""
    return stored


@pytest.fixture(scope="session")
def lowered(zoo, tmp_path_factory):
    """name -> (model, sample, encodings, artifact, path) of a static int8 file, made once."""
    made = {}

    def make(name):
        if name not in made:
            model, sample = zoo[name]
            encodings = encode(model, sample)
            folder = tmp_path_factory.mktemp(name)
            made[name] = model, sample, encodings, TARGET.lower(model, encodings, folder), folder / "model.pte"
        return made[name]

    return make
