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


def test_a_multiplier_that_xnnpack_does_not_take_is_told(exported, both):
    """XNNPACK takes multipliers below 256; what is left runs in LiteRT's own kernels."""
    from torch import nn

    from haversack.base.encodings import Affine

    model = exported(nn.Linear(8, 4), np.zeros((2, 8), np.float32))

    def grid(scale):
        return Affine(8, False, None, np.array(scale, np.float32), np.array(128, np.int32))

    weight = affine.symmetric(np.full(4, 50.0, np.float32), 8, 0)
    tensors = {"input:input#0:out": grid(10.0), ":linear#0:out": grid(1.0), ":linear#0:weight": weight}
    encodings = Encodings(tensors, {":linear#0:weight": np.ones((4, 8), np.int32)})
    made = both(model, encodings)
    assert made.target.unfused(made.path, made.artifact) == (":linear#0",)


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
    found = made.target.detours(made.path, made.artifact)
    assert [(fault.where, fault.cause.split()[0]) for fault in found] == [
        ("conv:conv2d#0", "PAD"),
        (":flatten#0", "TRANSPOSE"),
    ]


def test_a_border_between_integers_and_floats_is_a_detour(zoo, both, encoded):
    model, sample = zoo["squeeze"]
    made = both(model, encoded(model, [sample]))
    kinds = {fault.cause.split()[0] for fault in made.target.detours(made.path, made.artifact)}
    assert kinds == {"QUANTIZE", "DEQUANTIZE"}


def test_names_tell_keys(zoo, both, encoded):
    model, sample = zoo["residual"]
    made = both(model, encoded(model, [sample]))
    names = guarded(made.path, lambda file: [tensor.name for tensor in file.subgraphs[0].tensors])
    assert len(set(names)) == len(names)
    assert "one:conv2d#0:weight/codes" in names
    assert "one:conv2d#0/act:hardtanh#0:out/codes" in names
    assert LiteRT.runtime == "ai_edge_litert.interpreter"
