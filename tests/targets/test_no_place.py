"""Tensors that a runtime has no place for: known before a plan is made real; all runtimes then hold one set of bits.

Each network once made every static plan fail at lowering, or compute something else. Here a plan of int8 throughout is
lowered by the three runtimes, and each must give the reference's output bit for bit.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from haversack import load
from haversack.base.constraints import Constraints
from haversack.base.job import Job
from haversack.base.plan import Plan, Step
from haversack.compress.apply import apply
from haversack.compress.plans import uniform
from haversack.profile.ranges import ranges
from haversack.targets.contract import SHELF
from haversack.targets.reference import Reference
from haversack.tools.data.layouts import to_file

THREE = ("onnxruntime", "litert", "executorch")


class Net(nn.Module):
    """Layers by name, and what is done with them."""

    def __init__(self, does, **layers):
        super().__init__()
        self.does = does
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.does(self, x)


def recurrent(kind, **how):
    sides = 2 if how.get("bidirectional") else 1

    def does(net, x):
        found, _ = net.cell(torch.relu(net.conv(x)).permute(0, 2, 1))
        return net.head(found[:, -1])

    cell = kind(6, 4, batch_first=True, **how)
    return Net(does, conv=nn.Conv1d(3, 6, 3, padding=1), cell=cell, head=nn.Linear(4 * sides, 3)), (3, 5)


def pieces(cut):
    def does(net, x):
        one, other = cut(net.wide(x))
        return (net.left(one) + net.right(other)).mean((2, 3))

    left, right = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
    return Net(does, wide=nn.Conv2d(3, 8, 3, padding=1), left=left, right=right), (3, 8, 8)


def norm():
    net = Net(
        lambda net, x: net.after(net.norm(torch.relu(net.before(x)))).mean((2, 3)),
        before=nn.Conv2d(3, 8, 3),
        norm=nn.BatchNorm2d(8),
        after=nn.Conv2d(8, 4, 3),
    )
    net.norm.running_mean.normal_()
    net.norm.running_var.uniform_(0.5, 2)
    return net, (3, 8, 8)


def twice(join):
    def does(net, x):
        return net.after(join(net.shared(x), net.shared(x))).mean((2, 3))

    width = join(torch.zeros(1, 8, 1, 1), torch.zeros(1, 8, 1, 1)).shape[1]
    return Net(does, shared=nn.Conv2d(3, 8, 3, padding=1), after=nn.Conv2d(width, 4, 3)), (3, 8, 8)


NETWORKS = {
    "gru": lambda: recurrent(nn.GRU),
    "lstm": lambda: recurrent(nn.LSTM),
    "both ways": lambda: recurrent(nn.GRU, bidirectional=True),
    "two layers": lambda: recurrent(nn.LSTM, num_layers=2),
    "halves": lambda: pieces(lambda y: y.chunk(2, 1)),
    "a split": lambda: pieces(lambda y: y.split([4, 4], 1)),
    "an unbinding": lambda: pieces(lambda y: y.reshape(-1, 2, 4, 8, 8).unbind(1)),
    "a norm behind a clamp": norm,
    "called twice and added": lambda: twice(torch.add),
    "called twice and joined": lambda: twice(lambda one, other: torch.cat([torch.relu(one), other], 1)),
}
IN_FLOAT = {"gru": 1, "lstm": 1, "both ways": 2, "two layers": 2, "an unbinding": 2}
"""Network -> how many layers stay in float: they read a state that is known beforehand, or what ONNX has as slices."""


def exported(net, shape):
    net.eval()
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    return load.export(Job("net", lambda: net, lambda: [(x,)], list, "")), x


def squeezed(model, x, names):
    demands = Constraints.union(SHELF.build(name).demands(model) for name in names)
    plan = Plan(names[0], uniform(model.graph, "int8"), (), Step("minmax"), tuple(names))
    return apply(
        model,
        plan,
        ranges=lambda model: ranges(model, [(x,)]),
        constraints=demands,
        samples=lambda: [(x,)],
    )


def given(name, made, x, folder):
    target = SHELF.build(name)
    artifact = target.lower(made.model, made.encodings, folder)
    assert artifact.injected == artifact.read_back > 0
    session = target.open_session(folder / artifact.files[0].path, artifact.session_options)
    port = artifact.inputs[0].name
    return session.run({port: to_file(x, artifact.layouts.get(port, ""))})[artifact.outputs[0].name]


@pytest.mark.parametrize("network", NETWORKS)
def test_static_int8_is_the_reference_in_every_runtime(network, tmp_path):
    torch.manual_seed(0)
    model, x = exported(*NETWORKS[network]())
    made = squeezed(model, x, THREE)
    told = [finding for finding in made.findings if finding.kind == "kept-in-float"]
    layers = uniform(model.graph, "int8")
    held = [key for key in layers if f"{key}:weight" in made.encodings.tensors]
    assert len(told) == IN_FLOAT.get(network, 0) == len(layers) - len(held)
    expected = Reference().run(made.model, made.encodings, (x,))[0]
    for name in THREE:
        found = given(name, made, x, tmp_path / name)
        if network == "an unbinding":  # its last layers are float: the last bit is the runtime's own
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(found, expected, err_msg=name)


WINDOWS = [
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (2, 3), "stride": (3, 2), "padding": (1, 1)},
    {"kernel_size": 2, "stride": 3, "padding": 1},  # a window that would begin in the pad behind is none
    {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
]


@pytest.mark.parametrize("size", [(10, 9), (11, 12)])
@pytest.mark.parametrize("how", WINDOWS)
def test_pools_that_reach_over_the_end_count_as_in_pytorch(how, size, tmp_path):
    def does(net, x):
        return net.after(functional.avg_pool2d(net.before(x), ceil_mode=True, **how)).mean((2, 3))

    torch.manual_seed(0)
    net = Net(does, before=nn.Conv2d(3, 4, 3, padding=1), after=nn.Conv2d(4, 3, 1))
    model, x = exported(net, (3, *size))
    made = squeezed(model, x, ("onnxruntime",))
    assert {":avg_pool2d#0:out", "before:conv2d#0:out"} <= made.encodings.tensors.keys()
    expected = Reference().run(made.model, made.encodings, (x,))[0]
    np.testing.assert_array_equal(given("onnxruntime", made, x, tmp_path), expected)


def test_a_pool_whose_last_window_is_not_known_gives_no_codes():
    def does(net, x):
        return net.after(functional.avg_pool1d(net.before(x), 3, 2, 1, ceil_mode=True)).mean(2)

    net = Net(does, before=nn.Conv1d(3, 4, 3), after=nn.Conv1d(4, 3, 1)).eval()
    x = np.zeros((2, 3, 12), np.float32)
    model = load.export(
        Job("free", lambda: net, lambda: [(x,)], list, "", input_names=("x",), dims={"x": {0: "batch", 2: "length"}})
    )
    target = SHELF.build("onnxruntime")
    assert ":avg_pool1d#0:out" in target.demands(model).floats
    assert ":avg_pool1d#0:out" not in target.constraints(model.graph).floats


@pytest.mark.parametrize("op", ["conv3d", "conv_transpose3d"])
def test_executorch_refuses_volumes_by_layer(op):
    layer = {"conv3d": nn.Conv3d, "conv_transpose3d": nn.ConvTranspose3d}[op](2, 3, 3)
    model, _ = exported(Net(lambda net, x: net.volume(x), volume=layer), (2, 5, 5, 5))
    (fault,) = SHELF.build("executorch").refusals(model)
    assert fault.where == f"volume:{op}#0"
    assert "one or two axes" in fault.cause
