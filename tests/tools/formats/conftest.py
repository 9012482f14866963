"""A small network in the files of three runtimes, with the encodings that they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from haversack.base.plan import Plan
from haversack.compress import encode
from haversack.compress.plans import uniform
from haversack.flow.squeeze import together
from haversack.lower.emit import emit
from haversack.profile.ranges import ranges
from haversack.targets.contract import SHELF
from haversack.tools.formats import encodings_file
from haversack.tools.graph import canonical

FILES = {"onnxruntime": "model.onnx", "litert": "model.tflite", "executorch": "model.pte"}


def network(seed=0):
    """Return two convolutions, a joint and a linear layer."""
    import torch

    torch.manual_seed(seed)

    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
            self.second = torch.nn.Conv2d(8, 8, 3, padding=1)
            self.last = torch.nn.Linear(8 * 4, 5)

        def forward(self, x):
            y = torch.relu(self.first(x))
            return self.last(torch.nn.functional.avg_pool2d(y + torch.relu(self.second(y)), 4).flatten(1))

    return Small().eval()


def written(folder: Path, module) -> dict[str, bytes]:
    """Return the name of each file -> its bytes: the runtimes' and the encodings'."""
    import torch

    images = np.random.default_rng(0).uniform(0, 1, (8, 3, 8, 8)).astype(np.float32)
    shapes = ({0: torch.export.Dim.AUTO},)
    model = canonical.to_model(torch.export.export(module, (torch.from_numpy(images),), dynamic_shapes=shapes), "tiny")
    demands = together({name: SHELF.build(name).demands(model) for name in FILES})["litert"]
    plan = Plan(
        "litert", uniform(model.graph, "int8", integer_ops=demands.integer_ops), (), constrained_by=tuple(FILES)
    )
    encodings, _ = encode.encode(model, plan, ranges(model, [(images,)]), demands)
    found = {"encodings.safetensors": encodings_file.to_bytes(encodings)}
    for target, name in FILES.items():
        emit(model, encodings, target, folder)
        found[name] = (folder / name).read_bytes()
    return found


@pytest.fixture(scope="session")
def model_files(tmp_path_factory) -> dict[str, bytes]:
    """Name of each file of the small network -> its bytes."""

    return written(tmp_path_factory.mktemp("formats"), network())
