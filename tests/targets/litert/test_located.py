"""Faults planted in a written file: ``verify.locate`` names the module whose tensor it is, and what it does."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.base.keys import split_tensor
from haversack.targets.litert import LiteRT
from haversack.targets.litert.flat import Quantization, pack
from haversack.targets.litert.unflat import File
from haversack.verify import locate

TARGET = LiteRT()
WEIGHTS = {"body.first": "conv2d", "body.second": "conv2d", "head": "linear"}
"""Module path -> op."""


@pytest.fixture(scope="module")
def lowered(exported, encoded, tmp_path_factory):
    """A network whose layers lie in modules of modules, in int8."""
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(4)
            self.body = nn.Sequential()
            self.body.add_module("first", nn.Conv2d(3, 4, 3, padding=1))
            self.body.add_module("act", nn.ReLU())
            self.body.add_module("second", nn.Conv2d(4, 5, 1))
            self.head = nn.Linear(5, 3)

        def forward(self, x):
            return self.head(self.body(x).mean((2, 3)))

    x = np.random.default_rng(2).normal(size=(3, 3, 4, 4)).astype(np.float32)
    model = exported(Network(), x)
    encodings = encoded(model, [(x,)])
    folder = tmp_path_factory.mktemp("located")
    artifact = TARGET.lower(model, encodings, folder)
    path = folder / artifact.files[0].path
    return SimpleNamespace(model=model, encodings=encodings, artifact=artifact, path=path, sample=(x,))


def found(lowered, file, tensors=None):
    """Return what is located in a changed file."""
    path = lowered.path.with_name("changed.tflite")
    path.write_bytes(pack(file.subgraphs, file.buffers))
    read_back = TARGET.read(path, lowered.artifact)
    return locate(lowered.model, lowered.encodings, read_back, lowered.sample, tensors=tensors)


def opened(lowered):
    return File(lowered.path.read_bytes())


def named(file, name):
    return next(one for one in file.subgraphs[0].tensors if one.name == name)


def rescaled(tensor, factor, place=...):
    scale = tensor.quantization.scale.copy()
    scale[place] *= np.float32(factor)
    tensor.quantization = Quantization(scale, tensor.quantization.zero_point, tensor.quantization.axis)


def flipped(file, tensor, place, bit):
    data = bytearray(file.buffers[tensor.buffer])
    data[place] ^= 1 << bit
    file.buffers.append(bytes(data))
    tensor.buffer = len(file.buffers) - 1


def shown(lowered, path=None):
    """Return what shows the intermediates of a file."""

    def tensors(sample, keys):
        known = [key for key in keys if key in lowered.artifact.tensor_names]
        rows = [
            TARGET.tensors(path or lowered.path, lowered.artifact, (sample[0][row : row + 1],), known)
            for row in range(len(sample[0]))
        ]
        return {key: np.concatenate([row[key] for row in rows]) for key in known}

    return tensors


def test_the_file_as_written_has_nothing_to_find(lowered):
    assert found(lowered, opened(lowered)) is None
    assert found(lowered, opened(lowered), shown(lowered)) is None


@pytest.mark.parametrize("factor", [2.0, 0.5])
@pytest.mark.parametrize("module", WEIGHTS)
def test_a_scale_of_one_channel_doubled(lowered, module, factor):
    key = f"{module}:{WEIGHTS[module]}#0"
    file = opened(lowered)
    rescaled(named(file, f"{key}:weight/codes"), factor, 1)
    finding = found(lowered, file)
    assert (finding.kind, finding.layer) == ("scale-changed", f"{key}:weight")
    assert finding.layer.startswith(module)
    assert "off by" in finding.text


@pytest.mark.parametrize("bit", [0, 6])
@pytest.mark.parametrize("module", WEIGHTS)
def test_a_weight_flipped(lowered, module, bit):
    key = f"{module}:{WEIGHTS[module]}#0"
    file = opened(lowered)
    flipped(file, named(file, f"{key}:weight/codes"), 3, bit)
    finding = found(lowered, file)
    assert (finding.kind, finding.layer) == ("weight-changed", f"{key}:weight")
    assert f"1 of {lowered.encodings.integers[f'{key}:weight'].size} integers differ" in finding.text


def test_of_two_weights_the_first_is_named(lowered):
    file = opened(lowered)
    for module in ("head", "body.second"):
        flipped(file, named(file, f"{module}:{WEIGHTS[module]}#0:weight/codes"), 0, 4)
    assert found(lowered, file).layer == "body.second:conv2d#0:weight"


def test_every_scale_of_an_activation_doubled(lowered):
    """Told at that tensor, or at one before it that shares its encoding."""
    places = [node.key for node in lowered.model.graph.nodes]
    for key, name in lowered.artifact.tensor_names.items():
        if lowered.encodings.affine(key) is None:
            continue
        file = opened(lowered)
        rescaled(named(file, name), 2)
        finding = found(lowered, file)
        assert finding.kind == "scale-changed"
        assert places.index(split_tensor(finding.layer)[0]) <= places.index(split_tensor(key)[0])
        assert finding.layer == key


def test_another_layers_arithmetic_is_named_by_what_the_runtime_shows(lowered):
    """What the file is said to hold is as meant, but it runs with a weight that is not: its intermediates tell."""
    file = opened(lowered)
    weight = named(file, "body.second:conv2d#0:weight/codes")
    for place in range(8):
        flipped(file, weight, place, 6)
    path = lowered.path.with_name("lying.tflite")
    path.write_bytes(pack(file.subgraphs, file.buffers))
    finding = locate(lowered.model, lowered.encodings, lowered.encodings, lowered.sample, tensors=shown(lowered, path))
    assert (finding.kind, finding.layer) == ("large-error-at", "body.second:conv2d#0:out")


def test_a_file_without_encodings_departs_nowhere(lowered, tmp_path):
    artifact = TARGET.lower(lowered.model, Encodings.none(), tmp_path)
    path = tmp_path / artifact.files[0].path
    plain = SimpleNamespace(artifact=artifact, path=path)
    none = Encodings.none()
    assert TARGET.read(path, artifact).tensors == {}
    assert locate(lowered.model, none, none, lowered.sample, tensors=shown(plain), tolerance=1e-4) is None
