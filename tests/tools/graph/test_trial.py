"""Trial encodings: as many codes as a graph holds, and what a writer refuses becomes a constraint."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from haversack.base.errors import Fault
from haversack.tools.graph import trial
from haversack.tools.graph.demands import demands
from haversack.tools.graph.law import constants


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(2, 2, 1) for _ in range(3))

    def forward(self, x):
        return self.third(torch.sigmoid(self.second(torch.relu(self.first(x)))))


X, FIRST, SECOND, SIGMOID, THIRD = (
    "x:input#0:out",
    ":relu#0:out",
    "second:conv2d#0:out",
    ":sigmoid#0:out",
    "third:conv2d#0:out",
)


@pytest.fixture
def model(model_of):
    return model_of(Chain(), torch.zeros(2, 2, 3, 3))


def test_all_that_can_be_is_encoded(model):
    found = trial.encodings(model, demands(model.graph))
    weights = {f"{name}:conv2d#0:weight" for name in ("first", "second", "third")}
    assert found.tensors.keys() == {X, FIRST, SECOND, SIGMOID, THIRD} | weights
    assert found.integers.keys() == weights
    for key in weights:
        assert found.integers[key].shape == (2, 2, 1, 1)
        assert not found.integers[key].any()
        assert found.integers[key].strides == (0, 0, 0, 0), "one zero stands for all"


@pytest.mark.parametrize(
    ("refused", "floats"),
    [
        ((), set()),
        ((SIGMOID,), {SIGMOID}),
        (("first:conv2d#0",), {FIRST}),  # a layer's fault: what leaves it, behind its clamp
        (("first:conv2d#0:weight",), {FIRST}),
        (("third:conv2d#0:in",), {THIRD}),
        (("gone:conv2d#0:out", "the file", ""), set()),  # nothing of this graph: the plan will tell
    ],
)
def test_what_a_writer_refuses_stays_float(model, refused, floats):
    asked = []

    def writer(encodings):
        asked.append(set(encodings.tensors))
        return [Fault(where, "no") for where in refused if where in encodings.tensors or ":out" not in where]

    assert trial.placeless(model, demands(model.graph), writer) == floats
    assert len(asked) <= 3, "a refused tensor is not asked for again"
    assert not asked[-1] & floats


def test_layers_beside_a_refused_tensor_hold_no_integers(model):
    left = trial.encodings(model, replace(demands(model.graph), floats=frozenset({SIGMOID})))
    assert left.tensors.keys() == {X, FIRST, SECOND, "first:conv2d#0:weight", "second:conv2d#0:weight"}


def test_what_depends_on_no_input_is_constant(model_of):
    class State(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.offset = nn.Parameter(torch.ones(4))

        def forward(self, x):
            state = torch.zeros(x.shape[0], 4).unbind(0)[0]
            return self.layer(state + self.offset) + self.layer(x)

    graph = model_of(State(), torch.zeros(2, 4)).graph
    found = constants(graph)
    ops = {graph.by_key[key].op for key in found}
    assert {"zeros", "unbind", "getitem"} <= ops
    assert "linear" not in ops, "a layer's weights are the user's to change"
    assert {f"{key}:out" for key in found} == demands(graph).floats
