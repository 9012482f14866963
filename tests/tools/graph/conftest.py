import numpy as np
import pytest
import torch

from haversack.tools.graph.canonical import to_model


@pytest.fixture
def model_of():
    """Export a module on example inputs with a free batch, and return its Model."""

    def build(module, *inputs, free=None, **names):
        free = free or [{0: "batch"}] * len(inputs)
        shapes = tuple(dict.fromkeys(axes, torch.export.Dim.AUTO) for axes in free)
        program = torch.export.export(module.eval(), inputs, dynamic_shapes=shapes, strict=False)
        return to_model(program, "net", **names)

    return build


@pytest.fixture
def eager():
    """Run a module in PyTorch on NumPy inputs."""

    def run(module, *arrays):
        with torch.no_grad():
            found = module(*(torch.from_numpy(array) for array in arrays))
        return [value.numpy() for value in (found if isinstance(found, tuple | list) else [found])]

    return run


@pytest.fixture
def noise():
    """Return seeded float32 noise of a shape."""
    return lambda *shape: np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)
