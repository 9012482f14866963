"""Small real models of every kind, and encodings for them under the target's own constraints."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

import numpy as np
import pytest

from haversack.base.encodings import Dynamic, Encodings, Float
from haversack.targets.onnxruntime import OnnxRuntime
from haversack.tools.graph import canonical, execute
from haversack.tools.graph.roles import Role, role, units
from haversack.tools.numerics import affine, ties

MOVING = (Role.ADD, Role.MEAN, Role.SAME, Role.CONCAT)


def export(module, *examples, names=(), outputs=(), free=True, axes=(0,)):
    """Return the Model of a module, its batch (and further ``axes``) free."""
    import torch

    tensors = tuple(torch.from_numpy(np.asarray(array)) for array in examples)
    shapes = tuple(dict.fromkeys(axes, torch.export.Dim.AUTO) if free else {} for _ in tensors)
    program = torch.export.export(module.eval(), tensors, dynamic_shapes=shapes)
    return canonical.to_model(program, "tiny", input_names=names, output_names=outputs)


def encode(model, samples, precision="int8", granularity="channel", only=None, wide=False):
    """Return encodings: min-max ranges under the constraints, each layer (or ``only`` some) at one precision.

    ``wide`` ignores the clamps, so that codes must be clamped.
    """
    tensors, integers = {}, {}
    layers = [u for u in units(model.graph) if role(u.head) in (Role.LAYER, Role.EMBEDDING)]
    chosen = {u.head.key for u in layers if only is None or u.head.key in only}
    if precision == "int8":
        tensors |= activations(
            model, samples, {u.head.key for u in layers if role(u.head) is Role.LAYER} & chosen, wide
        )
    for unit in layers:
        node, key = unit.head, f"{unit.head.key}:weight"
        if node.key not in chosen or (precision == "int8" and role(node) is Role.EMBEDDING):
            continue
        if precision == "float16":
            tensors[key] = Float("float16")
            continue
        weight = model.weights[node.weight]
        size = np.abs(weight.reshape(len(weight), -1)).max(1) if granularity == "channel" else np.abs(weight).max()
        scale = np.asarray(np.maximum(size / 127, 1e-8), np.float32)
        if precision == "int8" and node.bias:
            source = tensors[f"{node.inputs[0]}:out"]
            scale, _ = affine.raise_for_bias(scale, model.weights[node.bias], source.scale)
        tensors[key] = affine.symmetric(scale, 8, 0 if granularity == "channel" else None)
        integers[key] = affine.quantize(weight, tensors[key])
        if precision == "int8_dynamic" and node.op == "linear":
            tensors[f"{node.key}:in"] = Dynamic()
    return Encodings(tensors, integers)


def activations(model, samples, chosen, wide=False):
    """Return the encodings of what integer units read and give."""
    demands = OnnxRuntime().constraints(model.graph)
    parts = units(model.graph)
    integer, wanted = {}, set()
    for unit in parts:
        kind = role(unit.head)
        whole = kind in MOVING and all(integer.get(key) for key in unit.head.inputs)
        integer[unit.last.key] = unit.head.key in chosen or whole
        if integer[unit.last.key]:
            wanted |= {unit.out, *(f"{key}:out" for key in unit.head.inputs)}
    spans = _spans(model, samples, wanted)
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
                up = not any(np.isfinite(demands.bounds.get(k, (0, np.inf))[1]) for k in group[ratio.input])
                old = found[ratio.input]
                scale = ties.tie_free(
                    old.scale, found[ratio.output].scale, ratio.denominator, ratio.multiple, up=up or wide
                )
                found |= dict.fromkeys(group[ratio.input], dataclasses.replace(old, scale=scale))
    return found


def _spans(model, samples, wanted):
    low, high = defaultdict(float), defaultdict(float)

    def watch(node, value):
        if node.out in wanted:
            low[node.out], high[node.out] = (
                min(low[node.out], float(value.min())),
                max(high[node.out], float(value.max())),
            )

    runner = execute.Executor(model)
    for sample in samples:
        runner.run(sample, observe=watch)
    return {key: (low[key], high[key]) for key in wanted}


def _zoo():  # noqa: C901 - one class a model
    """Return name -> (module, inputs) of models that together use every role."""
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

    class Depthwise(nn.Module):
        def __init__(self):
            super().__init__()
            self.pad = nn.ZeroPad2d((0, 1, 0, 1))
            self.conv = nn.Conv2d(3, 6, 3, stride=2)
            self.deep = nn.Conv2d(6, 6, 3, padding=1, groups=6)
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.out = nn.Linear(6, 4)

        def forward(self, x):
            x = torch.relu(self.deep(torch.relu(self.conv(self.pad(x)))))
            return self.out(torch.flatten(self.pool(x), 1))

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
            self.last = nn.Conv2d(8, 3, 1)

        def forward(self, x):
            x = torch.cat([torch.relu(self.left(x)), self.right(x)], 1)
            return self.last(nn.functional.max_pool2d(x, 2))

    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(20, 8)
            self.norm = nn.LayerNorm(8)
            self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8, bias=False)

        def forward(self, tokens):
            x = self.table(tokens)
            return x + self.down(nn.functional.gelu(self.up(self.norm(x))))

    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Conv1d(4, 6, 3, padding=1)
            self.act = nn.Hardtanh(-0.5, 0.5)
            self.out = nn.Linear(6, 3)

        def forward(self, x):
            return self.out(self.act(self.mix(x)).transpose(1, 2))

    rng = np.random.default_rng(3)

    def images(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return {
        "residual": (Residual(), images(4, 3, 8, 8)),
        "depthwise": (Depthwise(), images(4, 3, 9, 9)),
        "branches": (Branches(), images(4, 3, 8, 8)),
        "words": (Words(), rng.integers(0, 20, (4, 7))),
        "sequence": (Sequence(), images(4, 4, 10)),
    }


class Zoo:
    """Name -> (Model, sample), exported on first use."""

    def __init__(self):
        self.parts = _zoo()
        self.made = {}

    def __getitem__(self, name):
        if name not in self.made:
            module, data = self.parts[name]
            self.made[name] = (export(module, data), (data,))
        return self.made[name]

    def __len__(self):
        return len(self.parts)

    def values(self):
        return [self[name] for name in self.parts]


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
    return encode
