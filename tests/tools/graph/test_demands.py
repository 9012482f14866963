"""What the integer kernels demand, on graphs written by hand."""

from __future__ import annotations

import pytest

from haversack.base.constraints import Ratio
from haversack.base.graph import Graph, Node, TensorSpec
from haversack.tools.graph.demands import demands

INFINITY = float("inf")


def node(key, inputs=(), shape=("batch", 4, 6, 8), dtype="float32", weight=None, **attributes):
    op = key.partition(":")[2].partition("#")[0]
    return Node(key, op, key, tuple(inputs), TensorSpec(shape, dtype), weight, None, (), attributes)


def graph(*nodes):
    inputs = tuple(n.key for n in nodes if n.op == "input")
    return Graph(nodes, inputs, (nodes[-1].key,))


X, Y = node("x:input#0"), node("y:input#0")


@pytest.mark.parametrize("op", ["view", "flatten", "transpose", "permute", "max_pool2d", "dropout", "slice", "expand"])
def test_moved_values_are_tied(op):
    found = demands(graph(X, node(f":{op}#0", ["x:input#0"])))
    assert found.ties == (frozenset({"x:input#0:out", f":{op}#0:out"}),)
    assert op in found.integer_ops


def test_a_zero_pad_is_tied_and_another_is_not():
    pad = node(":pad#0", ["x:input#0"], mode="constant", value=0.0)
    assert len(demands(graph(X, pad)).ties) == 1
    other = node(":pad#0", ["x:input#0"], mode="constant", value=1.0)
    assert demands(graph(X, other)).ties == ()


def test_concatenation_ties_all():
    found = demands(graph(X, Y, node(":cat#0", ["x:input#0", "y:input#0"], dim=1)))
    assert found.ties == (frozenset({"x:input#0:out", "y:input#0:out", ":cat#0:out"}),)


def test_indices_are_not_tied():
    tokens = node("x:input#0", dtype="int64")
    assert demands(graph(tokens, node(":view#0", ["x:input#0"], dtype="int64"))).ties == ()


def test_adds_have_ratios():
    found = demands(graph(X, Y, node(":add#0", ["x:input#0", "y:input#0"], alpha=1)))
    assert found.ratios == (
        Ratio("x:input#0:out", ":add#0:out", 501, 1),
        Ratio("y:input#0:out", ":add#0:out", 501, 1),
    )


def test_the_ratio_of_an_add_goes_to_the_clamp_behind_it():
    nodes = [X, Y, node(":add#0", ["x:input#0", "y:input#0"], alpha=1), node("r:relu#0", [":add#0"])]
    found = demands(graph(*nodes))
    assert {ratio.output for ratio in found.ratios} == {"r:relu#0:out"}
    assert found.bounds == {"r:relu#0:out": (0.0, INFINITY)}


def test_a_tensor_added_to_itself_has_one_ratio():
    found = demands(graph(X, node(":add#0", ["x:input#0", "x:input#0"], alpha=1)))
    assert len(found.ratios) == 1


@pytest.mark.parametrize(
    ("height", "width", "multiple"), [(7, 7, 1), (8, 8, 64), (6, 8, 16), (1, 1, 1), (14, 7, 2), ("h", 7, 1)]
)
def test_means_have_a_multiple(height, width, multiple):
    source = node("x:input#0", shape=("batch", 4, height, width))
    found = demands(graph(source, node(":mean#0", ["x:input#0"], ("batch", 4), dim=[2, 3], keepdim=False)))
    count = 0 if height == "h" else height * width
    assert found.ratios == (Ratio("x:input#0:out", ":mean#0:out", 501, multiple, count),)


@pytest.mark.parametrize(
    ("op", "attributes", "bounds"),
    [
        ("relu", {}, (0.0, INFINITY)),
        ("relu6", {}, (0.0, 6.0)),
        ("hardtanh", {"min_val": -1, "max_val": 1}, (-1.0, 1.0)),
        ("clamp", {"min": None, "max": 2.5}, (-INFINITY, 2.5)),
    ],
)
@pytest.mark.parametrize("fused", [True, False])
def test_clamps_bound_their_output(op, attributes, bounds, fused):
    conv = node("c:conv2d#0", ["x:input#0"], weight="w")
    nodes = [X, conv, node(f":{op}#0", ["c:conv2d#0"], **attributes)]
    if not fused:
        nodes.append(node(":mul#0", ["c:conv2d#0", f":{op}#0"]))
    assert demands(graph(*nodes)).bounds == {f":{op}#0:out": bounds}


def test_the_ops_with_integer_kernels():
    conv = node("c:conv2d#0", ["x:input#0"], weight="w")
    nodes = [X, conv, node(":softmax#0", ["c:conv2d#0"]), node(":add#0", [":softmax#0", "c:conv2d#0"], alpha=1)]
    found = demands(graph(*nodes))
    assert found.integer_ops == {"conv2d", "add"}
    assert found.fixed == {}
