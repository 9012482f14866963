"""Weights in blocks in a LiteRT file: what their details say is read, and what no file of ours says is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from haversack.base.encodings import BlockAffine
from haversack.base.errors import VerificationError
from haversack.targets.litert import LiteRT
from haversack.targets.litert.flat import Blocks, pack
from haversack.targets.litert.unflat import File

KEY = "layer:linear#0:weight"


@pytest.fixture
def made(exported, encoded, tmp_path):
    """Return (artifact, path, the file's parts, the tensor of the weight)."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(64, 6)

        def forward(self, x):
            return self.layer(x)

    model = exported(Net(), np.zeros((2, 64), np.float32))
    encodings = encoded(model, [], "w4_grouped")
    assert isinstance(encodings.tensors[KEY], BlockAffine)
    artifact = LiteRT().lower(model, encodings, tmp_path)
    path = tmp_path / "model.tflite"
    file = File(path.read_bytes())
    (weight,) = [one for one in file.subgraphs[0].tensors if one.blocks is not None]
    return artifact, path, file, weight


def read(made, weight=None):
    artifact, path, file, old = made
    if weight is not None:
        tensors = file.subgraphs[0].tensors
        tensors[tensors.index(old)] = weight
    path.write_bytes(pack(file.subgraphs, file.buffers))
    return LiteRT().read(path, artifact)


def test_a_file_put_together_again_holds_the_same(made):
    _, _, file, weight = made
    scales = file.subgraphs[0].tensors[weight.blocks.scales]
    assert (weight.blocks.size, weight.blocks.zeros, scales.shape) == (32, -1, (6, 2))
    assert file.dtype(scales) == "FLOAT16"
    found = read(made)
    assert found.tensors[KEY].block == 32


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": 16}, "in blocks of 16"),
        ({"size": 64}, "in blocks of 64"),
        ({"size": 0}, "not symmetric"),
        ({"size": -32}, "not symmetric"),
        ({"zeros": 0}, "not symmetric"),
    ],
)
def test_details_that_do_not_fit_are_told_by_key(made, change, said):
    weight = made[3]
    with pytest.raises(VerificationError) as caught:
        read(made, replace(weight, blocks=replace(weight.blocks, **change)))
    (fault,) = [one for one in caught.value.faults if one.where == KEY]
    assert said in fault.cause


@pytest.mark.parametrize("number", [-1, 99])
def test_scales_that_are_not_there(made, number):
    weight = made[3]
    with pytest.raises(VerificationError, match="a block names a tensor that is not there"):
        read(made, replace(weight, blocks=Blocks(number, 32)))


def test_scales_of_another_type(made):
    _, _, file, weight = made
    graph = file.subgraphs[0]
    bias = next(number for number, one in enumerate(graph.tensors) if one.name == "layer:linear#0:bias")
    with pytest.raises(VerificationError) as caught:
        read(made, replace(weight, blocks=Blocks(bias, 32)))
    assert [one.where for one in caught.value.faults] == [KEY]
