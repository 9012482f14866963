from __future__ import annotations

import pytest
import torch
from torch import nn

from haversack.base.constraints import Constraints
from haversack.base.errors import ConversionError, UsageError
from haversack.base.plan import LayerPlan, Plan
from haversack.compress.selection import bears, check, holdable, integer_tensors

OPS = frozenset({"conv2d", "linear", "add", "pad", "mean", "cat", "view", "max_pool2d", "flatten"})


class Mixed(nn.Module):
    """Two convolutions joined by an add, a softmax between linear layers, and a table."""

    def __init__(self):
        super().__init__()
        self.left = nn.Conv2d(2, 4, 1)
        self.right = nn.Conv2d(2, 4, 1)
        self.after = nn.Conv2d(4, 4, 1)
        self.first = nn.Linear(4, 4)
        self.last = nn.Linear(4, 4)

    def forward(self, x):
        x = nn.functional.pad(x, [1, 1, 1, 1])
        both = torch.relu(self.left(x) + self.right(x))
        y = nn.functional.max_pool2d(self.after(both), 2).mean(dim=[2, 3])
        return self.last(torch.softmax(self.first(y), dim=1))


@pytest.fixture(scope="module")
def graph(make_model):
    return make_model(Mixed(), (2, 4, 4)).graph


def plan(*names, precision="int8"):
    ops = {"first": "linear", "last": "linear"}
    return Plan("t", {f"{name}:{ops.get(name, 'conv2d')}#0": LayerPlan(precision) for name in names})


LEFT, RIGHT, AFTER = "left:conv2d#0:out", "right:conv2d#0:out", "after:conv2d#0:out"
PAD, X, RELU = ":pad#0:out", "x:input#0:out", ":relu#0:out"
POOL, MEAN = ":max_pool2d#0:out", ":mean#0:out"
FIRST, LAST, SOFTMAX = "first:linear#0:out", "last:linear#0:out", ":softmax#0:out"


@pytest.mark.parametrize(
    "names, tensors",
    [
        ((), set()),
        (("left", "right"), {X, PAD, LEFT, RIGHT, RELU}),  # the add and its relu follow
        (("left",), {X, PAD, LEFT}),  # the add stays in float: the right side does
        (("after",), {RELU, AFTER, POOL, MEAN}),  # the pool and the mean follow, a float add is rounded
        (("first",), {MEAN, FIRST}),  # a mean of float values is rounded, the pool is left alone
        (("first", "last"), {MEAN, FIRST, SOFTMAX, LAST}),  # softmax runs in float between integers
        (
            ("left", "right", "after", "first", "last"),
            {X, PAD, LEFT, RIGHT, RELU, AFTER, POOL, MEAN, FIRST, SOFTMAX, LAST},
        ),
    ],
)
def test_which_tensors_hold_integers(graph, names, tensors):
    assert integer_tensors(graph, plan(*names), OPS) == tensors


@pytest.mark.parametrize("precision", ["float32", "float16", "int8_weights", "int8_dynamic"])
def test_only_static_layers_make_tensors_integers(graph, precision):
    assert integer_tensors(graph, plan("left", "after", precision=precision), OPS) == frozenset()


def test_without_a_kernel_an_op_does_not_follow(graph):
    found = integer_tensors(graph, plan("left", "right"), OPS - {"add", "pad"})
    assert found == {PAD, LEFT, RIGHT}


@pytest.mark.parametrize(
    ("floats", "kept", "tensors"),
    [
        ((), ("left", "right", "after"), {X, PAD, LEFT, RIGHT, RELU, AFTER, POOL, MEAN}),
        ((LEFT,), ("right", "after"), {X, PAD, RIGHT, RELU, AFTER, POOL, MEAN}),  # read in float by a float add
        ((PAD,), ("after",), {RELU, AFTER, POOL, MEAN}),
        ((RELU,), ("left", "right"), {X, PAD, LEFT, RIGHT}),  # nor does the add have a place for what it gives
        ((X, POOL), ("left", "right", "after"), {PAD, LEFT, RIGHT, RELU, AFTER}),
        (("gone:conv2d#0:out",), ("left", "right", "after"), {X, PAD, LEFT, RIGHT, RELU, AFTER, POOL, MEAN}),
    ],
)
def test_layers_beside_a_tensor_without_a_place_stay_float_and_are_told(graph, floats, kept, tensors):
    asked = plan("left", "right", "after")
    found, told = holdable(graph, asked, Constraints(integer_ops=OPS, floats=frozenset(floats)))
    assert found.layers == plan(*kept).layers
    assert {finding.layer for finding in told} == {"left", "right", "after"} - {*kept}
    assert all(finding.kind == "kept-in-float" and finding.severity == "warning" for finding in told)
    assert all(any(key in finding.text for key in floats) for finding in told)
    assert integer_tensors(graph, found, OPS, floats) == tensors


def test_weights_stored_for_float_need_no_place(graph):
    asked = plan("left", precision="int8_weights")
    assert holdable(graph, asked, Constraints(floats=frozenset({LEFT}))) == (asked, ())


def test_moved_values_are_rounded_at_their_source_only_if_nobody_else_reads_it(make_model):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1)

        def forward(self, x):
            y = torch.sigmoid(x)
            return self.conv(nn.functional.pad(y, [1, 1])), y * 2

    found = integer_tensors(make_model(Shared(), (2, 3, 3)).graph, Plan("t", {"conv:conv2d#0": LayerPlan()}), OPS)
    assert found == {":pad#0:out", "conv:conv2d#0:out"}


def test_what_a_node_bears(make_model):
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 4)
            self.layer = nn.Linear(4, 2)

        def forward(self, ids):
            return torch.softmax(self.layer(self.table(ids)), dim=-1)

    graph = make_model(Table(), (3,), dtype=torch.long).graph
    nodes = {node.op: node for node in graph.nodes}
    assert [p for p in ("float16", "int8", "int8_dynamic", "int8_weights") if bears(nodes["embedding"], p)] == [
        "float16",
        "int8_weights",
    ]
    assert all(bears(nodes["linear"], p) for p in ("float32", "float16", "int8", "int8_dynamic", "int8_weights"))
    assert not any(bears(nodes["softmax"], p) for p in ("float32", "int8"))


def test_all_that_does_not_fit_is_told_at_once(graph):
    wrong = Plan("t", {"gone:conv2d#0": LayerPlan(), ":softmax#0": LayerPlan("int8"), "left:conv2d#0": LayerPlan()})
    with pytest.raises(UsageError) as caught:
        check(graph, wrong, Constraints(integer_ops=OPS))
    assert [fault.where for fault in caught.value.faults] == ["gone:conv2d#0", ":softmax#0"]


def test_a_layer_without_a_kernel_is_named(graph):
    with pytest.raises(ConversionError) as caught:
        check(graph, plan("left", "first"), Constraints(integer_ops=frozenset({"conv2d"})))
    assert [str(fault) for fault in caught.value.faults] == ["first: t has no integer kernel for linear"]
    check(graph, plan("first", precision="int8_weights"), Constraints())
