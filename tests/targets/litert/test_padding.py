"""Padding: SAME and VALID against PyTorch's sides, and which pads of a graph a convolution does itself."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Affine, Encodings
from haversack.base.graph import Node, TensorSpec
from haversack.targets.litert import padding
from haversack.tools.graph.program import Program


def node(pads, mode="constant"):
    spec = TensorSpec((1, 3, 8, 8), "float32")
    return Node("p:pad#0", "pad", "pad", ("x:input#0",), spec, attributes={"pad": pads, "mode": mode})


@pytest.mark.parametrize(
    "size, kernel, stride, sides, wanted",
    [
        (8, 3, 1, (1, 1), "SAME"),
        (8, 3, 2, (0, 1), "SAME"),
        (8, 3, 2, (1, 1), ""),
        (9, 3, 2, (1, 1), "SAME"),
        (8, 5, 1, (2, 2), "SAME"),
        (8, 1, 1, (0, 0), "VALID"),
        (8, 3, 1, (0, 0), "VALID"),
        (8, 2, 1, (0, 1), "SAME"),
        (8, 2, 1, (1, 0), ""),
        (7, 1, 2, (0, 0), "VALID"),
        (224, 3, 2, (0, 1), "SAME"),
        (8, 3, 1, (2, 2), ""),
    ],
)
def test_schemes(size, kernel, stride, sides, wanted):
    found = padding.scheme([size, size], [kernel] * 2, [stride] * 2, [1, 1], (sides, sides))
    assert found == wanted


def test_dilation_counts():
    assert padding.scheme([8, 8], [3, 3], [1, 1], [2, 2], ((2, 2), (2, 2))) == "SAME"
    assert padding.scheme([8, 8], [3, 3], [1, 1], [2, 2], ((1, 1), (1, 1))) == ""


def test_axes_may_differ_but_not_in_their_scheme():
    assert padding.scheme([8, 9], [3, 1], [1, 1], [1, 1], ((1, 1), (0, 0))) == "SAME"
    assert padding.scheme([8, 8], [3, 3], [1, 1], [1, 1], ((1, 1), (0, 0))) == ""


@pytest.mark.parametrize(
    "given, kernel, wanted",
    [
        ([1, 2], [3, 5], ((1, 1), (2, 2))),
        ([0], [3, 3], ((0, 0), (0, 0))),
        (1, [3], ((1, 1),)),
        ("valid", [3, 3], ((0, 0), (0, 0))),
        ("same", [3, 4], ((1, 1), (1, 2))),
    ],
)
def test_what_a_convolution_pads(given, kernel, wanted):
    assert padding.own({"padding": given, "dilation": [1]}, kernel) == wanted


@pytest.mark.parametrize(
    "pads, rank, wanted",
    [
        ([1, 2], 2, ((0, 0), (1, 2))),
        ([1, 2, 3, 4], 2, ((3, 4), (1, 2))),
        ([0, 0, 0, 0, 1, 1], 2, None),
        ([0, 0, 0, 0, 1, 1], 3, ((1, 1), (0, 0), (0, 0))),
        ([-1, 0], 2, None),
        (["s0", 0], 2, None),
    ],
)
def test_sides_of_a_pad(pads, rank, wanted):
    assert padding.sides_of(node(pads), rank) == wanted


def test_joined_sides_add_up():
    assert padding.joined(((0, 1), (2, 3)), ((1, 1), (1, 1))) == ((1, 2), (3, 4))


@pytest.mark.parametrize(
    "pads, stride, readers, wanted",
    [
        ((0, 1, 0, 1), 2, 1, True),
        ((1, 1, 1, 1), 1, 1, True),
        ((1, 1, 1, 1), 1, 2, True),
        ((1, 1, 1, 1), 2, 1, False),
        ((2, 0, 2, 0), 1, 1, False),
        ((1, 1, 1, 1), 1, 0, False),
    ],
)
def test_pads_that_a_convolution_does(exported, pads, stride, readers, wanted):
    import torch
    from torch import nn

    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.pad = nn.ZeroPad2d(pads)
            self.convs = nn.ModuleList(nn.Conv2d(2, 3, 3, stride) for _ in range(readers))

        def forward(self, x):
            x = self.pad(x)
            return torch.cat([conv(x) for conv in self.convs], 1) if readers else torch.relu(x)

    model = exported(Padded(), np.zeros((2, 2, 8, 8), np.float32))
    found = padding.absorbed(model.graph, Program(model, {"batch": 1}), Encodings.none())
    assert found == ({"pad:pad#0": "x:input#0"} if wanted else {})


def test_a_pad_with_an_encoding_of_its_own_stays(exported):
    from torch import nn

    model = exported(nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(2, 3, 3)), np.zeros((2, 2, 8, 8), np.float32))
    source, pad = (f"{node.key}:out" for node in model.graph.nodes[:2])

    def grid(scale):
        return Affine(8, False, None, np.array(scale, np.float32), np.array(3, np.int32))

    program = Program(model, {"batch": 1})
    for tensors, count in (
        ({source: grid(1), pad: grid(1)}, 1),
        ({source: grid(1), pad: grid(2)}, 0),
        ({pad: grid(1)}, 0),
        ({source: grid(1)}, 1),
    ):
        assert len(padding.absorbed(model.graph, program, Encodings(tensors))) == count
