"""A small convolutional network, its plain encodings, and inputs."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.tools.graph import canonical, execute, roles
from haversack.tools.numerics import affine


@pytest.fixture(scope="session")
def network():
    """conv -> relu -> conv -> relu -> softmax over channels -> conv -> mean -> linear, batch free."""
    import torch
    from torch import nn

    torch.manual_seed(3)
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Softmax(1), nn.Conv2d(4, 3, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5),
    ).eval()  # fmt: skip
    example = (torch.zeros(2, 2, 8, 8),)
    program = torch.export.export(module, example, dynamic_shapes=({0: torch.export.Dim.AUTO},))
    return canonical.to_model(program, "tiny")


@pytest.fixture(scope="session")
def batch():
    """Six images."""
    return (np.random.default_rng(5).normal(size=(6, 2, 8, 8)).astype(np.float32),)


@pytest.fixture(scope="session")
def coded(network, batch):
    """Min-max encodings of every tensor of the network; what is only moved keeps its source's."""
    seen, tensors, integers = {}, {}, {}

    def watch(node, value):
        seen[node.out] = affine.from_range(float(value.min()), float(value.max()))

    execute.Executor(network).run(batch, observe=watch)
    for unit in roles.units(network.graph):
        moved = roles.role(unit.head) is roles.Role.SAME
        tensors[unit.out] = tensors[f"{unit.head.inputs[0]}:out"] if moved else seen[unit.out]
        if roles.role(unit.head) is roles.Role.LAYER:
            key, weight = f"{unit.head.key}:weight", network.weights[unit.head.weight]
            tensors[key] = affine.symmetric(np.abs(weight.reshape(len(weight), -1)).max(1) / 127, 8, 0)
            integers[key] = affine.quantize(weight, tensors[key])
    return Encodings(tensors, integers)
