"""Small real models, exported, and plain encodings for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from haversack.base.encodings import Dynamic as DynamicEncoding
from haversack.base.encodings import Encodings
from haversack.tools.graph import canonical, execute, roles
from haversack.tools.numerics import affine, ties


@pytest.fixture(scope="session")
def exported():
    """module, example arrays -> Model with a free batch dimension (unless ``free`` is False)."""
    import torch

    def make(module, *examples, free=True):
        tensors = tuple(torch.from_numpy(np.asarray(array)) for array in examples)
        shapes = tuple({0: torch.export.Dim.AUTO} if free else {} for _ in tensors)
        program = torch.export.export(module.eval(), tensors, dynamic_shapes=shapes)
        return canonical.to_model(program, "tiny")

    return make


@pytest.fixture(scope="session")
def encoded():
    """model, inputs -> Encodings: min-max ranges, tied and tie-free; int8 layers, one scale a row."""
    return _encode


@pytest.fixture(scope="session")
def weight_only():
    """model -> Encodings with weights in integers only, ``dynamic`` inputs where asked."""

    def make(model, *, dynamic=False, bits=8):
        tensors, integers = {}, {}
        for node in model.graph.nodes:
            if roles.role(node) in (roles.Role.LAYER, roles.Role.EMBEDDING):
                _weight(model, node, tensors, integers, bits)
                if dynamic and roles.role(node) is roles.Role.LAYER:
                    tensors[f"{node.key}:in"] = DynamicEncoding()
        return Encodings(tensors, integers)

    return make


def _weight(model, node, tensors, integers, bits=8):
    weight = model.weights[node.weight]
    scale = np.abs(weight.reshape(len(weight), -1)).max(1) / (2 ** (bits - 1) - 1)
    key = f"{node.key}:weight"
    tensors[key] = affine.symmetric(np.maximum(scale, 1e-6), bits, 0)
    integers[key] = affine.quantize(weight, tensors[key])


def _encode(model, inputs):
    low, high = {}, {}

    def watch(node, value):
        if value.is_floating_point():
            low[node.out], high[node.out] = float(value.min()), float(value.max())

    execute.Executor(model).run(inputs, observe=watch)
    parts = [unit for unit in roles.units(model.graph) if unit.out in low]
    tied = {
        unit.out: [f"{key}:out" for key in unit.head.inputs]
        for unit in parts
        if roles.role(unit.head) in (roles.Role.SAME, roles.Role.CONCAT)
    }
    for out in list(reversed(tied)) * len(tied):  # one range for all that are tied: the widest, to the last
        group = [out, *tied[out]]
        bottom, top = min(low[key] for key in group), max(high[key] for key in group)
        low.update(dict.fromkeys(group, bottom))
        high.update(dict.fromkeys(group, top))
    tensors = {unit.out: affine.from_range(low[unit.out], high[unit.out]) for unit in parts}
    _without_ties(parts, tensors)
    integers = {}
    for unit in parts:
        if roles.role(unit.head) is roles.Role.LAYER:
            _weight(model, unit.head, tensors, integers)
        if roles.role(unit.head) is roles.Role.SAME:
            tensors[unit.out] = tensors[f"{unit.head.inputs[0]}:out"]
    return Encodings(tensors, integers)


def _without_ties(parts, tensors):
    for unit in reversed(parts):
        if roles.role(unit.head) in (roles.Role.ADD, roles.Role.MEAN):
            for key in unit.head.inputs:
                old = tensors[f"{key}:out"]
                tensors[f"{key}:out"] = replace(old, scale=ties.tie_free(old.scale, tensors[unit.out].scale))
