"""Whole small models: integers worked out by hand, and a slow oracle in Python's own integers."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from haversack.base.encodings import Affine, Encodings, Float
from haversack.targets.reference import Reference
from haversack.tools.graph import execute, roles


def tensor(scale, zero_point=0):
    return Affine(
        8, signed=False, axis=None, scale=np.array(scale, np.float32), zero_point=np.array(zero_point, np.int32)
    )


def row_scales(*scales):
    return Affine(
        8, signed=True, axis=0, scale=np.array(scales, np.float32), zero_point=np.zeros(len(scales), np.int32)
    )


class Oracle:
    """Executes a graph on Python integers, element by element; nothing of the product but its graph is used."""

    def __init__(self, model, encodings):
        self.model, self.encodings = model, encodings
        self.codes = {}

    def run(self, inputs):
        feed = iter(inputs)
        for unit in roles.units(self.model.graph):
            node, out = unit.head, self.encodings.affine(unit.out)
            if node.op == "input":
                self.codes[node.key] = self.quantize(next(feed), out)
                continue
            low, high = 0, 255
            if unit.clamp is not None:
                attributes = unit.clamp.attributes
                bounds = {"relu": (0, None), "relu6": (0, 6)}.get(
                    unit.clamp.op, (attributes.get("min_val"), attributes.get("max_val"))
                )
                low = low if bounds[0] is None else max(low, self.quantize(np.float32(bounds[0]), out).item())
                high = high if bounds[1] is None else min(high, self.quantize(np.float32(bounds[1]), out).item())
            self.codes[unit.last.key] = np.clip(self.step(node, out), low, high)
        return [self.values(key) for key in self.model.graph.outputs]

    def values(self, key):
        encoding = self.encodings.affine(f"{key}:out")
        return (np.float32(encoding.scale) * (self.codes[key] - encoding.zero_point).astype(np.float32)).astype(
            np.float32
        )

    @staticmethod
    def quantize(x, encoding):
        x = np.asarray(x, np.float32)
        found = [round(float(np.float32(v) / encoding.scale)) + int(encoding.zero_point) for v in x.reshape(-1)]
        return np.array([min(255, max(0, code)) for code in found]).reshape(x.shape)

    def centered(self, key):
        return self.codes[key] - int(self.encodings.affine(f"{key}:out").zero_point)

    def step(self, node, out):
        sources = [self.encodings.affine(f"{key}:out") for key in node.inputs]
        flows = [self.centered(key) for key in node.inputs]
        zero = int(out.zero_point)
        if node.op in ("conv2d", "linear"):
            return self.layer(node, flows[0], sources[0], out)
        if node.op == "add":
            ratios = [float(source.scale) / float(out.scale) for source in sources]
            total = flows[0] * ratios[0] + flows[1] * ratios[1]
            return np.vectorize(lambda v: min(255, max(0, round(v) + zero)))(total)
        if node.op in ("mean", "adaptive_avg_pool2d"):
            total = flows[0].sum((2, 3), keepdims=node.op != "mean" or bool(node.attributes["keepdim"]))
            area = flows[0].shape[2] * flows[0].shape[3]
            ratio = float(sources[0].scale) / float(out.scale)
            return np.vectorize(lambda v: min(255, max(0, round(ratio / area * int(v)) + zero)))(total)
        if node.op == "pad":
            left, right, top, bottom = node.attributes["pad"]
            return np.pad(flows[0], ((0, 0), (0, 0), (top, bottom), (left, right))) + zero
        if node.op in ("view", "flatten", "reshape"):
            return flows[0].reshape(len(flows[0]), -1) + zero
        if node.op == "max_pool2d":
            return np.array([[[[c[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max() for j in range(c.shape[1] // 2)]
                               for i in range(c.shape[0] // 2)] for c in n] for n in flows[0]]) + zero  # fmt: skip
        assert node.op == "cat"
        return np.concatenate(flows, node.attributes.get("dim", 1)) + zero

    def layer(self, node, x, source, out):
        key = f"{node.key}:weight"
        w, scales = self.encodings.integers[key], self.encodings.affine(key).scale
        bias = self.model.weights[node.bias] if node.bias else np.zeros(len(w), np.float32)
        if node.op == "linear":
            x, w, where = x[:, :, None, None], w[:, :, None, None], {}
        else:
            where = node.attributes
        (sh, sw), (ph, pw) = where.get("stride", (1, 1)), where.get("padding", (0, 0))
        (dh, dw), groups = where.get("dilation", (1, 1)), where.get("groups", 1)
        x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
        channels, inner, kh, kw = w.shape
        height, width = (x.shape[2] - dh * (kh - 1) - 1) // sh + 1, (x.shape[3] - dw * (kw - 1) - 1) // sw + 1
        found = np.zeros((len(x), channels, height, width), np.int64)
        for n, c, i, j in product(*map(range, found.shape)):
            first = c // (channels // groups) * inner
            total = 0
            for k, a, b in product(range(inner), range(kh), range(kw)):
                total += int(w[c, k, a, b]) * int(x[n, first + k, i * sh + a * dh, j * sw + b * dw])
            scale = np.float32(source.scale * scales[c])
            total += round(float(bias[c]) / float(scale))
            scaled = np.float32(np.float32(total) * np.float32(scale / out.scale))
            found[n, c, i, j] = min(255, max(0, round(float(scaled)) + int(out.zero_point)))
        return found[:, :, 0, 0] if node.op == "linear" else found


class Residual(nn.Module):
    """Pad node, strided conv, relu6, grouped conv, residual add with relu, max-pool, concat, mean, linear."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point = nn.Conv2d(8, 8, 1, bias=False)
        self.side = nn.Conv2d(8, 8, 1)
        self.wide = nn.Conv2d(16, 6, 3, padding=2, dilation=2, groups=2)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = nn.functional.relu6(self.stem(nn.functional.pad(x, (0, 1, 0, 1))))
        y = self.point(nn.functional.hardtanh(self.deep(x), -0.5, 0.7))
        x = torch.relu(x + y)
        x = torch.cat([nn.functional.max_pool2d(x, 2), nn.functional.max_pool2d(self.side(x), 2)], 1)
        return self.head(self.wide(x).mean((2, 3)))


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_one_convolution_by_hand(exported):
    module = nn.Conv2d(1, 2, 2, bias=True)
    module.weight.data = torch.tensor([[[[1.0, -1.0], [0.5, 0.0]]], [[[2.0, 2.0], [2.0, 2.0]]]])
    module.bias.data = torch.tensor([0.25, -1.0])
    model = exported(module, images(2, 1, 2, 2))
    layer = model.graph.nodes[1].key
    encodings = Encodings(
        {
            model.graph.nodes[0].out: tensor(0.5, 10),
            f"{layer}:weight": row_scales(0.5, 2.0),
            f"{layer}:out": tensor(0.25, 100),
        },
        {f"{layer}:weight": np.array([[[[2, -2], [1, 0]]], [[[1, 1], [1, 1]]]], np.int32)},
    )
    x = np.array([[[[1.0, 2.3], [-0.6, 99.0]]]], np.float32)
    # q - zp: 2, 5 (4.6), -1 (-1.2), 198; the last saturates nothing yet: 10 + 198 = 208.
    # channel 0: 2*2 - 2*5 + 1*-1 = -7, bias 0.25/0.25 = 1 -> -6, * (0.25/0.25) = -6 -> code 94
    # channel 1: 2 + 5 - 1 + 198 = 204, bias -1/1 = -1 -> 203, * (1/0.25) = 812 -> code 912, limited to 255
    got = Reference().run(model, encodings, (x,))[0]
    assert np.array_equal(got.reshape(-1), [-6 * 0.25, 155 * 0.25])
    assert got.dtype == np.float32


