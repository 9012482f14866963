"""Integer networks of odd shapes: every runtime gives the codes that a sum written in NumPy gives.

The oracle is this file's own: it knows the law in words alone (sums of integers, one multiplier, round to even, limit)
and shares no code with the reference. One network of many outputs holds all shapes, so that each runtime lowers once.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from haversack.base.constraints import Constraints
from haversack.base.encodings import Encodings
from haversack.base.plan import Plan, Step
from haversack.compress import encode
from haversack.compress.plans import uniform
from haversack.profile.ranges import ranges
from haversack.targets.contract import SHELF as TARGETS
from haversack.targets.reference import Reference
from haversack.tools.data.layouts import to_file, to_model
from haversack.tools.graph import canonical

THREE = ("onnxruntime", "litert", "executorch")
CASES = {
    "groups of two to three": (lambda m, x: m["b"](torch.relu(m["a"](x))),
        {"a": lambda: nn.Conv2d(3, 6, 3, padding=1), "b": lambda: nn.Conv2d(6, 9, 3, groups=3)}),
    "two outputs a channel": (lambda m, x: m["a"](x), {"a": lambda: nn.Conv2d(3, 6, 3, 2, 1, groups=3)}),
    "one output a channel, far apart": (lambda m, x: functional.relu6(m["a"](x)),
        {"a": lambda: nn.Conv2d(3, 3, 3, dilation=2, groups=3)}),
    "wide, then high": (lambda m, x: m["b"](m["a"](x)),
        {"a": lambda: nn.Conv2d(3, 7, (1, 5), padding=(0, 2)), "b": lambda: nn.Conv2d(7, 1, (3, 1), 2, bias=False)}),
    "a stride past the kernel": (lambda m, x: m["a"](x), {"a": lambda: nn.Conv2d(3, 5, 1, stride=3)}),
    "a line": (lambda m, x: m["b"](torch.relu(m["a"](x.flatten(2)))),
        {"a": lambda: nn.Conv1d(3, 6, 3, stride=2, padding=1), "b": lambda: nn.Conv1d(6, 4, 5, groups=2)}),
    "a sum": (lambda m, x: m["a"](x) + m["b"](x),
        {"a": lambda: nn.Conv2d(3, 5, 1), "b": lambda: nn.Conv2d(3, 5, 3, padding=1)}),
    "a sum, limited": (lambda m, x: functional.relu6(m["a"](x) + m["b"](x)),
        {"a": lambda: nn.Conv2d(3, 3, 1), "b": lambda: nn.Conv2d(3, 3, 1)}),
    "a mean and a row": (lambda m, x: m["b"](functional.adaptive_avg_pool2d(m["a"](x), 1).flatten(1)),
        {"a": lambda: nn.Conv2d(3, 13, 1), "b": lambda: nn.Linear(13, 3)}),
    "a mean that keeps its axes": (lambda m, x: m["b"](m["a"](x).mean((2, 3), keepdim=True)),
        {"a": lambda: nn.Conv2d(3, 5, 3), "b": lambda: nn.Conv2d(5, 7, 1)}),
    "a pad of each side": (lambda m, x: m["a"](functional.pad(x, (2, 0, 1, 3))), {"a": lambda: nn.Conv2d(3, 5, 3, 2)}),
    "a pool": (lambda m, x: m["b"](functional.max_pool2d(m["a"](x), 2)),
        {"a": lambda: nn.Conv2d(3, 5, 1), "b": lambda: nn.Conv2d(5, 3, 1)}),
    "three joined": (lambda m, x: m["c"](torch.cat([x, m["b"](x), m["a"](x)], 1)),
        {"a": lambda: nn.Conv2d(3, 3, 1), "b": lambda: nn.Conv2d(3, 1, 1), "c": lambda: nn.Conv2d(7, 2, 1)}),
    "rows cut and turned": (lambda m, x: m["a"](x.permute(0, 2, 3, 1)[:, 1:, :6]), {"a": lambda: nn.Linear(3, 11)}),
}  # fmt: skip
"""Name -> (what is computed of its layers and an image of 3 channels, 9 by 7; the layers)."""
IN_NCNN = tuple(case for case in CASES if case != "rows cut and turned")
"""It has no linear layer over three axes."""


class Odd(nn.Module):
    """Cases, an output each."""

    def __init__(self, cases):
        super().__init__()
        torch.manual_seed(13)
        self.computed, made = zip(*(CASES[case] for case in cases), strict=True)
        self.layers = nn.ModuleList(nn.ModuleDict({name: layer() for name, layer in one.items()}) for one in made)

    def forward(self, x):
        return tuple(computed(layers, x) for computed, layers in zip(self.computed, self.layers, strict=True))


class ByHand:
    """A graph computed in whole numbers: node key -> int64 codes less the zero-point; ``first`` is the lowest code."""

    def __init__(self, model, encodings, first=0):
        self.model, self.encodings, self.first, self.whole = model, encodings, first, {}

    def run(self, x):
        """Return the outputs' codes, in order."""
        clamps = {}
        for node in self.model.graph.nodes:
            out = self.encodings.affine(node.out)
            if node.op == "input":
                value = np.rint(x / np.float32(out.scale)).astype(np.int64)
            elif node.op in ("relu", "relu6") and node.inputs[0] in clamps:
                top = 6.0 if node.op == "relu6" else np.inf
                value = clamps[node.inputs[0]](out, top)
            elif out is None:  # a layer whose clamp has the encoding: it is settled there
                value = None
            else:
                value = self.settled(self.steps(node, out), out)
            if out is None or node.op not in ("input", "relu", "relu6"):
                clamps[node.key] = lambda grid, top, node=node: self.clamped(node, grid, top)
            if value is not None:
                value = np.clip(value, self.first - int(out.zero_point), 255 - int(out.zero_point))
            self.whole[node.key] = value
        return [self.whole[key] for key in self.model.graph.outputs]

    def clamped(self, node, out, top):
        found = self.settled(self.steps(node, out), out)
        highest = 1 << 20 if top == np.inf else int(np.rint(np.float32(top) / np.float32(out.scale)))
        return np.clip(found, 0, min(highest, 255 - int(out.zero_point)))

    def settled(self, steps, out):
        return np.rint(steps).astype(np.int64)

    def steps(self, node, out):
        """Return what a node makes, in steps of an output's scale, before it is rounded."""
        values = [self.whole[key] for key in node.inputs]
        if node.weight:
            return self.layer(node, values[0], out)
        if node.op == "add":
            scales = [float(self.encodings.affine(f"{key}:out").scale) for key in node.inputs]
            return sum(value * (scale / float(out.scale)) for value, scale in zip(values, scales, strict=True))
        if node.op in ("mean", "adaptive_avg_pool2d"):
            ratio = float(self.encodings.affine(f"{node.inputs[0]}:out").scale) / float(out.scale)
            kept = node.op != "mean" or bool(node.attributes.get("keepdim"))
            return values[0].sum((2, 3), keepdims=kept) * (ratio / np.prod(values[0].shape[2:]))
        return self.moved(node, values)

    def layer(self, node, x, out):
        key = f"{node.key}:weight"
        source, weight = self.encodings.affine(f"{node.inputs[0]}:out"), self.encodings.affine(key)
        codes = self.encodings.integers[key].astype(np.int64)
        product = np.float32(source.scale) * weight.scale
        sums = x @ codes.T if node.op == "linear" else convolved(x, codes, node.attributes)
        wide = (-1,) if node.op == "linear" else (-1, *[1] * (codes.ndim - 2))
        if node.bias is not None:
            bias = np.rint(self.model.weights[node.bias].astype(np.float64) / product.astype(np.float64))
            sums = sums + bias.astype(np.int64).reshape(wide)
        factor = np.broadcast_to(product / np.float32(out.scale), len(codes)).astype(np.float32).reshape(wide)
        return sums.astype(np.float32) * factor

    def moved(self, node, values):
        how = node.attributes
        if node.op == "cat":
            return np.concatenate(values, how.get("dim", 0))
        (x,) = values
        if node.op == "pad":
            left, right, top, bottom = how["pad"]
            return np.pad(x, [(0, 0), (0, 0), (top, bottom), (left, right)])
        if node.op == "max_pool2d":
            rows, columns = x.shape[2] // 2, x.shape[3] // 2
            return x[:, :, : 2 * rows, : 2 * columns].reshape(*x.shape[:2], rows, 2, columns, 2).max((3, 5))
        if node.op == "permute":
            return x.transpose(how["dims"])
        if node.op == "slice":
            end = min(how.get("end", x.shape[how.get("dim", 0)]), x.shape[how.get("dim", 0)])
            return np.take(x, range(how.get("start") or 0, end), how.get("dim", 0))
        if node.op in ("flatten", "view", "reshape"):
            return x.reshape(len(x), *node.output.shape[1:])
        raise AssertionError(f"{node.op} is none of this file's")


