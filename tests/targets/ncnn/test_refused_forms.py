"""Arguments that an op may have in PyTorch and has no form for in ncnn: each is refused by its node, with its cause."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from haversack.base.encodings import Affine, Codebook, Dynamic, Encodings, Float
from haversack.base.errors import ConversionError
from haversack.targets.ncnn import Ncnn
from haversack.targets.ncnn.faults import faults
from haversack.tools.numerics import affine

IMAGE = (2, 6, 8, 8)


class Call(nn.Module):
    """One function of one input, with a parameter and a layer."""

    def __init__(self, function):
        super().__init__()
        self.function, self.p = function, nn.Parameter(torch.ones(1, 6, 1, 1))
        self.rows = nn.Linear(6, 3)

    def forward(self, x):
        return self.function(self, x)


REFUSED = {
    "add: alpha is not 1": (lambda m, x: torch.add(x, x, alpha=2), IMAGE),
    "sub: a constant that ncnn cannot take from this side": (lambda m, x: x - m.p, IMAGE),
    "clamp: its limits are no numbers": (lambda m, x: torch.clamp(x, min=m.p), IMAGE),
    "its first axis is not the batch, which ncnn leaves out": (lambda m, x: x * x.mean((0, 1), keepdim=True), IMAGE),
    "softmax: over the batch": (lambda m, x: torch.softmax(x, 0), IMAGE),
    "pad: pads [-1, 0]": (lambda m, x: functional.pad(x, (-1, 0)), IMAGE),
    "max_pool2d: ceil_mode, dilation and": (lambda m, x: functional.max_pool2d(x, 2, dilation=2), IMAGE),
    "avg_pool2d: ceil_mode, dilation and": (lambda m, x: functional.avg_pool2d(x, 2, divisor_override=3), IMAGE),
    "layer_norm: over several axes, or without": (lambda m, x: functional.layer_norm(x, x.shape[1:]), IMAGE),
    "linear: a linear layer over 3 axes; ncnn takes 1 or 2": (
        lambda m, x: m.rows(x), (2, 8, 8, 6),
    ),
    "ncnn has no select here: slice and reshape instead": (lambda m, x: x[:, 0], IMAGE),
    "ncnn has no scaled_dot_product_attention here: use litert or onnxruntime": (
        lambda m, x: functional.scaled_dot_product_attention(x, x, x), IMAGE,
    ),
    "a tensor of int64: ncnn computes in float32": (lambda m, x: x * x.argmax(1, keepdim=True), IMAGE),
}  # fmt: skip


@pytest.mark.parametrize("cause", REFUSED)
def test_a_form_that_is_not_there_is_told_with_its_cause(exported, picture, tmp_path, cause):
    function, shape = REFUSED[cause]
    model = exported(Call(function), picture(0, *shape))
    found = Ncnn().refusals(model)
    assert all(fault.where in model.graph.by_key for fault in found)
    assert any(cause in fault.cause for fault in found), found or [node.op for node in model.graph.nodes]
    with pytest.raises(ConversionError) as caught:
        Ncnn().lower(model, Encodings.none(), tmp_path)
    assert caught.value.faults == found
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def network(exported, picture):
    """A layer, a norm and an activation."""
    net = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.ReLU())
    return exported(net, picture(0, 2, 6))


def activation(scale, zero=128):
    return Affine(8, False, None, np.array(scale, np.float32), np.array(zero, np.int32))


ROWS = np.full(4, 0.1, np.float32)
NO_PLACE = {
    "a weight of four bits": ("0:linear#0:weight", affine.symmetric(ROWS, 4, 0), "symmetric int8"),
    "a weight along its inputs": (
        "0:linear#0:weight", affine.symmetric(np.full(6, 0.1, np.float32), 8, 1), "along axis 0, not 1",
    ),
    "a palette": ("0:linear#0:weight", Codebook(2, np.arange(4, dtype=np.float32)), "as Affine or float16"),
    "the weight of a norm": ("1:layer_norm#0:weight", Float("float16"), "layer_norm stays in float32"),
    "zero in the wrong place": ("2:relu#0:out", activation(0.1, 0), "the code 0 here instead of 128"),
    "a scale of no inverse": ("2:relu#0:out", activation(1e-39), "no float32 inverse"),
    "scales at run time": ("0:linear#0:in", Dynamic(), "quantizes no input at run time"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_PLACE)
def test_an_encoding_that_has_no_place_is_told_by_its_key(network, tmp_path, name):
    key, encoding, cause = NO_PLACE[name]
    shape = network.weights["0.weight"].shape
    integers = {key: np.zeros(shape, np.int32)} if isinstance(encoding, Affine | Codebook) and "weight" in key else {}
    found = faults(network, Encodings({key: encoding}, integers))
    assert [(fault.where, cause in fault.cause) for fault in found] == [(key, True)], found
    with pytest.raises(ConversionError, match="cannot hold these encodings") as caught:
        Ncnn().lower(network, Encodings({key: encoding}, integers), tmp_path)
    assert caught.value.faults == found


def test_what_has_a_place_is_not_told(network):
    held = {"0:linear#0:weight": affine.symmetric(ROWS, 8, 0), "2:relu#0:out": activation(0.1)}
    assert faults(network, Encodings(held, {"0:linear#0:weight": np.zeros((4, 6), np.int32)})) == ()
    assert faults(network, Encodings({"0:linear#0:weight": Float("float16")})) == ()


def test_two_inputs_of_one_name_and_a_layer_of_a_name_with_spaces(network):
    twice = replace(network, outputs=(replace(network.outputs[0], name=network.inputs[0].name),))
    assert [fault.cause for fault in Ncnn().refusals(twice)] == ["an input and an output have one name"]
    long = replace(network, outputs=(replace(network.outputs[0], name="y" * 201),))
    assert ["1 to 200 characters" in fault.cause for fault in Ncnn().refusals(long)] == [True]
    fits = replace(network, outputs=(replace(network.outputs[0], name="y" * 200),))
    assert Ncnn().refusals(fits) == ()