def test_one_add_by_hand(exported):
    class Sum(nn.Module):
        def forward(self, a, b):
            return a + b

    model = exported(Sum(), images(2, 3), images(2, 3))
    a, b, out = (node.out for node in model.graph.nodes)
    encodings = Encodings({a: tensor(250 / 501, 3), b: tensor(101 / 501, 7), out: tensor(1.0, 20)})
    values = np.array([[1, 2, -1]], np.float32), np.array([[4, -2, 1e9]], np.float32)
    # a: 2.004 -> 2, 4.008 -> 4, -2; b: 19.84 -> 20, -9.92 limited to 0 - 7 = -7, 255 - 7 = 248
    # (500 + 2020) / 501 = 5.03 -> 5; (1000 - 707) / 501 = 0.58 -> 1; (-500 + 25048) / 501 = 48.998 -> 49
    assert np.array_equal(Reference().run(model, encodings, values)[0], [[5.0, 1.0, 49.0]])


def test_one_mean_by_hand(exported):
    model = exported(nn.AdaptiveAvgPool2d(1), images(2, 1, 1, 3))
    encodings = Encodings({model.graph.nodes[0].out: tensor(250 / 501), model.graph.nodes[1].out: tensor(1.0, 5)})
    x = np.array([[[[0.5, 1.0, 4.6]]]], np.float32)  # 1, 2, 9 (9.2): 12 / 3 * 250/501 = 1.996 -> 2
    assert np.array_equal(Reference().run(model, encodings, (x,))[0], [[[[2.0]]]])


