"""Networks lowered for Core ML and run by the interpreter, and a small network of every kind of layer."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from haversack.base.constraints import Constraints
from haversack.base.plan import Plan, Step
from haversack.compress import encode
from haversack.compress.plans import uniform
from haversack.targets.coreml import CoreML
from haversack.tools.graph import canonical

sys.path.insert(0, str(Path(__file__).parent))


def export(module, *examples, names=(), free=(0,), dims=None):
    """Return the Model of a module; axes in ``free`` have no fixed length."""
    import torch

    tensors = tuple(torch.from_numpy(np.asarray(array)) for array in examples)
    shapes = tuple(dict.fromkeys(free, torch.export.Dim.AUTO) for _ in tensors)
    program = torch.export.export(module.eval(), tensors, dynamic_shapes=shapes)
    return canonical.to_model(program, "tiny", input_names=names, dims=dims)


def weights_at(model, precision, **settings):
    """Return the encodings of a uniform plan under Core ML's constraints."""
    part = Step("kmeans", settings) if precision == "palette" else Step("minmax")
    layers = uniform(model.graph, precision, weights=part)
    found, _ = encode.encode(model, Plan("coreml", layers), {}, Constraints(half_scales=True))
    return found


class Lowered:
    """A model in a folder as a Core ML package."""

    def __init__(self, model, encodings, folder):
        self.model, self.encodings, self.target = model, encodings, CoreML()
        self.artifact = self.target.lower(model, encodings, folder)
        self.folder, self.package = folder, folder / "model.mlpackage"
        self.path = folder / self.artifact.files[0].path

    def run(self, *inputs):
        """Return the outputs as the interpreter computes them."""
        from interpreter import Interpreter

        return Interpreter(self.package).run(*inputs)

    def read(self):
        return self.target.read(self.path, self.artifact)


@pytest.fixture(scope="session")
def exported():
    """module, examples -> Model."""
    return export


@pytest.fixture(scope="session")
def stored():
    """model, precision -> Encodings."""
    return weights_at


@pytest.fixture
def lowered(tmp_path):
    """model, encodings -> Lowered."""
    counter = iter(range(1000))
    return lambda model, encodings: Lowered(model, encodings, tmp_path / str(next(counter)))


def _words():
    from torch import nn

    class Words(nn.Module):
        """A transformer's encoder layer over a table of words, with a mask of truths."""

        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(50, 12)
            self.norm, self.last = nn.LayerNorm(12), nn.LayerNorm(12)
            self.query, self.key, self.value, self.out = (nn.Linear(12, 12) for _ in range(4))
            self.up, self.down = nn.Linear(12, 24), nn.Linear(24, 12)

        def forward(self, ids, mask):
            x = self.norm(self.table(ids))
            parts = [layer(x).unflatten(-1, (3, 4)).transpose(1, 2) for layer in (self.query, self.key, self.value)]
            seen = mask[:, None, None, :].bool()
            found = nn.functional.scaled_dot_product_attention(*parts, attn_mask=seen)
            x = x + self.out(found.transpose(1, 2).flatten(2))
            x = self.last(x + self.down(nn.functional.gelu(self.up(x))))
            wide = mask.unsqueeze(-1).float()
            return (x * wide).sum(1) / wide.sum(1).clamp(min=1e-9)

    ids = np.random.default_rng(0).integers(0, 50, (2, 7))
    mask = np.ones((2, 7), np.int64)
    mask[1, 5:] = 0
    return export(
        Words(), ids, mask, names=("ids", "mask"), free=(0, 1), dims={"ids": {1: "length"}, "mask": {1: "length"}}
    )


def _mobile():
    import torch
    from torch import nn

    class Mobile(nn.Module):
        """An inverted residual with a gate, as mobile networks have them."""

        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(8)
            self.up, self.deep, self.down = (
                nn.Conv2d(8, 16, 1),
                nn.Conv2d(16, 16, 3, padding=1, groups=16),
                nn.Conv2d(16, 8, 1),
            )
            self.less, self.more = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            x = nn.functional.relu6(self.norm(self.stem(nn.functional.pad(x, (0, 1, 0, 1)))))
            y = nn.functional.hardswish(self.deep(nn.functional.silu(self.up(x))))
            y = y * torch.sigmoid(self.more(torch.relu(self.less(y.mean((2, 3), keepdim=True)))))
            x = x + self.down(y)
            return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))

    images = np.random.default_rng(1).normal(size=(2, 3, 12, 12)).astype(np.float32)
    return export(Mobile(), images, names=("image",))


@pytest.fixture(scope="session")
def mobile():
    """A convolutional Model."""
    import torch

    torch.manual_seed(3)
    return _mobile()


@pytest.fixture(scope="session")
def words():
    """A transformer-like Model of two whole-number inputs, any length."""
    import torch

    torch.manual_seed(4)
    return _words()
