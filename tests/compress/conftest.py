"""Small models with norms, clamps, adds, concatenations and embeddings, exported once a session."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="session")
def make_model():
    """Return module, example shapes (without batch) -> Model with a free batch."""
    import torch

    from haversack.tools.graph.canonical import to_model

    def make(module, *shapes, dtype=torch.float32):
        examples = tuple(torch.zeros(2, *shape, dtype=dtype) for shape in shapes)
        free = torch.export.Dim.AUTO
        dims = (tuple({0: free} for _ in examples),) if _variadic(module) else tuple({0: free} for _ in examples)
        program = torch.export.export(module.eval(), examples, dynamic_shapes=dims)
        return to_model(program, "tiny")

    return make


def _variadic(module):
    import inspect

    return any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(module.forward).parameters.values())


@pytest.fixture(scope="session")
def small_net():
    """Return a convolutional network with every construct that the stage treats specially."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(channels)

        def forward(self, x):
            return x + self.norm(self.conv(x))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
            self.stem_norm = nn.BatchNorm2d(8)
            self.act = nn.ReLU6()
            self.block = Block(8)
            self.wide = nn.Conv2d(8, 12, 1)
            self.relu = nn.ReLU()
            self.narrow = nn.Conv2d(12, 6, 3)
            self.head = nn.Linear(6, 5)

        def forward(self, x):
            x = self.act(self.stem_norm(self.stem(torch.nn.functional.pad(x, [0, 1, 0, 1]))))
            x = self.block(x)
            x = self.narrow(self.relu(self.wide(x)))
            return self.head(x.mean(dim=[2, 3]))

    torch.manual_seed(3)
    net = Net().eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2.0)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
        net.wide.weight[:3] *= 12  # channels that equalization has something to do with
    return net


@pytest.fixture(scope="session")
def small_model(make_model, small_net):
    return make_model(small_net, (3, 9, 9))


@pytest.fixture(scope="session")
def images():
    """Return six batches of four images."""
    rng = np.random.default_rng(5)
    return [(rng.normal(size=(4, 3, 9, 9)).astype(np.float32),) for _ in range(6)]


@pytest.fixture(scope="session")
def context(images):
    from haversack.compress.prepare.contract import PrepareContext

    return PrepareContext(lambda: images)


@pytest.fixture(scope="session")
def folded(small_model, context):
    """Return the small model with its norms folded."""
    from haversack.compress.prepare.fold_norm import FoldNorm

    return FoldNorm().apply(small_model, context)


@pytest.fixture(scope="session")
def folded_ranges(folded, images):
    from haversack.profile.ranges import ranges

    return ranges(folded, images)


@pytest.fixture(scope="session")
def all_constraints():
    """Return graph -> what integer kernels demand."""
    from haversack.tools.graph.demands import demands

    return demands


@pytest.fixture(scope="session")
def statistics():
    """Return values -> TensorStatistics of them."""
    import torch

    from haversack.profile.ranges import Histogram

    def take(values):
        histogram = Histogram()
        histogram.add(torch.tensor(np.asarray(values, np.float32)))
        return histogram.statistics(1)

    return take
