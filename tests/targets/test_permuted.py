"""Networks that move axes, on three runtimes: each tensor that a file shows is the one that its key names.

XNNPACK and LiteRT keep images with their channels last, and a move of axes may be a node of the file, a change of
layout, or nothing at all. One network of many outputs holds all moves, so that each runtime lowers once.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from haversack.base.constraints import Constraints
from haversack.base.encodings import Encodings
from haversack.base.plan import Plan, Step
from haversack.compress import encode
from haversack.compress.plans import uniform
from haversack.profile.ranges import ranges
from haversack.targets.contract import SHELF as TARGETS
from haversack.targets.reference import Reference
from haversack.tools.graph import canonical
from haversack.tools.numerics import affine
from haversack.verify.location import locate

THREE = ("onnxruntime", "litert", "executorch")


def shuffled(x):
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


MOVES = {
    "channels last": (lambda x: x.permute(0, 2, 3, 1), nn.Linear(8, 7)),
    "channels last, reduced": (lambda x: x.permute(0, 2, 3, 1).amax((1, 2)), nn.Linear(8, 7)),
    "first and last exchanged": (lambda x: x.transpose(1, 3), nn.Linear(8, 7)),
    "height and width exchanged": (lambda x: x.transpose(2, 3), nn.Conv2d(8, 4, 3)),
    "a turn, then a convolution": (lambda x: x.permute(0, 2, 3, 1), nn.Conv2d(5, 4, 3)),
    "there and back": (lambda x: torch.relu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.Conv2d(8, 4, 1)),
    "three turns are none": (
        lambda x: x.permute(0, 2, 3, 1).permute(0, 2, 3, 1).permute(0, 2, 3, 1),
        nn.Conv2d(8, 4, 3),
    ),
    "a sequence of places": (lambda x: x.flatten(2).transpose(1, 2), nn.Linear(8, 7)),
    "a view": (lambda x: x.reshape(x.shape[0], 5, 6, 8), nn.Linear(8, 7)),
    "a view of a turn": (lambda x: x.permute(0, 2, 3, 1).reshape(x.shape[0], 30, 8), nn.Linear(8, 7)),
    "a view, turned": (lambda x: x.reshape(x.shape[0], 4, 10, 6).permute(0, 3, 1, 2), nn.Conv2d(6, 4, 1)),
    "channels shuffled": (shuffled, nn.Conv2d(8, 4, 3)),
    "a sum of turns": (lambda x: x.permute(0, 2, 3, 1) + torch.relu(x).permute(0, 2, 3, 1), nn.Linear(8, 7)),
    "turns joined": (lambda x: torch.cat([x.transpose(2, 3), torch.relu(x).transpose(2, 3)], 1), nn.Conv2d(16, 4, 1)),
    "a piece of a turn": (lambda x: x.permute(0, 2, 3, 1)[:, 1:4], nn.Linear(8, 7)),
    "an axis more and less": (lambda x: x[:, :, :, 0].unsqueeze(1).permute(0, 2, 3, 1).squeeze(3), nn.Linear(5, 7)),
    "a pool behind a turn": (lambda x: nn.functional.max_pool2d(x.permute(0, 3, 1, 2), 2), nn.Conv2d(6, 4, 1)),
}


class Moved(nn.Module):
    """Each move of axes between two layers of its own, behind an image and behind a sequence."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.before = nn.ModuleList(nn.Conv2d(3, 8, 3, padding=1) for _ in MOVES)
        self.behind = nn.ModuleList(layer for _, layer in MOVES.values())
        self.lines, self.words = nn.Conv1d(3, 4, 3, padding=1), nn.Linear(4, 3)
        self.last = nn.Conv2d(3, 4, 3)

    def forward(self, x, turned):
        rows = zip(self.before, (move for move, _ in MOVES.values()), self.behind, strict=True)
        found = [behind(move(before(x))) for before, move, behind in rows]
        words = self.words(self.lines(turned[:, 0].transpose(1, 2)).transpose(1, 2))
        return (*found, words, self.last(turned.permute(0, 3, 1, 2)))


@pytest.fixture(scope="module")
def moved():
    """Return the model, its input and its int8 encodings under the demands of all three."""
    rng = np.random.default_rng(0)
    sample = tuple(rng.normal(size=shape).astype(np.float32) for shape in ((3, 3, 5, 6), (3, 5, 6, 3)))
    free = ({0: torch.export.Dim.AUTO},) * 2
    program = torch.export.export(Moved().eval(), tuple(map(torch.from_numpy, sample)), dynamic_shapes=free)
    names = [f"y{index}" for index in range(len(MOVES) + 2)]
    model = canonical.to_model(program, "moved", input_names=("x", "turned"), output_names=names)
    demands = Constraints.union([TARGETS.build(name).constraints(model.graph) for name in THREE])
    plan = Plan("any", uniform(model.graph, "int8", integer_ops=demands.integer_ops), (), Step("minmax"), THREE)
    encodings, _ = encode.encode(model, plan, ranges(model, [sample]), demands)
    return model, sample, encodings


@pytest.fixture(scope="module", params=[(name, kind) for name in THREE for kind in ("float", "int8")], ids="-".join)
def shown(request, moved, tmp_path_factory):
    """Return a target's encodings, what its file shows, and how to ask it."""
    model, sample, encodings = moved
    name, kind = request.param
    target, folder = TARGETS.build(name), tmp_path_factory.mktemp(name)
    chosen = encodings if kind == "int8" else Encodings.none()
    artifact = target.lower(model, chosen, folder)
    path = folder / artifact.files[0].path

    def tensors(inputs, keys):
        return target.tensors(path, artifact, inputs, [key for key in keys if key in artifact.tensor_names])

    return chosen, tensors(sample, list(artifact.tensor_names)), tensors


def test_each_tensor_is_the_one_its_key_names(moved, shown):
    model, sample, _ = moved
    encodings, found, _ = shown
    wanted = {}
    Reference(at_once=0).run(model, encodings, sample, observe=lambda key, value: wanted.update({key: value.copy()}))
    assert len(found) > len(MOVES)
    assert any(":permute#" in key or ":transpose#" in key for key in found)
    wrong = {}
    for key, array in found.items():
        encoding = encodings.affine(key)
        value = affine.dequantize(array.astype(np.int32), encoding) if encoding is not None else array
        if value.shape != wanted[key].shape:
            wrong[key] = value.shape, wanted[key].shape
        elif not np.allclose(value, wanted[key], rtol=1e-4, atol=1e-5):
            wrong[key] = float(np.abs(value - wanted[key]).max())
    assert wrong == {}


def test_no_tensor_is_told_to_leave_the_reference(moved, shown):
    model, sample, _ = moved
    encodings, _, tensors = shown
    assert locate(model, encodings, encodings, sample, tensors=tensors) is None
