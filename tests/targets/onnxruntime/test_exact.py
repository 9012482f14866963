"""Integers at their ends: saturating pairs, ties, clamps in codes, random scales, all equal to the reference."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.base.encodings import Affine, Dynamic, Encodings
from haversack.targets.onnxruntime import OnnxRuntime
from haversack.targets.reference import Reference
from haversack.tools.numerics import affine, ties

TARGET = OnnxRuntime()


def both(model, encodings, sample, folder):
    """Return (the file's outputs, the reference's)."""
    artifact = TARGET.lower(model, encodings, folder)
    session = TARGET.open_session(folder / "model.onnx", artifact.session_options)
    found = session.run({port.name: array for port, array in zip(model.inputs, sample, strict=True)})
    return [found[port.name] for port in model.outputs], Reference().run(model, encodings, sample)


def grid(scale, zero_point):
    return Affine(8, False, None, np.array(scale, np.float32), np.array(zero_point, np.int32))


@pytest.fixture(scope="module")
def layers(exported):
    """Name -> (module's Model, input shape) of single layers."""
    import torch
    from torch import nn

    torch.manual_seed(5)

    class Sum(nn.Module):
        def forward(self, x, y):
            return x + y

    class Mean(nn.Module):
        def forward(self, x):
            return x.mean((2, 3), keepdim=True)

    def one(module, *shapes):
        return exported(module, *(np.zeros(shape, np.float32) for shape in shapes))

    return {
        "linear": one(nn.Linear(64, 5), (2, 64)),
        "conv": one(nn.Conv2d(16, 6, 3, padding=1), (2, 16, 5, 5)),
        "point": one(nn.Conv2d(64, 6, 1), (2, 64, 4, 4)),
        "deep": one(nn.Conv2d(16, 16, 3, padding=1, groups=16), (2, 16, 5, 5)),
        "line": one(nn.Conv1d(16, 6, 3), (2, 16, 9)),
        "sum": one(Sum(), (2, 3, 4, 4), (2, 3, 4, 4)),
        "mean": one(Mean(), (2, 3, 4, 6)),
        "relu6": one(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU6()), (2, 4, 3, 3)),
        "matrix": one(nn.Linear(64, 5), (2, 7, 64)),
    }


def layer_encodings(model, codes, scales=None, source=(0.02, 0), out=(4.0, 128)):
    node = next(node for node in model.graph.nodes if node.weight)
    last = model.graph.outputs[0]
    weight = affine.symmetric(np.full(len(codes), 0.01, np.float32) if scales is None else scales, 8, 0)
    tensors = {
        f"{node.inputs[0]}:out": grid(*source),
        f"{last}:out": grid(*out),
        f"{node.key}:weight": weight,
    }
    return Encodings(tensors, {f"{node.key}:weight": codes.astype(np.int32)})


def shape_of(model):
    return tuple(3 if isinstance(size, str) else size for size in model.inputs[0].spec.shape)


@pytest.mark.parametrize("name", ["linear", "conv", "point", "deep", "line", "matrix"])
@pytest.mark.parametrize("sign", [1, -1])
def test_pairs_that_would_saturate_sixteen_bits(layers, tmp_path, name, sign):
    """255 * 127 * 2 is over 2^15: on x86 without VNNI int8 kernels saturate, unless the session option is set."""
    model = layers[name]
    node = next(node for node in model.graph.nodes if node.weight)
    codes = np.full(model.weights[node.weight].shape, 127 * sign)
    x = np.full(shape_of(model), 255 * 0.02, np.float32)
    got, wanted = both(model, layer_encodings(model, codes), (x,), tmp_path)
    assert got[0].tobytes() == wanted[0].tobytes()


