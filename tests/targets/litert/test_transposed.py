"""Transposed convolutions in float, of every stride and border, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from haversack.base.encodings import Encodings
from haversack.targets.litert import LiteRT
from haversack.targets.litert.observe import detours
from haversack.tools.data.layouts import to_file, to_model

TARGET = LiteRT()
IMAGES = {
    "plain": {},
    "steps": {"stride": 2},
    "twice as large": {"kernel_size": 4, "stride": 2, "padding": 1},
    "an added row": {"stride": 2, "padding": 1, "output_padding": 1},
    "added rows beyond the kernel": {"kernel_size": 1, "stride": 3, "output_padding": (2, 1)},
    "side by side": {"kernel_size": 2, "stride": 2},
    "unlike axes": {"kernel_size": (3, 5), "stride": (1, 2), "padding": (0, 2)},
    "borders cut off": {"stride": 2, "padding": 2},
    "no bias": {"bias": False},
}
LINES = {"a line": {}, "steps of a line": {"stride": 2, "padding": 1, "output_padding": 1}}


def made(exported, layer, shape, folder):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    model = exported(nn.Sequential(layer), x)
    artifact = TARGET.lower(model, Encodings.none(), folder)
    name, output = artifact.inputs[0].name, artifact.outputs[0].name
    session = TARGET.open_session(folder / "model.tflite")
    found = session.run({name: to_file(x, artifact.layouts.get(name, ""))})[output]
    with torch.no_grad():
        wanted = layer(torch.from_numpy(x)).numpy()
    return to_model(found, artifact.layouts.get(output, "")), wanted


@pytest.mark.parametrize("how", IMAGES)
def test_an_image_is_as_in_pytorch(exported, how, tmp_path):
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(**{"in_channels": 6, "out_channels": 4, "kernel_size": 3, **IMAGES[how]})
    found, wanted = made(exported, layer, (2, 6, 5, 7), tmp_path)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=2e-6)


@pytest.mark.parametrize("how", LINES)
def test_a_line_is_as_in_pytorch(exported, how, tmp_path):
    torch.manual_seed(0)
    found, wanted = made(exported, nn.ConvTranspose1d(6, 3, 3, **LINES[how]), (2, 6, 5), tmp_path)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_the_usual_one_needs_nothing_beside_it(exported, tmp_path):
    torch.manual_seed(0)
    made(exported, nn.ConvTranspose2d(6, 4, 4, stride=2, padding=1), (1, 6, 5, 7), tmp_path)
    assert list(detours(tmp_path / "model.tflite")) == []


@pytest.mark.parametrize("how", [{"groups": 2}, {"dilation": 2}])
def test_what_the_operator_does_not_know_is_refused_by_key(exported, how):
    layer = nn.ConvTranspose2d(6, 4, 3, **how)
    (fault,) = TARGET.refusals(exported(nn.Sequential(layer), np.zeros((1, 6, 5, 5), np.float32)))
    assert (fault.where, fault.cause) == ("0:conv_transpose2d#0", "conv_transpose2d: groups or holes")