def test_a_network_equals_the_oracle(exported, encoded):
    torch.manual_seed(0)
    x = images(3, 3, 9, 9)
    model = exported(Residual(), x)
    encodings = encoded(model, (x,))
    interpreter = Reference(at_once=2).opened(model, encodings)
    assert {key.partition(":")[2] for key in interpreter.integer_nodes} >= {"conv2d#0", "add#0", "mean#0", "linear#0"}
    expected = Oracle(model, encodings).run((x,))[0]
    got = interpreter.run((x,))[0]
    assert np.unique(got).size > 5
    assert np.array_equal(got.view(np.uint32), expected.view(np.uint32))
    float_output = execute.Executor(model).run((x,))[0]
    assert np.linalg.norm(got - float_output) < 0.1 * np.linalg.norm(float_output)


@pytest.mark.parametrize("seed", range(4))
def test_every_tensor_of_a_network_equals_the_oracle(exported, encoded, seed):
    torch.manual_seed(seed)
    x = images(2, 3, 8, 8, seed=seed)
    model = exported(Residual(), x)
    encodings, seen = encoded(model, (x,)), {}
    Reference(at_once=0).run(model, encodings, (x,), observe=lambda key, value: seen.update({key: value.copy()}))
    oracle = Oracle(model, encodings)
    oracle.run((x,))
    assert set(seen) == {f"{key}:out" for key in oracle.codes}
    for key, value in seen.items():
        assert np.array_equal(value.view(np.uint32), oracle.values(key.removesuffix(":out")).view(np.uint32))


@pytest.mark.parametrize("at_once", [1, 2, 3, 7, 0])
def test_pieces_of_a_batch_change_nothing(exported, encoded, at_once):
    torch.manual_seed(1)
    x = images(7, 3, 8, 8)
    model = exported(Residual(), x)
    interpreter = Reference(at_once=at_once).opened(model, encoded(model, (x,)))
    assert max(len(piece[0]) for piece in interpreter.pieces((x,))) == (at_once or 7)
    whole = Reference(at_once=0).opened(model, interpreter.encodings).run((x,))[0]
    assert np.array_equal(interpreter.run((x,))[0], whole)


def test_a_fixed_batch_is_not_cut(exported, encoded):
    x = images(5, 3, 8, 8)
    model = exported(Residual(), x, free=False)
    interpreter = Reference(at_once=2).opened(model, encoded(model, (x,)))
    assert [len(piece[0]) for piece in interpreter.pieces((x,))] == [5]


