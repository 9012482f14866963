"""Every network in int8 equals the reference bit for bit, inside and out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from haversack.base.encodings import Affine, Encodings
from haversack.targets.executorch import ExecuTorch
from haversack.targets.reference import Reference
from haversack.tools.numerics import affine

TARGET = ExecuTorch()
INTEGER = ("resnet", "keywords", "padded", "branches", "sequence")


def both(model, encodings, sample, folder):
    """Return (the file's outputs, the reference's)."""
    artifact = TARGET.lower(model, encodings, folder)
    session = TARGET.open_session(folder / "model.pte", artifact.session_options)
    found = session.run({port.name: array for port, array in zip(model.inputs, sample, strict=True)})
    return [found[port.name] for port in model.outputs], Reference().run(model, encodings, sample)


@pytest.mark.parametrize("name", INTEGER)
def test_a_network_equals_the_reference(lowered, name):
    model, sample, encodings, artifact, path = lowered(name)
    found = TARGET.open_session(path).run({model.inputs[0].name: sample[0]})[model.outputs[0].name]
    wanted = Reference().run(model, encodings, sample)[0]
    assert found.shape == wanted.shape
    assert int((found != wanted).sum()) == 0
    assert artifact.injected == artifact.read_back > len(encodings.tensors)


@pytest.mark.parametrize("name", INTEGER)
def test_every_tensor_inside_equals_the_references(lowered, name):
    model, sample, encodings, artifact, path = lowered(name)
    wanted = {}
    Reference(at_once=0).run(model, encodings, sample, observe=lambda key, value: wanted.update({key: value.copy()}))
    shown = TARGET.tensors(path, artifact, sample, list(artifact.tensor_names))
    assert len(shown) >= 3
    for key, codes in shown.items():
        assert codes.dtype == np.uint8
        np.testing.assert_array_equal(codes, affine.quantize(wanted[key], encodings.affine(key)), err_msg=key)


def test_codes_are_shown_beside_float_layers_whose_relu_has_no_upper_limit(zoo, encoded, tmp_path):
    model, sample = zoo["resnet"]
    layers = [node.key for node in model.graph.nodes if node.op == "conv2d"]
    encodings = encoded(model, sample, only=set(layers[-2:]))
    artifact = TARGET.lower(model, encodings, tmp_path)
    wanted = {}
    Reference(at_once=0).run(model, encodings, sample, observe=lambda key, value: wanted.update({key: value.copy()}))
    shown = TARGET.tensors(tmp_path / TARGET.file, artifact, sample, list(artifact.tensor_names))
    assert shown
    for key, codes in shown.items():
        off = np.abs(codes.astype(int) - affine.quantize(wanted[key], encodings.affine(key)).astype(int))
        assert off.max() <= 1, key  # what enters them was computed in float


@pytest.mark.parametrize("name", ["resnet", "padded", "sequence"])
def test_a_clamp_that_the_grid_does_not_do_is_done_in_codes(zoo, encoded, name, tmp_path):
    model, sample = zoo[name]
    encodings = encoded(model, sample, wide=True)
    found, wanted = both(model, encodings, sample, tmp_path)
    np.testing.assert_array_equal(found[0], wanted[0])


@pytest.mark.parametrize("name", ["resnet", "keywords", "sequence"])
def test_one_scale_for_a_whole_weight(zoo, encoded, name, tmp_path):
    model, sample = zoo[name]
    found, wanted = both(model, encoded(model, sample, granularity="tensor"), sample, tmp_path)
    np.testing.assert_array_equal(found[0], wanted[0])


def test_a_mixture_of_float_and_integers(zoo, encoded, tmp_path):
    model, sample = zoo["resnet"]
    some = {"blocks.0.one:conv2d#0", "blocks.0.two:conv2d#0", "blocks.1.one:conv2d#0"}
    encodings = encoded(model, sample, only=some)
    assert 0 < len(encodings.integers) < 6
    found, wanted = both(model, encodings, sample, tmp_path)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-4, atol=1e-5)


def test_linear_layers_between_float_operators(zoo, encoded, tmp_path):
    model, sample = zoo["words"]
    encodings = encoded(model, sample)
    found, wanted = both(model, encodings, sample, tmp_path)
    assert encodings.affine("norm:layer_norm#0:out") is not None
    error = np.linalg.norm(found[0] - wanted[0]) / np.linalg.norm(wanted[0])
    assert error < 0.01  # softmax and gelu differ in their last bits, which may be a code at a border


def grid(scale, zero_point):
    return Affine(8, False, None, np.array(scale, np.float32), np.array(zero_point, np.int32))


@pytest.fixture(scope="module")
def linear(exported):
    import torch
    from torch import nn

    torch.manual_seed(5)
    return exported(nn.Linear(64, 5), np.zeros((2, 64), np.float32))


def test_saturating_codes_and_a_large_bias(linear, tmp_path):
    key, weight = ":linear#0", np.full((5, 64), 127, np.int32)
    weight[1], weight[2, ::2] = -127, 0
    scales = np.array([1e-3, 2e-3, 3e-4, 1e-2, 5e-3], np.float32)
    changed = {linear.graph.by_key[key].bias: np.array([0, 30, -30, 3, 0.001], np.float32)}
    model = linear.with_weights(changed)
    tensors = {
        f"{model.graph.inputs[0]}:out": grid(0.05, 3),
        f"{key}:out": grid(0.7, 128),
        f"{key}:weight": affine.symmetric(scales, 8, 0),
    }
    encodings = Encodings(tensors, {f"{key}:weight": weight})
    x = np.stack([np.full(64, 20.0), np.full(64, -20.0), np.linspace(-1, 20, 64)]).astype(np.float32)
    found, wanted = both(model, encodings, (x,), tmp_path)
    np.testing.assert_array_equal(found[0], wanted[0])


@pytest.mark.parametrize("seed", range(6))
def test_random_scales_of_a_linear_layer(linear, seed, tmp_path):
    rng = np.random.default_rng(seed)
    key = ":linear#0"
    tensors = {
        f"{linear.graph.inputs[0]}:out": grid(rng.uniform(1e-3, 0.1), rng.integers(0, 256)),
        f"{key}:out": grid(rng.uniform(1e-2, 1.0), rng.integers(0, 256)),
        f"{key}:weight": affine.symmetric(rng.uniform(1e-4, 1e-2, 5), 8, 0),
    }
    encodings = Encodings(tensors, {f"{key}:weight": rng.integers(-127, 128, (5, 64)).astype(np.int32)})
    x = rng.normal(size=(9, 64)).astype(np.float32)
    found, wanted = both(linear, encodings, (x,), tmp_path)
    np.testing.assert_array_equal(found[0], wanted[0])


def test_a_bias_of_twenty_two_bits_keeps_every_bit(linear, tmp_path):
    key = ":linear#0"
    source, scales = grid(0.01, 0), np.full(5, 1e-3, np.float32)
    unit = affine.bias_scale(source.scale, scales)
    codes = np.array([4194303, -4194303, 4194301, 1, -2], np.float64)
    model = linear.with_weights({linear.graph.by_key[key].bias: (codes * unit).astype(np.float32)})
    tensors = {
        f"{model.graph.inputs[0]}:out": source,
        f"{key}:out": grid(0.4, 128),
        f"{key}:weight": affine.symmetric(scales, 8, 0),
    }
    encodings = Encodings(tensors, {f"{key}:weight": np.ones((5, 64), np.int32)})
    artifact = TARGET.lower(model, encodings, tmp_path)
    assert artifact.bias_digests.keys() == {key}
    found, wanted = both(model, encodings, (np.zeros((1, 64), np.float32),), tmp_path)
    np.testing.assert_array_equal(found[0], wanted[0])


def test_weights_of_four_bits_with_static_inputs(linear, encoded, tmp_path):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(4, 64)).astype(np.float32)
    encodings = encoded(linear, (x,), bits=4)
    found, wanted = both(linear, encodings, (x,), tmp_path)
    np.testing.assert_array_equal(found[0], wanted[0])


def test_a_shared_layer_has_its_own_encodings_at_each_call(exported, encoded, tmp_path):
    import torch
    from torch import nn

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.same = nn.Linear(8, 8)

        def forward(self, x):
            return self.same(torch.relu(self.same(x)))

    torch.manual_seed(1)
    model = exported(Twice(), np.zeros((2, 8), np.float32))
    x = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    encodings = encoded(model, (x,))
    second = "same:linear#1:weight"
    coarse = dataclasses.replace(encodings.tensors[second], scale=encodings.tensors[second].scale * np.float32(2))
    integers = dict(encodings.integers) | {second: affine.quantize(model.weights["same.weight"], coarse)}
    encodings = Encodings({**encodings.tensors, second: coarse}, integers)
    found, wanted = both(model, encodings, (x,), tmp_path)
    np.testing.assert_array_equal(found[0], wanted[0])
