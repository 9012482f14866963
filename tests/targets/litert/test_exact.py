"""Integers at their ends: saturating pairs, clamps in codes, four bits, random scales, all equal to the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.base.encodings import Affine, Encodings
from haversack.base.errors import ConversionError
from haversack.targets.litert import LiteRT
from haversack.targets.litert.unflat import guarded
from haversack.tools.numerics import affine, ties

NAMES = ("linear", "conv", "point", "deep", "line", "matrix", "group", "stride")


def grid(scale, zero_point):
    return Affine(8, False, None, np.array(scale, np.float32), np.array(zero_point, np.int32))


@pytest.fixture(scope="module")
def layers(exported):
    """Name -> Model of a single layer."""
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
        "group": one(nn.Conv2d(16, 8, 3, groups=2), (2, 16, 5, 5)),
        "stride": one(nn.Conv2d(16, 6, 3, 2, 1), (2, 16, 6, 6)),
        "line": one(nn.Conv1d(16, 6, 3), (2, 16, 9)),
        "matrix": one(nn.Linear(64, 5), (2, 7, 64)),
        "sum": one(Sum(), (2, 3, 4, 4), (2, 3, 4, 4)),
        "mean": one(Mean(), (2, 3, 4, 6)),
        "relu6": one(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU6()), (2, 4, 3, 3)),
        "odd clamp": one(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Hardtanh(-0.7, 0.3)), (2, 4, 3, 3)),
        "single": one(nn.Conv2d(4, 1, 1), (2, 4, 3, 3)),
    }


def encodings_of(model, codes, scales=None, source=(0.02, 0), out=(4.0, 128), bits=8, axis=0):
    node = next(node for node in model.graph.nodes if node.weight)
    shape = len(codes) if axis == 0 else ()
    weight = affine.symmetric(np.full(shape, 0.01, np.float32) if scales is None else scales, bits, axis)
    tensors = {
        f"{node.inputs[0]}:out": grid(*source),
        f"{model.graph.outputs[0]}:out": grid(*out),
        f"{node.key}:weight": weight,
    }
    return Encodings(tensors, {f"{node.key}:weight": codes.astype(np.int32)})


def weight_shape(model):
    return model.weights[next(node.weight for node in model.graph.nodes if node.weight)].shape


def shape_of(model, rows=3):
    return tuple(rows if isinstance(size, str) else size for size in model.inputs[0].spec.shape)


def same(both, model, encodings, *sample):
    made = both(model, encodings)
    found, wanted = made.file(*sample), made.reference(*sample)
    return all(one.tobytes() == other.tobytes() for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sign", [1, -1])
def test_pairs_that_would_saturate_sixteen_bits(layers, both, name, sign):
    model = layers[name]
    codes = np.full(weight_shape(model), 127 * sign)
    x = np.full(shape_of(model), 255 * 0.02, np.float32)
    assert same(both, model, encodings_of(model, codes), x)


@settings(max_examples=10, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", NAMES)
def test_random_layers(layers, tmp_path_factory, name, data):
    from tests.targets.litert.conftest import Both

    model = layers[name]
    node = next(node for node in model.graph.nodes if node.weight)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    shape = weight_shape(model)
    axis = data.draw(st.sampled_from([0, None]))
    scales = rng.uniform(1e-4, 0.1, shape[0] if axis == 0 else ()).astype(np.float32)
    source = (data.draw(st.floats(1e-3, 0.5)), data.draw(st.integers(0, 255)))
    out = (data.draw(st.floats(1e-2, 8.0)), data.draw(st.integers(0, 255)))
    model = model.with_weights({node.bias: rng.normal(0, 1, shape[0]).astype(np.float32)})
    encodings = encodings_of(model, rng.integers(-127, 128, shape), scales, source, out, axis=axis)
    x = rng.normal(0, 60 * source[0], shape_of(model)).astype(np.float32)
    assert same(lambda m, e: Both(m, e, tmp_path_factory.mktemp("layer")), model, encodings, x)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_adds_with_tie_free_scales(layers, tmp_path_factory, data):
    from tests.targets.litert.conftest import Both

    model = layers["sum"]
    out = grid(data.draw(st.floats(0.01, 1.0)), data.draw(st.integers(0, 255)))
    keys = [f"{key}:out" for key in model.graph.inputs]
    tensors = {f"{model.graph.outputs[0]}:out": out}
    for key in keys:
        scale = ties.tie_free(data.draw(st.floats(0.002, 1.0)), out.scale)
        tensors[key] = grid(scale, data.draw(st.integers(0, 255)))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    sample = [affine.dequantize(rng.integers(0, 256, shape_of(model)), tensors[key]) for key in keys]
    assert same(lambda m, e: Both(m, e, tmp_path_factory.mktemp("add")), model, Encodings(tensors), *sample)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_means_with_tie_free_scales(layers, tmp_path_factory, data):
    from tests.targets.litert.conftest import Both

    model = layers["mean"]
    (ratio,) = LiteRT().constraints(model.graph).ratios
    assert ratio.multiple == 8, "24 values are 2^3 * 3"
    out = grid(data.draw(st.floats(0.01, 1.0)), data.draw(st.integers(0, 255)))
    scale = ties.tie_free(data.draw(st.floats(0.01, 1.0)), out.scale, ratio.denominator, ratio.multiple)
    source = grid(scale, data.draw(st.integers(0, 255)))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    x = affine.dequantize(rng.integers(0, 256, shape_of(model)), source)
    encodings = Encodings({ratio.input: source, ratio.output: out})
    assert same(lambda m, e: Both(m, e, tmp_path_factory.mktemp("mean")), model, encodings, x)


@pytest.mark.parametrize("name", ["relu6", "odd clamp"])
@pytest.mark.parametrize("out", [(6 / 255, 0), (0.05, 30), (0.002, 200), (0.5, 7)])
def test_clamps_that_the_grid_does_not_do(layers, both, name, out):
    model = layers[name]
    rng = np.random.default_rng(2)
    encodings = encodings_of(model, rng.integers(-127, 128, (4, 4, 1, 1)), source=(0.05, 100), out=out)
    x = rng.normal(0, 3, shape_of(model)).astype(np.float32)
    assert same(both, model, encodings, x)


@pytest.mark.parametrize("name", ["point", "linear", "matrix"])
def test_four_bits(layers, both, name):
    model = layers[name]
    rng = np.random.default_rng(4)
    codes = rng.integers(-7, 8, weight_shape(model))
    scales = rng.uniform(0.01, 0.05, len(codes)).astype(np.float32)
    encodings = encodings_of(model, codes, scales, source=(0.03, 77), out=(0.2, 128), bits=4)
    x = rng.normal(0, 2, shape_of(model)).astype(np.float32)
    assert same(both, model, encodings, x)
    made = both(model, encodings)
    assert made.target.read(made.path, made.artifact).digest == encodings.digest
    names = guarded(made.path, lambda file: [file.name(one) for one in file.subgraphs[0].operators])
    assert "FULLY_CONNECTED" in names
    assert made.target.unfused(made.path, made.artifact) == ()


def test_four_bits_take_half_the_bytes(layers, both):
    model = layers["point"]
    sizes = []
    for bits in (8, 4):
        encodings = encodings_of(model, np.ones((6, 64, 1, 1)), bits=bits)
        buffers = guarded(both(model, encodings).path, lambda file: [len(data) for data in file.buffers])
        sizes.append(6 * 64 in buffers)
    assert sizes == [True, False]


@pytest.mark.parametrize("name", ["conv", "deep", "line"])
def test_four_bits_where_no_kernel_is(layers, tmp_path, name):
    model = layers[name]
    encodings = encodings_of(model, np.ones(weight_shape(model)), bits=4)
    with pytest.raises(ConversionError, match="only plain 1x1 convolutions"):
        LiteRT().lower(model, encodings, tmp_path)


def test_one_channel_keeps_its_form(layers, both):
    """One scale for the tensor and one scale for its one channel are the same numbers, and yet two encodings."""
    model = layers["single"]
    for axis in (0, None):
        encodings = encodings_of(model, np.full((1, 4, 1, 1), 9), axis=axis)
        made = both(model, encodings)
        assert made.target.read(made.path, made.artifact).digest == encodings.digest


def test_a_bias_that_does_not_fit_is_told(layers, tmp_path):
    model = layers["linear"]
    node = next(node for node in model.graph.nodes if node.weight)
    model = model.with_weights({node.bias: np.full(5, 1e9, np.float32)})
    with pytest.raises(ConversionError, match="bias does not fit") as caught:
        LiteRT().lower(model, encodings_of(model, np.ones((5, 64))), tmp_path)
    assert caught.value.where == node.key


@pytest.mark.parametrize("name", ["linear", "conv", "relu6"])
def test_a_multiplier_that_xnnpack_refuses_is_told_before(layers, tmp_path, name):
    model = layers[name]
    node = next(node for node in model.graph.nodes if node.weight)
    codes = np.ones(weight_shape(model))
    for factor, fits in ((200.0, True), (256.0, False)):
        scales = np.full(len(codes), 1.0, np.float32)
        scales[-1] = factor
        encodings = encodings_of(model, codes, scales, source=(1.0, 128), out=(1.0, 128))
        if fits:
            assert LiteRT().lower(model, encodings, tmp_path).injected > 0
            continue
        with pytest.raises(ConversionError) as caught:
            LiteRT().lower(model, encodings, tmp_path)
        assert [fault.where for fault in caught.value.faults] == [node.key]
        assert "less than 256" in caught.value.faults[0].cause
