from __future__ import annotations

import pytest

from haversack.base.errors import VerificationError
from haversack.base.graph import Graph, Node, TensorSpec
from haversack.profile.layers import layers

SPEC = TensorSpec((1, 2), "float32")
GRAPH = Graph(
    (
        Node("x:input#0", "input", "x", (), SPEC),
        Node("a:linear#0", "linear", "a", ("x:input#0",), SPEC),
        Node("b:linear#0", "linear", "b", ("a:linear#0",), SPEC),
    ),
    ("x:input#0",),
    ("b:linear#0",),
)


def test_seconds_by_target_in_execution_order():
    found = layers(GRAPH, {"one": lambda: {"b:linear#0": 2e-3, "a:linear#0": 1e-3}, "two": lambda: {"a:linear#0": 1}})
    assert found == {"one": {"a:linear#0": 1e-3, "b:linear#0": 2e-3}, "two": {"a:linear#0": 1.0}}
    assert list(found["one"]) == ["a:linear#0", "b:linear#0"]


@pytest.mark.parametrize(
    "seconds, cause, where",
    [
        ({"c:linear#0": 1.0}, "nodes that the model does not have", "c:linear#0"),
        ({"a:linear#0": float("nan")}, "no seconds", "a:linear#0"),
        ({"a:linear#0": -1.0, "b:linear#0": float("inf")}, "no seconds", "a:linear#0, b:linear#0"),
    ],
)
def test_what_was_not_measured_does_not_look_measured(seconds, cause, where):
    with pytest.raises(VerificationError, match=cause) as caught:
        layers(GRAPH, {"onnxruntime": lambda: seconds})
    assert caught.value.where == where
    assert "onnxruntime" in caught.value.cause


@pytest.mark.parametrize("seconds", [{}, {"a:linear#0": 0.0}])
def test_a_target_that_times_no_layer_has_no_times_and_ends_nothing(seconds):
    found = layers(GRAPH, {"silent": lambda: seconds, "one": lambda: {"a:linear#0": 1.0}})
    assert found == {"one": {"a:linear#0": 1.0}}
