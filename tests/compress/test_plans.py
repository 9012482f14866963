from __future__ import annotations

import pytest
import torch
from torch import nn

from haversack.base.plan import LayerPlan, Step
from haversack.compress.plans import float_first, uniform


class Everything(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.conv = nn.Conv1d(4, 3, 1)
        self.layer = nn.Linear(3, 2)

    def forward(self, ids):
        return torch.softmax(self.layer(self.conv(self.table(ids).transpose(1, 2)).mean(dim=2)), dim=1)


@pytest.fixture(scope="module")
def graph(make_model):
    return make_model(Everything(), (6,), dtype=torch.long).graph


TABLE, CONV, LAYER = "table:embedding#0", "conv:conv1d#0", "layer:linear#0"


@pytest.mark.parametrize(
    "precision, integer_ops, want",
    [
        ("float32", None, {}),
        ("float16", None, {TABLE: "float16", CONV: "float16", LAYER: "float16"}),
        ("int8", None, {TABLE: "int8_weights", CONV: "int8", LAYER: "int8"}),
        ("int8", frozenset({"linear"}), {TABLE: "int8_weights", LAYER: "int8"}),
        ("int8_weights", frozenset(), {TABLE: "int8_weights", CONV: "int8_weights", LAYER: "int8_weights"}),
        ("int8_dynamic", None, {TABLE: "int8_weights", CONV: "int8_weights", LAYER: "int8_dynamic"}),
    ],
)
def test_each_layer_gets_the_precision_or_the_nearest(graph, precision, integer_ops, want):
    found = uniform(graph, precision, integer_ops=integer_ops)
    assert {key: plan.precision for key, plan in found.items()} == want


def test_granularity_and_quantizer_reach_the_layers_and_tables_keep_rows(graph):
    found = uniform(graph, "int8_weights", granularity="tensor", weights=Step("mse"))
    assert found[LAYER] == LayerPlan("int8_weights", "tensor", Step("mse"))
    assert found[TABLE] == LayerPlan("int8_weights", "channel", Step("mse"))


def test_the_order_is_the_graphs(graph):
    assert list(uniform(graph, "int8")) == [TABLE, CONV, LAYER]


def test_the_layers_that_read_an_input_may_stay_in_float(make_model):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.near = nn.Conv2d(2, 3, 3)
            self.far = nn.Conv2d(3, 3, 1)
            self.side = nn.Conv2d(2, 3, 3)

        def forward(self, x):
            padded = nn.functional.pad(x, [1, 1, 1, 1])
            return self.far(self.near(padded)) + self.side(padded)

    graph = make_model(Two(), (2, 4, 4)).graph
    layers = uniform(graph, "int8")
    assert list(layers) == ["near:conv2d#0", "far:conv2d#0", "side:conv2d#0"]
    assert float_first(graph, layers) == {"far:conv2d#0": layers["far:conv2d#0"]}
