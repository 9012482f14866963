"""A squeeze of a free axis is refused at export, at the layer that would get too few axes; any other is exported."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from haversack.base.errors import ConversionError
from haversack.load import export


class Net(nn.Module):
    """Features of images through a squeeze into a linear layer."""

    def __init__(self, squeeze):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(8, 4)
        self.squeeze = squeeze

    def forward(self, x):
        return self.head(self.squeeze(self.body(x)))


class Alone(nn.Module):
    def forward(self, x):
        return torch.relu(x).squeeze(0)


def exported(as_job, module, **settings):
    images = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)
    return export(as_job(module.eval(), (images,), **settings))


@pytest.mark.parametrize("axes", [0, -4, (0, 2, 3)], ids=["zero", "minus-four", "several"])
def test_the_layer_behind_it_is_told(as_job, axes):
    with pytest.raises(ConversionError) as caught:
        exported(as_job, Net(lambda x: x.squeeze(axes).reshape(-1, 8)))
    error = caught.value
    assert error.where == "head"
    assert error.cause.startswith("with one sample head gets an input without its batch")
    (fault,) = error.faults
    assert fault.where == "the root module"
    assert "takes away axis 0, which is free" in fault.cause
    assert "leave that squeeze() out" in error.next_step
    assert error.exit_code == 4


def test_without_a_layer_behind_it_the_call_is_the_place(as_job):
    with pytest.raises(ConversionError, match="its output has no batch") as caught:
        exported(as_job, nn.Sequential(nn.ReLU(), Alone()))
    assert caught.value.where == "1"
    assert ".squeeze(0)" in caught.value.faults[0].cause


@pytest.mark.parametrize("squeeze", [lambda x: x.squeeze(), lambda x: x.squeeze(-1).squeeze(2)], ids=["bare", "named"])
def test_axes_of_length_one_are_no_matter(as_job, squeeze):
    model = exported(as_job, Net(squeeze))
    (head,) = [node for node in model.graph.nodes if node.op == "linear"]
    assert head.output.shape == ("batch", 4)


def test_where_the_lengths_are_fixed_it_is_no_matter_either(as_job):
    model = exported(as_job, Net(lambda x: x[:1].squeeze(0).flatten()), dims={"x": {}})
    (head,) = [node for node in model.graph.nodes if node.op == "linear"]
    assert head.output.shape == (4,)
