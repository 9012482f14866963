"""A small network released in integers, and data that it was not made for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from haversack.base.plan import Plan
from haversack.compress.apply import apply
from haversack.compress.finetune.losses import of_metric
from haversack.compress.finetune.tuned import Tuned
from haversack.compress.plans import uniform
from haversack.profile.ranges import ranges
from haversack.targets.contract import SHELF as TARGETS

CLASSES = 3


def pictures(seed, count, shift=0.0):
    """Return images [n, 1, 6, 6] with a bright band whose place is the class, and their classes."""
    random = np.random.default_rng(seed)
    classes = np.arange(count) % CLASSES
    images = random.normal(0, 0.3, (count, 1, 6, 6))
    for row, name in enumerate(classes):
        images[row, 0, 2 * name : 2 * name + 2] += 1.0
    return (images * (1 - shift) + 2 * shift).astype(np.float32), classes


def pairs(seed, count, shift, size=16):
    """Return (inputs, expected) in batches."""
    images, classes = pictures(seed, count, shift)
    return [((images[at : at + size],), classes[at : at + size]) for at in range(0, count, size)]


@pytest.fixture(scope="session")
def released(make_model):
    """The network trained on pictures as they are, in int8 for ONNX Runtime: a Compressed."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 3),
    )
    images, classes = pictures(1, 192)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        loss = nn.functional.cross_entropy(net(torch.from_numpy(images)), torch.from_numpy(classes))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model = make_model(net, (1, 6, 6))
    demands = TARGETS.build("onnxruntime").demands(model)
    layers = uniform(model.graph, "int8", integer_ops=demands.integer_ops, widths=demands.widths)
    samples = [(images[:64],)]
    return apply(
        model,
        Plan("onnxruntime", layers, constrained_by=("onnxruntime",)),
        ranges=lambda one: ranges(one, samples),
        constraints=demands,
        samples=lambda: samples,
    )


@pytest.fixture(scope="session")
def layers(released):
    """Keys of its layers, in order."""
    return [node.key for node in released.model.graph.nodes if node.weight]


@pytest.fixture(scope="session")
def tuned(released):
    """Ways -> the release in training."""
    return lambda ways: Tuned(released.model, released.encodings, ways)


@pytest.fixture(scope="session")
def lesson():
    """New data to train on, and what is held back."""
    return pairs(2, 192, 0.4), pairs(3, 96, 0.4, 96)


@pytest.fixture(scope="session")
def loss():
    return of_metric("top1")