@pytest.mark.parametrize("name", ["linear", "matrix"])
def test_dynamic_pairs_that_would_saturate(layers, tmp_path, name):
    model = layers[name]
    node = next(node for node in model.graph.nodes if node.weight)
    codes = np.full(model.weights[node.weight].shape, 127, np.int32)
    key = f"{node.key}:weight"
    encodings = Encodings(
        {key: affine.symmetric(np.full(5, 0.01, np.float32), 8, 0), f"{node.key}:in": Dynamic()}, {key: codes}
    )
    x = np.full(shape_of(model), 3.0, np.float32)
    got, wanted = both(model, encodings, (x,), tmp_path)
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-6)
    assert got[0].min() > 200, "saturated sums would be half of that"


@pytest.mark.parametrize("name", ["linear", "matrix"])
@pytest.mark.parametrize("seed", range(4))
def test_dynamic_is_the_reference_to_the_last_bit_but_one(layers, tmp_path, name, seed):
    model = layers[name]
    node = next(node for node in model.graph.nodes if node.weight)
    rng = np.random.default_rng(seed)
    codes = rng.integers(-127, 128, model.weights[node.weight].shape).astype(np.int32)
    key = f"{node.key}:weight"
    scale = rng.uniform(0.001, 0.1, 5).astype(np.float32)
    encodings = Encodings({key: affine.symmetric(scale, 8, 0), f"{node.key}:in": Dynamic()}, {key: codes})
    x = rng.normal(0.3, 2.0, shape_of(model)).astype(np.float32)
    got, wanted = both(model, encodings, (x,), tmp_path)
    np.testing.assert_allclose(got[0], wanted[0], rtol=3e-7, atol=1e-6)


@settings(max_examples=12)
@given(st.data())
@pytest.mark.parametrize("name", ["linear", "conv", "point", "deep", "line", "matrix"])
def test_random_layers(layers, tmp_path_factory, name, data):
    model = layers[name]
    node = next(node for node in model.graph.nodes if node.weight)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    shape = model.weights[node.weight].shape
    scales = rng.uniform(1e-4, 0.1, shape[0]).astype(np.float32)
    source = (data.draw(st.floats(1e-3, 0.5)), data.draw(st.integers(0, 255)))
    out = (data.draw(st.floats(1e-2, 8.0)), data.draw(st.integers(0, 255)))
    bias = rng.normal(0, 1, shape[0]).astype(np.float32)
    model = model.with_weights({node.bias: bias})
    codes = rng.integers(-127, 128, shape)
    encodings = layer_encodings(model, codes, scales, source, out)
    x = rng.normal(0, 60 * source[0], shape_of(model)).astype(np.float32)
    got, wanted = both(model, encodings, (x,), tmp_path_factory.mktemp("layer"))
    assert got[0].tobytes() == wanted[0].tobytes()


@settings(max_examples=25)
@given(st.data())
def test_adds_with_tie_free_scales(layers, tmp_path_factory, data):
    model = layers["sum"]
    out = grid(data.draw(st.floats(0.01, 1.0)), data.draw(st.integers(0, 255)))
    keys = [f"{key}:out" for key in model.graph.inputs]
    tensors = {f"{model.graph.outputs[0]}:out": out}
    for key in keys:
        scale = ties.tie_free(data.draw(st.floats(0.002, 1.0)), out.scale)
        tensors[key] = grid(scale, data.draw(st.integers(0, 255)))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    sample = tuple(
        affine.dequantize(rng.integers(0, 256, shape_of(model)), tensors[key]).astype(np.float32) for key in keys
    )
    got, wanted = both(model, Encodings(tensors), sample, tmp_path_factory.mktemp("add"))
    assert got[0].tobytes() == wanted[0].tobytes()


@settings(max_examples=25)
@given(st.data())
def test_means_with_tie_free_scales(layers, tmp_path_factory, data):
    model = layers["mean"]
    (ratio,) = TARGET.constraints(model.graph).ratios
    assert ratio.multiple == 8, "24 values are 2^3 * 3"
    out = grid(data.draw(st.floats(0.01, 1.0)), data.draw(st.integers(0, 255)))
    scale = ties.tie_free(data.draw(st.floats(0.01, 1.0)), out.scale, ratio.denominator, ratio.multiple)
    source = grid(scale, data.draw(st.integers(0, 255)))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    x = affine.dequantize(rng.integers(0, 256, shape_of(model)), source).astype(np.float32)
    got, wanted = both(
        model, Encodings({ratio.input: source, ratio.output: out}), (x,), tmp_path_factory.mktemp("mean")
    )
    assert got[0].tobytes() == wanted[0].tobytes()


