"""Layers with encoded weights: exact sums, onnxruntime's own dynamic operators, stored weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from haversack.base.encodings import Affine, Dynamic, Encodings, Float
from haversack.base.graph import Node, TensorSpec
from haversack.targets.reference import Reference, layer
from haversack.tools.numerics import affine


def node(op, rank=4, **attributes):
    plain = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1} if op == "conv2d" else {}
    return Node(f"m:{op}#0", op, op, ("x:input#0",), TensorSpec((2,) * rank, "float32"), "w", "b",
                attributes=plain | attributes)  # fmt: skip


def tensor(scale, zero_point=0):
    return Affine(
        8, signed=False, axis=None, scale=np.array(scale, np.float32), zero_point=np.array(zero_point, np.int32)
    )


@settings(max_examples=30)
@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), st.integers(0, 2),
    st.integers(0, 255), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_convolution_is_the_integer_convolution(groups, inner, kernel, stride, padding, zero_point, seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(-127, 128, (2 * groups, inner, kernel, kernel)).astype(np.int32)
    bias = rng.integers(-(2**22), 2**22, 2 * groups).astype(np.int32)
    steps = rng.integers(-zero_point, 256 - zero_point, (2, inner * groups, 5, 6)).astype(np.float32)
    head = node("conv2d", stride=[stride] * 2, padding=[padding] * 2, groups=groups)
    exact = torch.conv2d(
        torch.from_numpy(steps).to(torch.int64), torch.from_numpy(codes).to(torch.int64),
        torch.from_numpy(bias).to(torch.int64), stride, padding, 1, groups,
    )  # fmt: skip
    got = layer.product(head, codes, bias, -zero_point, 255 - zero_point)(torch.from_numpy(steps))
    assert got.dtype == torch.float32
    assert np.array_equal(got.numpy(), exact.to(torch.float32).numpy())


@pytest.mark.parametrize(
    "weight, inputs, bias, dtype",
    [
        (127, 100, 0, torch.float32),  # 127 * 100 * 255 = 3.2 million
        (127, 600, 0, torch.float64),  # 19.4 million is past 2^24
        (127, 100, 1 << 24, torch.float64),
        (1, 600, 1 << 22, torch.float32),
    ],
)
def test_the_dtype_that_is_exact(weight, inputs, bias, dtype):
    codes = np.full((2, inputs), weight, np.int32)
    made = layer.product(node("linear", 2), codes, np.array([bias, 0], np.int32), 0, 255)
    assert made.weight.dtype == dtype
    steps = torch.full((1, inputs), 255.0)
    steps[0, 0] = 254.0
    exact = weight * (255 * inputs - 1)
    assert np.array_equal(made(steps)[0].numpy(), np.array([exact + bias, exact]).astype(np.float32))


def test_weights_of_both_signs_need_less_room():
    """No partial sum passes the sum of all its positive products: 600 weights of mixed sign stay in float32."""
    codes = np.tile(np.array([[127, -127]], np.int32), (1, 250))
    assert layer.product(node("linear", 2), codes, None, 0, 255).weight.dtype == torch.float32
    assert layer.product(node("linear", 2), codes, None, -255, 255).weight.dtype == torch.float32
    assert layer.product(node("linear", 2), np.abs(codes), None, 0, 255).weight.dtype == torch.float32
    assert layer.product(node("linear", 2), np.tile(codes, 3), None, 0, 255).weight.dtype == torch.float64


def test_sums_that_no_float_holds_are_refused():
    with pytest.raises(ValueError, match="float64"):
        layer.product(node("linear", 2), np.full((1, 2), 2**30, np.int32), None, 0, 2**23)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 1.0, 300.0]), st.booleans())
def test_a_linear_layer_is_the_integer_sum_times_a_multiplier(seed, size, relu):
    rng = np.random.default_rng(seed)
    source, out = tensor(0.021, int(rng.integers(256))), tensor(0.013 * size, int(rng.integers(256)))
    weight = affine.symmetric(rng.uniform(1e-3, 1e-2, 7).astype(np.float32), 8, 0)
    codes = rng.integers(-127, 128, (7, 9)).astype(np.int32)
    bias = rng.normal(size=7).astype(np.float32)
    bounds = (0.0, float("inf")) if relu else None
    kernel = layer.IntegerLayer(node("linear", 2), codes, bias, source=source, weight=weight, out=out, bounds=bounds)
    q = rng.integers(0, 256, (5, 9))
    acc = (q - source.zero_point) @ codes.T.astype(np.int64) + affine.bias_codes(bias, source.scale, weight.scale)
    scaled = acc.astype(np.float32) * affine.multiplier(source.scale, weight.scale, out.scale)
    expected = np.clip(np.rint(scaled) + out.zero_point.astype(np.float32), out.low, out.high).astype(np.int32)
    expected = np.maximum(expected, out.zero_point) if relu else expected
    got = kernel(torch.from_numpy(affine.dequantize(q, source))).numpy()
    assert np.array_equal(got.view(np.uint32), affine.dequantize(expected, out).view(np.uint32))


def test_a_linear_layer_may_have_more_axes():
    rng = np.random.default_rng(0)
    weight = affine.symmetric(np.array([0.1, 0.3], np.float32), 8, 0)
    kernel = layer.IntegerLayer(
        node("linear", 3), np.array([[1, 2, 3], [4, 5, 6]], np.int32), np.array([1.0, 2.0], np.float32),
        source=tensor(0.5), weight=weight, out=tensor(0.25, 9), bounds=None,
    )  # fmt: skip
    x = rng.integers(0, 9, (2, 4, 3)).astype(np.float32) / 2
    whole = kernel(torch.from_numpy(x)).numpy()
    rows = kernel(torch.from_numpy(x.reshape(8, 3))).numpy()
    assert np.array_equal(whole.reshape(8, 2), rows)


def onnx_dynamic(codes, scale, bias, *, optimized):
    """A session of DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul -> Add."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    weights = {
        "w": codes.T.astype(np.int8), "s": scale.astype(np.float32), "b": bias, "z": np.zeros((), np.int8)
    }  # fmt: skip
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "xs", "xz"]),
        helper.make_node("MatMulInteger", ["q", "w", "xz", "z"], ["acc"]),
        helper.make_node("Cast", ["acc"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["xs", "s"], ["m"]),
        helper.make_node("Mul", ["f", "m"], ["scaled"]),
        helper.make_node("Add", ["scaled", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "dynamic",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in
         (("y", TensorProto.FLOAT), ("xs", TensorProto.FLOAT), ("xz", TensorProto.UINT8), ("q", TensorProto.UINT8))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    # No saturating 16-bit sums on x86; only the optimizer heeds it.
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def linear(exported):
    torch.manual_seed(0)
    return exported(nn.Linear(24, 5), np.zeros((4, 7, 24), np.float32))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("optimized, bits", [(False, 7), (True, 8)])  # 7 bits saturate nothing anywhere
@pytest.mark.parametrize("kind", ["normal", "positive", "negative", "zero", "tiny"])
def test_a_dynamic_layer_is_onnxruntimes(linear, seed, kind, optimized, bits):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4, 7, 24)).astype(np.float32)
    x = {"normal": x, "positive": abs(x) + 1, "negative": -abs(x) - 1, "zero": 0 * x, "tiny": x * 1e-30}[kind]
    x = x.astype(np.float32)
    model = linear.with_weights({"weight": rng.normal(size=(5, 24)).astype(np.float32)})
    key = model.graph.nodes[1].key
    scale = np.abs(model.weights["weight"]).max(1) / np.float32(2 ** (bits - 1) - 1)
    weight = affine.symmetric(scale, bits, 0)
    codes = affine.quantize(model.weights["weight"], weight)
    encodings = Encodings({f"{key}:weight": weight, f"{key}:in": Dynamic()}, {f"{key}:weight": codes})
    session = onnx_dynamic(codes, weight.scale, model.weights["bias"], optimized=optimized)
    expected, x_scale, zero_point, q = session.run(None, {"x": x})
    steps, found = layer.quantize_dynamic(torch.from_numpy(x))
    assert found == x_scale
    assert np.array_equal(steps.numpy(), q.astype(np.int32) - int(zero_point))
    interpreter = Reference(at_once=1).opened(model, encodings)
    assert len(list(interpreter.pieces((x,)))) == 1  # the batch decides the scale: it is never cut
    assert np.array_equal(interpreter.run((x,))[0].view(np.uint32), expected.view(np.uint32))


def test_dynamic_quantization_of_nothing():
    steps, scale = layer.quantize_dynamic(torch.zeros(0, 3))
    assert steps.shape == (0, 3)
    assert scale == 1


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.conv, self.last = nn.Embedding(11, 6), nn.Conv1d(6, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, indices):
        return self.last(self.conv(self.table(indices).transpose(1, 2)).transpose(1, 2))


INDICES = np.array([[1, 4, 9, 0], [10, 2, 2, 3]])


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_only(exported, weight_only, bits):
    torch.manual_seed(0)
    module = Words()
    model = exported(module, INDICES)
    encodings = weight_only(model, bits=bits)
    for node_ in model.graph.nodes:
        if f"{node_.key}:weight" in encodings.tensors:
            codes = encodings.integers[f"{node_.key}:weight"]
            assert np.abs(codes).max() == 2 ** (bits - 1) - 1
            scale = encodings.affine(f"{node_.key}:weight").scale.reshape(-1, *[1] * (codes.ndim - 1))
            module.get_parameter(node_.weight).data = torch.from_numpy((scale * codes).astype(np.float32))
    with torch.no_grad():
        expected = module(torch.from_numpy(INDICES)).numpy()
    found = Reference().run(model, encodings, (INDICES,))[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)  # a processor's own order of float sums


def test_float16_weights(exported):
    torch.manual_seed(0)
    module = Words()
    model = exported(module, INDICES)
    layers = [n for n in model.graph.nodes if n.weight is not None]
    assert len(layers) == 3
    encodings = Encodings({f"{n.key}:weight": Float("float16") for n in layers})
    got = Reference().run(model, encodings, (INDICES,))[0]
    with torch.no_grad():
        exact = module(torch.from_numpy(INDICES)).numpy()
        for n in layers:
            module.get_parameter(n.weight).data = module.get_parameter(n.weight).half().float()
        expected = module(torch.from_numpy(INDICES)).numpy()
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)  # a processor's own order of float sums
    assert np.abs(got - exact).max() > 1e-5


def test_one_weight_under_two_encodings(exported):
    """A tied weight is one parameter, yet each of its readers has its own key and its own integers."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(3, 3, bias=False)

        def forward(self, x):
            return self.one(self.one(x))

    x = np.array([[1.0, 2.0, 3.0], [0.5, 0.0, -1.0]], np.float32)
    model = exported(Twice(), x)
    first, second = (n.key for n in model.graph.nodes if n.op == "linear")
    one = affine.symmetric(np.float32(0.25), 8)
    two = affine.symmetric(np.float32(2.0), 8)
    eye = np.eye(3, dtype=np.int32)
    encodings = Encodings(
        {f"{first}:weight": one, f"{second}:weight": two}, {f"{first}:weight": eye, f"{second}:weight": 3 * eye}
    )
    assert np.array_equal(Reference().run(model, encodings, (x,))[0], x * 0.25 * 6.0)
