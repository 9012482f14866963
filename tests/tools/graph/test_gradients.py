"""Squared gradients: against derivatives taken one output at a time, and where there are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from haversack.tools.graph.gradients import squared_gradients


@pytest.fixture(scope="module")
def linear(make):
    torch.manual_seed(0)
    return make(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)), np.zeros((2, 5), np.float32))


@pytest.fixture(scope="module")
def make():
    from haversack.tools.graph import canonical

    def made(module, example):
        tensor = torch.from_numpy(example)
        free = ({0: torch.export.Dim.AUTO},)
        return canonical.to_model(torch.export.export(module.eval(), (tensor,), dynamic_shapes=free), "tiny")

    return made


def rows(count, width, seed=0):
    return [(row[None],) for row in np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)]


def test_of_one_output_it_is_the_square_of_its_derivative(linear):
    samples = rows(7, 5)
    found = squared_gradients(linear, ["0.weight", "2.weight"], samples)
    first, second, bias = (torch.from_numpy(linear.weights[name]) for name in ("0.weight", "2.weight", "0.bias"))
    wanted = {"0.weight": 0.0, "2.weight": 0.0}
    for (row,) in samples:
        x = torch.from_numpy(row[0])
        hidden = torch.tanh(first @ x + bias)
        outer = second[0] * (1 - hidden**2)
        wanted["2.weight"] += (hidden**2)[None].numpy() / len(samples)
        wanted["0.weight"] += (outer[:, None] * x[None]).square().numpy() / len(samples)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4)
        assert found[name].dtype == np.float32


def test_of_many_outputs_it_is_their_sum_on_average(make):
    torch.manual_seed(1)
    model = make(nn.Linear(6, 8), np.zeros((2, 6), np.float32))
    samples = rows(400, 6)
    (found,) = squared_gradients(model, ["weight"], samples).values()
    wanted = np.mean([np.square(row[0]) for (row,) in samples], axis=0)
    np.testing.assert_allclose(found, np.broadcast_to(wanted, (8, 6)), rtol=1e-4)  # a weight moves one output only


def test_it_is_the_same_every_time_and_leaves_the_model_alone(linear):
    before = {name: value.copy() for name, value in linear.weights.items()}
    one, two = (squared_gradients(linear, ["0.weight"], rows(3, 5)) for _ in range(2))
    assert one["0.weight"].tobytes() == two["0.weight"].tobytes()
    assert all(np.array_equal(value, before[name]) for name, value in linear.weights.items())


class Chooser(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(5, 4)

    def forward(self, x):
        return self.inner(x).argmax(-1)


def test_where_no_output_has_a_derivative_there_is_nothing(make):
    model = make(Chooser(), np.zeros((2, 5), np.float32))
    assert squared_gradients(model, ["inner.weight"], rows(3, 5)) == {}


class Idle(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.off = nn.Linear(5, 4), nn.Linear(5, 4)

    def forward(self, x):
        return self.used(x), self.off(x).argmax(-1)


def test_a_weight_that_no_float_output_depends_on_is_left_out(make):
    model = make(Idle(), np.zeros((2, 5), np.float32))
    assert set(squared_gradients(model, ["used.weight", "off.weight"], rows(3, 5))) == {"used.weight"}


class Heads(nn.Module):
    """Two heads on one layer; the second gives its numbers in other units."""

    def __init__(self, unit):
        super().__init__()
        torch.manual_seed(4)
        self.trunk, self.one, self.two = nn.Linear(5, 4), nn.Linear(4, 3), nn.Linear(4, 2)
        self.unit = unit

    def forward(self, x):
        x = torch.tanh(self.trunk(x))
        return self.one(x), self.two(x) * self.unit


def test_each_output_counts_by_its_own_size(make):
    """In micrometres or in metres, a head is worth the same, and so are the weights before it."""
    small, same, large = (
        squared_gradients(make(Heads(unit), np.zeros((2, 5), np.float32)), ["trunk.weight"], rows(9, 5))["trunk.weight"]
        for unit in (1e-3, 1.0, 1e3)
    )
    np.testing.assert_allclose(small, same, rtol=1e-4)
    np.testing.assert_allclose(large, same, rtol=1e-4)


def test_without_samples_there_is_nothing(linear):
    assert squared_gradients(linear, ["0.weight"], []) == {}