@pytest.mark.parametrize(
    ("out", "clamped"), [((6 / 255, 0), False), ((0.03, 0), True), ((0.05, 40), True), ((0.01, 0), False)]
)
def test_a_clamp_that_the_grid_does_not_do_is_done_in_codes(layers, tmp_path, out, clamped):
    import onnx

    model = layers["relu6"]
    rng = np.random.default_rng(0)
    encodings = layer_encodings(model, rng.integers(-127, 128, (4, 4, 1, 1)), None, (0.1, 100), out)
    x = rng.normal(0, 8, shape_of(model)).astype(np.float32)
    got, wanted = both(model, encodings, (x,), tmp_path)
    assert got[0].tobytes() == wanted[0].tobytes()
    assert got[0].min() >= 0
    assert got[0].max() <= 6 + out[0]
    ops = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert ("Clip" in ops) is clamped


@pytest.mark.parametrize("zero_point", [0, 100, 255])
def test_a_pad_that_stays_pads_with_the_zero_point(exported, tmp_path, zero_point):
    from torch import nn

    model = exported(nn.Sequential(nn.ZeroPad2d(1), nn.MaxPool2d(2)), np.zeros((2, 2, 4, 4), np.float32))
    encoding = grid(0.1, zero_point)
    encodings = Encodings({node.out: encoding for node in model.graph.nodes})
    x = np.random.default_rng(0).normal(0, 20, (3, 2, 4, 4)).astype(np.float32)
    got, wanted = both(model, encodings, (x,), tmp_path)
    assert got[0].tobytes() == wanted[0].tobytes()


def test_inputs_beyond_the_range_are_clamped(layers, tmp_path):
    model = layers["linear"]
    rng = np.random.default_rng(0)
    encodings = layer_encodings(model, rng.integers(-127, 128, (5, 64)), None, (0.02, 128))
    x = np.full((3, 64), 1e30, np.float32)
    x[1], x[2] = -1e30, np.inf
    got, wanted = both(model, encodings, (x,), tmp_path)
    assert got[0].tobytes() == wanted[0].tobytes()


def test_halves_are_rounded_to_even(exported, tmp_path):
    """x / scale = n + 1/2 for every n: the first quantization already parts runtimes that round away from zero."""
    from torch import nn

    model = exported(nn.ReLU(), np.zeros((2, 8), np.float32))
    keys = [node.out for node in model.graph.nodes]
    encodings = Encodings({keys[0]: grid(0.5, 7)})
    x = ((np.arange(24).reshape(3, 8) - 4) * 0.5 + 0.25).astype(np.float32)
    got, wanted = both(model, encodings, (x,), tmp_path)
    assert got[0].tobytes() == wanted[0].tobytes()
    assert set(np.unique(got[0] / 0.5) % 2) == {0.0}


def test_per_tensor_weights_have_one_scale_in_the_file(layers, tmp_path):
    import onnx
    from onnx import numpy_helper

    model = layers["conv"]
    encodings = layer_encodings(model, np.random.default_rng(0).integers(-127, 128, (6, 16, 3, 3)))
    key = next(key for key in encodings.tensors if key.endswith(":weight"))
    one = dataclasses.replace(
        encodings.tensors[key], axis=None, scale=np.array(0.01, np.float32), zero_point=np.array(0, np.int32)
    )
    x = np.random.default_rng(1).normal(size=shape_of(model)).astype(np.float32)
    got, wanted = both(model, Encodings({**encodings.tensors, key: one}, encodings.integers), (x,), tmp_path)
    assert got[0].tobytes() == wanted[0].tobytes()
    shapes = {t.name: numpy_helper.to_array(t).shape for t in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert shapes[f"{key}/scale"] == ()