def convolved(x, codes, how):
    """Return sums of products [rows, out, ...], tap by tap; one axis or two."""
    axes = codes.ndim - 2
    stride, pads, holes = (list(how[name]) * (axes // len(how[name])) for name in ("stride", "padding", "dilation"))
    x = np.pad(x, [(0, 0), (0, 0), *((n, n) for n in pads)])
    lengths = [
        (size - hole * (taps - 1) - 1) // step + 1
        for size, hole, taps, step in zip(x.shape[2:], holes, codes.shape[2:], stride, strict=True)
    ]
    groups = int(how["groups"])
    inner, outer = codes.shape[1], codes.shape[0] // groups
    found = np.zeros((len(x), codes.shape[0], *lengths), np.int64)
    for tap in np.ndindex(*codes.shape[2:]):
        ends = [
            slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip(tap, holes, lengths, stride, strict=True)
        ]
        seen = x[(slice(None), slice(None), *ends)]
        for group in range(groups):
            rows = slice(group * outer, (group + 1) * outer)
            part = seen[:, group * inner : (group + 1) * inner]
            found[:, rows] += np.einsum("ni...,oi->no...", part, codes[(rows, slice(None), *tap)])
    return found


def made_for(targets, cases):
    """Return (Model, encodings under the demands of targets, input that leaves the ranges on both sides)."""
    x = np.random.default_rng(3).normal(size=(4, 3, 9, 7)).astype(np.float32)
    free = ({0: torch.export.Dim.AUTO},)
    program = torch.export.export(Odd(cases).eval(), (torch.from_numpy(x),), dynamic_shapes=free)
    names = [f"y{index}" for index in range(len(cases))]
    model = canonical.to_model(program, "odd", input_names=("x",), output_names=names)
    demands = Constraints.union([TARGETS.build(name).constraints(model.graph) for name in targets])
    plan = Plan("any", uniform(model.graph, "int8", integer_ops=demands.integer_ops), (), Step("minmax"), targets)
    encodings, _ = encode.encode(model, plan, ranges(model, [(x,)]), demands)
    return model, encodings, np.concatenate([x, 3 * x[:1], -4 * x[1:2]])


@pytest.fixture(scope="module")
def odd():
    """Model, encodings, input, and the codes by hand."""
    model, encodings, x = made_for(THREE, tuple(CASES))
    return model, encodings, x, ByHand(model, encodings).run(x)


def outputs_of(name, model, encodings, x, folder):
    target = TARGETS.build(name)
    artifact = target.lower(model, encodings, folder)
    assert artifact.injected == artifact.read_back
    session = target.open_session(folder / artifact.files[0].path, artifact.session_options)
    found = session.run({"x": to_file(x, artifact.layouts.get("x", ""))})
    return [to_model(found[port.name], artifact.layouts.get(port.name, "")) for port in model.outputs]


@pytest.fixture(scope="module", params=(*THREE, "reference"))
def opened(request, odd, tmp_path_factory):
    """A runtime's outputs."""
    model, encodings, x, _ = odd
    if request.param == "reference":
        return Reference().run(model, encodings, (x,))
    return outputs_of(request.param, model, encodings, x, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("case", CASES)
def test_every_value_has_the_bits_of_the_sum_by_hand(odd, opened, case):
    model, encodings, _, by_hand = odd
    place = list(CASES).index(case)
    out = encodings.affine(f"{model.graph.outputs[place]}:out")
    wanted = by_hand[place].astype(np.float32) * np.float32(out.scale)
    assert len(np.unique(by_hand[place])) > 10, "a test of few codes tests little"
    np.testing.assert_array_equal(opened[place] + np.float32(0.0), wanted)


def test_the_sum_by_hand_is_near_pytorchs(odd):
    model, encodings, x, by_hand = odd
    with torch.no_grad():
        floats = [value.numpy() for value in Odd(CASES).eval()(torch.from_numpy(x[:4]))]
    for case, key, whole, exact in zip(CASES, model.graph.outputs, by_hand, floats, strict=True):
        values = whole[:4] * float(encodings.affine(f"{key}:out").scale)
        assert np.abs(values - exact).max() < 0.06 * np.abs(exact).max(), case


def test_a_planted_code_is_seen_in_the_outputs_that_read_it_and_in_no_other(odd):
    """The oracle is no echo: one code of each layer, changed in the reference alone, parts the two there alone."""
    model, encodings, x, by_hand = odd
    for node in [node for node in model.graph.nodes if node.weight]:
        key = f"{node.key}:weight"
        codes = encodings.integers[key].copy()
        codes.reshape(-1)[0] = 127 if codes.reshape(-1)[0] <= 0 else -127
        found = Reference().run(model, Encodings(encodings.tensors, {**encodings.integers, key: codes}), (x,))
        scales = [float(encodings.affine(f"{out}:out").scale) for out in model.graph.outputs]
        rows = zip(found, by_hand, scales, strict=True)
        differ = [place for place, (one, other, scale) in enumerate(rows) if (np.rint(one / scale) != other).any()]
        assert differ == [int(node.key.split(".")[1])], node.key


def test_ncnn_is_a_step_away_at_most(tmp_path):
    """Its rounding is another (half away from zero, codes from -127): under its own demands nearly all is the same."""
    model, encodings, x = made_for(("ncnn",), IN_NCNN)
    found = outputs_of("ncnn", model, encodings, x, tmp_path)
    by_hand = ByHand(model, encodings, first=1).run(x)
    for case, key, mine, whole in zip(IN_NCNN, model.graph.outputs, found, by_hand, strict=True):
        step = float(encodings.affine(f"{key}:out").scale)
        apart = np.abs(np.rint(mine / step) - whole)
        assert apart.max() <= 1, case
        assert np.mean(apart > 0) < 0.01, case
