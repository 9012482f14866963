"""Pads that a convolution does itself, and those that stay; orders of axes and cuts, one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as f

from haversack.base.encodings import Encodings
from haversack.targets.ncnn.padding import absorbed


class Padded(nn.Module):
    """A pad before a convolution, and what is done beside it."""

    def __init__(self, pads, beside=None, value=0.0, **settings):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, **settings)
        self.pads, self.beside, self.value = pads, beside, value

    def forward(self, x):
        padded = f.pad(x, self.pads, value=self.value)
        y = self.conv(padded)
        return y if self.beside is None else (y, self.beside(padded))


ABSORBED = {
    "all sides": (Padded((1, 1, 1, 1)), (1, 1, 1, 1)),
    "each side its own": (Padded((0, 1, 2, 3)), (0, 1, 2, 3)),
    "the width alone": (Padded((2, 1)), (2, 1, 0, 0)),
    "beside its own": (Padded((0, 1, 0, 1), padding=1), (0, 1, 0, 1)),
    "under a stride": (Padded((0, 1, 0, 1), stride=2), (0, 1, 0, 1)),
    "groups": (Padded((1, 0, 1, 0), groups=1, dilation=2), (1, 0, 1, 0)),
}
STAYS = {
    "ones": Padded((1, 1, 1, 1), value=1.0),
    "read twice": Padded((1, 1, 1, 1), beside=torch.tanh),
    "an output": Padded((1, 1, 1, 1), beside=lambda padded: padded),
    "a cut": Padded((-1, 1, 0, 0)),
    "padding in words": Padded((1, 1, 1, 1), padding="same"),
}


@pytest.mark.parametrize("name", ABSORBED)
def test_a_pad_of_zeros_becomes_the_convolutions(name, exported, picture, lower):
    net, pads = ABSORBED[name]
    x = picture(1, 2, 2, 7, 8)
    model = exported(net, x)
    (found,) = absorbed(model.graph, Encodings.none()).values()
    assert found.pads == pads
    one = lower(model, Encodings.none())
    assert "Padding" not in one.path.read_text()
    with torch.no_grad():
        np.testing.assert_allclose(one.file(x)[0], net(torch.from_numpy(x)).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", STAYS)
def test_another_pad_stays(name, exported, picture):
    net = STAYS[name]
    model = exported(net, picture(1, 2, 2, 7, 8))
    assert absorbed(model.graph, Encodings.none()) == {}


def test_a_pad_with_an_encoding_of_its_own_stays(exported, planned, picture):
    x = picture(1, 2, 2, 7, 8)
    model = exported(ABSORBED["all sides"][0], x)
    encodings = planned(model, [(x,)])
    (key,) = absorbed(model.graph, encodings)
    alone = {name: one for name, one in encodings.tensors.items() if name != f"{key}:out"}
    assert f"{key}:out" in encodings.tensors
    assert absorbed(model.graph, Encodings(alone, encodings.integers)) == {}


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_convolution_gives_the_bits_with_its_pad(exported, planned, picture, lower, precision):
    x = picture(2, 3, 2, 7, 8)
    model = exported(ABSORBED["each side its own"][0], x)
    one = lower(model, Encodings.none() if precision == "float32" else planned(model, [(x,)]))
    assert bool(one.artifact.absorbed) is (precision == "int8")
    if precision == "int8":
        np.testing.assert_array_equal(one.file(x)[0], one.reference(x)[0])
    else:
        np.testing.assert_allclose(one.file(x)[0], one.reference(x)[0], rtol=1e-4, atol=1e-5)


class Many(nn.Module):
    """Functions of one input: an output each."""

    def __init__(self, functions):
        super().__init__()
        self.functions = tuple(functions)

    def forward(self, x):
        return tuple(function(x) * 1.0 for function in self.functions)


ORDERS = [(0, *order) for rank in (2, 3) for order in itertools.permutations(range(1, rank + 1))]
CUTS = [
    (1, None, 2), (1, 1, None), (1, -2, None), (2, None, -1), (2, -4, -1), (3, 2, 5), (3, 0, 100), (3, -100, 3),
]  # fmt: skip


@pytest.fixture(scope="module")
def moved(exported, picture, lowered_once):
    """Order or cut -> (what ncnn gives, what numpy gives)."""
    x = picture(3, 2, 3, 5, 6)
    flat = x.reshape(2, 15, 6)
    functions = [lambda t, o=order: (t if len(o) == 4 else t.reshape(-1, 15, 6)).permute(o) for order in ORDERS]
    functions += [lambda t, c=cut: torch.ops.aten.slice.Tensor(t, *c) for cut in CUTS]
    wanted = [(x if len(order) == 4 else flat).transpose(order) for order in ORDERS]
    wanted += [x[tuple(slice(*ends) if axis == at else slice(None) for at in range(4))] for axis, *ends in CUTS]
    one = lowered_once(exported(Many(functions), x), Encodings.none())
    return dict(zip([*ORDERS, *CUTS], zip(one.file(x), wanted, strict=True), strict=True))


@pytest.mark.parametrize("case", [*ORDERS, *CUTS], ids=str)
def test_moved_values_are_the_same_bits(case, moved):
    found, wanted = moved[case]
    np.testing.assert_array_equal(found, wanted)
