"""What a file shows: intermediate codes, times by layer, what XNNPACK leaves, and detours."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.targets.litert import LiteRT
from haversack.targets.litert.unflat import guarded
from haversack.targets.reference import Reference
from haversack.tools.numerics import affine

NAMES = ("residual", "block", "depthwise", "branches", "keywords", "sequence", "squeeze")


@pytest.mark.parametrize("name", NAMES)
def test_codes_are_the_references(zoo, both, encoded, name):
    model, sample = zoo[name]
    encodings = encoded(model, [sample])
    made = both(model, encodings)
    seen = {}
    Reference().run(model, encodings, sample, observe=lambda key, value: seen.setdefault(key, value.copy()))
    found = made.target.tensors(made.path, made.artifact, sample, list(made.artifact.tensor_names))
    assert set(found) == set(made.artifact.tensor_names)
    compared = 0
    for key, array in found.items():
        encoding = encodings.affine(key)
        assert array.shape == seen[key].shape
        if encoding is None:
            np.testing.assert_allclose(array, seen[key], rtol=1e-4, atol=1e-5)
            continue
        assert array.dtype == np.uint8
        np.testing.assert_array_equal(affine.dequantize(array.astype(np.int32), encoding), seen[key])
        compared += 1
    assert compared >= 2


@pytest.mark.parametrize("name", ["residual", "branches", "sequence"])
def test_float_tensors_lie_as_the_model_has_them(zoo, both, name):
    model, sample = zoo[name]
    made = both(model)
    seen = {}
    Reference().run(model, Encodings.none(), sample, observe=lambda key, value: seen.setdefault(key, value.copy()))
    found = made.target.tensors(made.path, made.artifact, sample, list(made.artifact.tensor_names))
    assert len(found) > 3
    for key, array in found.items():
        np.testing.assert_allclose(array, seen[key], rtol=1e-4, atol=1e-5)


def test_keys_that_the_file_does_not_have_are_left_out(zoo, both):
    model, sample = zoo["residual"]
    made = both(model)
    assert made.target.tensors(made.path, made.artifact, sample, ["one:conv2d#0:out", "nobody:add#0:out"]) == {}


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_times_by_layer(zoo, both, encoded, precision):
    model, sample = zoo["residual"]
    made = both(model, encoded(model, [sample]) if precision == "int8" else Encodings.none())
    rows = tuple(array[:1] for array in sample)
    found = made.target.layer_seconds(made.path, made.artifact, rows, 3)
    layers = {"one:conv2d#0", "two:conv2d#0", ":add#0", ":mean#0", "head:linear#0"}
    assert set(found) == layers | ({""} if precision == "int8" else set())
    assert all(0 <= seconds < 0.1 for seconds in found.values())


def test_a_large_layer_takes_longer(exported, both):
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 64, 5), nn.ReLU(), nn.Conv2d(64, 64, 5))
    x = np.zeros((2, 3, 32, 32), np.float32)
    made = both(exported(net, x))
    found = made.target.layer_seconds(made.path, made.artifact, (x[:1],), 5)
    assert found["4:conv2d#0"] > found["2:conv2d#0"] > found["0:conv2d#0"]


def test_an_add_that_xnnpack_does_not_take_is_told(exported, both):
    """XNNPACK adds at ratios of scales from 2^-10 to 2^8; what is left runs in LiteRT's own kernels."""
    from torch import nn

    from haversack.base.encodings import Affine

    class Sum(nn.Module):
        def forward(self, x, y):
            return x + y

    model = exported(Sum(), *(np.zeros((2, 4), np.float32) for _ in range(2)))
    one, other = (f"{key}:out" for key in model.graph.inputs)
    told = []
    for scale in (100.0, 300.0):
        scales = {one: scale, other: 1.0, f"{model.graph.outputs[0]}:out": 1.0}
        tensors = {
            key: Affine(8, False, None, np.array(value, np.float32), np.array(128, np.int32))
            for key, value in scales.items()
        }
        made = both(model, Encodings(tensors))
        told.append(made.target.unfused(made.path, made.artifact))
    assert told == [(), (":add#0",)]


def test_detours_tell_their_operator_and_key(exported, both):
    import torch
    from torch import nn

    class Flattened(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.out = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(4 * 3 * 3, 2)

        def forward(self, x):
            return self.out(torch.relu(self.conv(x)).flatten(1))

    made = both(exported(Flattened(), np.zeros((2, 3, 6, 6), np.float32)))
    found = made.target.findings(made.path, made.artifact)
    assert [(one.layer, one.text.split()[0]) for one in found] == [
        ("conv:conv2d#0", "PAD"),
        (":flatten#0", "TRANSPOSE"),
    ]


def test_a_border_between_integers_and_floats_is_a_detour(zoo, both, encoded):
    model, sample = zoo["squeeze"]
    made = both(model, encoded(model, [sample]))
    kinds = {one.text.split()[0] for one in made.target.findings(made.path, made.artifact)}
    assert kinds == {"QUANTIZE", "DEQUANTIZE"}


def test_names_tell_keys(zoo, both, encoded):
    model, sample = zoo["residual"]
    made = both(model, encoded(model, [sample]))
    names = guarded(made.path, lambda file: [tensor.name for tensor in file.subgraphs[0].tensors])
    assert len(set(names)) == len(names)
    assert "one:conv2d#0:weight/codes" in names
    assert "one:conv2d#0/act:hardtanh#0:out/codes" in names
    assert LiteRT.runtime == "ai_edge_litert.interpreter"