def test_a_float_op_in_the_middle_is_computed_on_dequantized_values(exported, encoded):
    class Middle(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(6, 5), nn.Linear(5, 3)

        def forward(self, x):
            return self.two(torch.softmax(self.one(x), -1))

    torch.manual_seed(0)
    x = images(4, 6)
    model = exported(Middle(), x)
    encodings = encoded(model, (x,))
    interpreter, seen = Reference().opened(model, encodings), {}
    got = interpreter.run((x,), observe=lambda key, value: seen.update({key: value.copy()}))[0]
    nodes = {node.op: node for node in model.graph.nodes}
    assert nodes["softmax"].key not in interpreter.integer_nodes
    # The law, rule 3: float on dequantized values, then onto the grid.
    one = seen[f"{nodes['softmax'].inputs[0]}:out"]
    exact = torch.softmax(torch.from_numpy(one), -1).numpy()
    scale, zero = (getattr(encodings.affine(nodes["softmax"].out), name) for name in ("scale", "zero_point"))
    snapped = np.clip(np.rint(exact / scale) + zero, 0, 255) - zero
    assert np.array_equal(seen[nodes["softmax"].out], snapped.astype(np.float32) * scale)
    assert np.array_equal(got, seen[nodes["linear"].out])


def test_no_encodings_is_the_float_model(exported):
    x = images(3, 3, 8, 8)
    model = exported(Residual(), x)
    interpreter = Reference(at_once=0).opened(model, Encodings.none())
    assert not interpreter.integer_nodes
    assert np.array_equal(interpreter.run((x,))[0], execute.Executor(model).run((x,))[0])


def test_a_layer_with_a_float_neighbour_runs_in_float_on_stored_integers(exported, encoded):
    x = images(2, 6)
    model = exported(nn.Linear(6, 3), x)
    full = encoded(model, (x,))
    layer = model.graph.nodes[1].key
    half = Encodings({key: full.tensors[key] for key in (f"{layer}:weight", f"{layer}:out")}, full.integers)
    interpreter = Reference().opened(model, half)
    assert not interpreter.integer_nodes
    weight = full.integers[f"{layer}:weight"] * full.affine(f"{layer}:weight").scale[:, None]
    exact = torch.nn.functional.linear(
        torch.from_numpy(x), torch.from_numpy(weight.astype(np.float32)), torch.from_numpy(model.weights["bias"])
    ).numpy()
    out = full.affine(f"{layer}:out")
    snapped = (np.clip(np.rint(exact / out.scale) + out.zero_point, 0, 255) - out.zero_point) * out.scale
    assert np.array_equal(interpreter.run((x,))[0], snapped.astype(np.float32))


def test_an_op_without_an_integer_kernel_runs_in_float(exported, encoded):
    x = images(3, 3, 8, 8)
    model = exported(Residual(), x)
    interpreter = Reference(frozenset({"conv2d", "linear"})).opened(model, encoded(model, (x,)))
    assert {key.rpartition(":")[2].partition("#")[0] for key in interpreter.integer_nodes} <= {
        "conv2d", "linear", "relu6", "hardtanh"
    }  # fmt: skip
    assert np.isfinite(interpreter.run((x,))[0]).all()


def test_float16_activations_are_rounded_to_half(exported):
    x = images(2, 6)
    model = exported(nn.Linear(6, 3), x)
    key = model.graph.nodes[1].out
    got = Reference().run(model, Encodings({key: Float("float16")}), (x,))[0]
    exact = execute.Executor(model).run((x,))[0]
    assert np.array_equal(got, exact.astype(np.float16).astype(np.float32))
    assert (got != exact).any()


def test_nan_stays_nan(exported, encoded):
    x = images(2, 6)
    model = exported(nn.Linear(6, 3), x)
    encodings = encoded(model, (x,))
    x[1, 2] = np.nan
    got = Reference().run(model, encodings, (x,))[0]
    assert np.isfinite(got[0]).all()
    assert np.isnan(got[1]).all()


def test_zero_is_never_negative(exported, encoded):
    """A runtime makes its zeros from integers: no -0.0, which would differ bit for bit."""
    x = np.array([[-1e-6, 1e-6, 1.0, -1.0]], np.float32)
    model = exported(nn.ReLU(), np.repeat(x, 2, 0))
    got = Reference().run(model, encoded(model, (x,)), (x,))[0]
    assert (got[0, :2] == 0).all()
    assert not np.signbit(got).any()
