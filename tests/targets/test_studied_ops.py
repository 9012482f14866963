"""Ops between integer layers, on three runtimes: the same bits as the reference, or by how much not.

One network of many outputs, each a layer, an op and a layer, holds them all, so that each runtime lowers once.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from haversack.base.constraints import Constraints
from haversack.base.plan import Plan, Step
from haversack.compress import encode
from haversack.compress.plans import uniform
from haversack.profile.ranges import ranges
from haversack.targets.contract import SHELF as TARGETS
from haversack.targets.reference import Reference
from haversack.tools.data.layouts import to_file, to_model
from haversack.tools.graph import canonical

THREE = ("onnxruntime", "litert", "executorch")
STUDIED = {
    "relu": torch.relu,
    "relu6": functional.relu6,
    "hard-swish": functional.hardswish,
    "hard-sigmoid": functional.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "softmax": lambda x: torch.softmax(x, 1),
    "layer norm": lambda x: functional.layer_norm(x.permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2),
    "average pool": lambda x: functional.avg_pool2d(x, 2),
    "average pool, zeros counted": lambda x: functional.avg_pool2d(x, 3, 1, 1),
    "average pool, zeros not counted": lambda x: functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "average pool by two, zeros not counted": lambda x: functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "parametric relu": lambda x: functional.prelu(x, torch.linspace(-0.1, 0.3, 8)),
    "max pool": lambda x: functional.max_pool2d(x, 2),
    "max pool of a ResNet's stem": lambda x: functional.max_pool2d(x, 3, 2, 1),
    "mean": lambda x: functional.adaptive_avg_pool2d(x, 1),
    "nearest": lambda x: functional.interpolate(x, scale_factor=2, mode="nearest"),
    "bilinear": lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear by corners": lambda x: functional.interpolate(x, size=(5, 7), mode="bilinear", align_corners=True),
    "add": lambda x: x + torch.relu(x),
    "concat": lambda x: torch.cat([x[:, :4], torch.relu(x[:, 4:])], 1),
    "pad": lambda x: functional.pad(x, (1, 1, 1, 1)),
    "squeeze and excite": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
}
DIFFERING = {("softmax", "onnxruntime"): 1}
"""(Op, runtime) -> by how many codes outputs leave the reference at most, where not all bits are the same."""


class Between(nn.Module):
    """Each op between two integer layers of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.before = nn.ModuleList(nn.Conv2d(3, 8, 3, padding=1) for _ in STUDIED)
        self.behind = nn.ModuleList(nn.Conv2d(8, 5, 1) for _ in STUDIED)

    def forward(self, x):
        rows = zip(self.before, STUDIED.values(), self.behind, strict=True)
        return tuple(behind(op(before(x))) for before, op, behind in rows)


@pytest.fixture(scope="module")
def studied():
    """Return the model, its encodings under the demands of all three, its input, and the reference's outputs."""
    x = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)
    free = ({0: torch.export.Dim.AUTO},)
    program = torch.export.export(Between().eval(), (torch.from_numpy(x),), dynamic_shapes=free)
    names = [f"y{index}" for index in range(len(STUDIED))]
    model = canonical.to_model(program, "studied", input_names=("x",), output_names=names)
    demands = Constraints.union([TARGETS.build(name).constraints(model.graph) for name in THREE])
    plan = Plan("any", uniform(model.graph, "int8", integer_ops=demands.integer_ops), (), Step("minmax"), THREE)
    encodings, _ = encode.encode(model, plan, ranges(model, [(x,)]), demands)
    return model, encodings, x, Reference().run(model, encodings, (x,))


@pytest.fixture(scope="module", params=THREE)
def opened(request, studied, tmp_path_factory):
    """Return a runtime's name, its outputs by op, and what it says of its file."""
    model, encodings, x, _ = studied
    target, folder = TARGETS.build(request.param), tmp_path_factory.mktemp(request.param)
    assert target.refusals(model) == ()
    artifact = target.lower(model, encodings, folder)
    path = folder / artifact.files[0].path
    layouts = artifact.layouts
    found = target.open_session(path, artifact.session_options).run({"x": to_file(x, layouts.get("x", ""))})
    names = [port.name for port in model.outputs]
    outputs = {op: to_model(found[name], layouts.get(name, "")) for op, name in zip(STUDIED, names, strict=True)}
    return request.param, outputs, target.findings(path, artifact)


def test_every_layer_is_integers(studied):
    model, encodings, _, _ = studied
    layers = [node for node in model.graph.nodes if node.op == "conv2d"]
    assert len(layers) == 2 * len(STUDIED)
    assert all(encodings.affine(f"{node.key}:weight") is not None for node in layers)
    assert all(encodings.affine(node.out) is not None for node in layers if node.key in model.graph.outputs)


@pytest.mark.parametrize("op", STUDIED)
def test_the_bits_are_the_references_or_the_difference_is_the_one_stated(studied, opened, op):
    model, encodings, _, wanted = studied
    name, outputs, _ = opened
    place = list(STUDIED).index(op)
    exact, found = wanted[place], outputs[op]
    assert found.shape == exact.shape
    step = float(encodings.affine(f"{model.graph.outputs[place]}:out").scale)
    codes = np.abs(found - exact) / step
    bound = DIFFERING.get((op, name), 0)
    assert codes.max() <= 1.001 * bound, f"{int((codes > 0).sum())} of {codes.size} values differ"


def test_what_litert_has_to_pad_is_told(opened):
    name, _, findings = opened
    if name != "litert":
        pytest.skip("the pads of the others are inside their pools")
    padded = {finding.layer.split(":")[1] for finding in findings if "PAD" in finding.text}
    assert {"avg_pool2d#1", "max_pool2d#1"} <= padded
