"""The graph as plain data, and the model that carries it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from haversack.base.graph import Graph, Node, TensorSpec
from haversack.base.model import Model, Port

SPEC = TensorSpec(("batch", 4), "float32")


def node(key, *inputs, op="", **more):
    return Node(key, op or key.split(":")[1].split("#")[0], key, inputs, SPEC, **more)


def diamond():
    """x -> a -> (b, c) -> d, and d reads b twice."""
    return Graph(
        (
            node(":input#0"),
            node("a:linear#0", ":input#0", weight="a.w", bias="a.b", parameters=("a.w", "a.b"), macs=16),
            node("b:relu#0", "a:linear#0"),
            node("c:linear#0", "a:linear#0", weight="a.w", parameters=("a.w",), macs=16),
            node("d:cat#0", "b:relu#0", "c:linear#0", "b:relu#0", attributes={"dim": 1}),
        ),
        (":input#0",),
        ("d:cat#0",),
    )


def model(**weights):
    values = {"a.w": np.ones((4, 4), np.float32), "a.b": np.zeros(4, np.float32), "unused": np.zeros(9, np.float32)}
    ports = (Port("x", SPEC),), (Port("y", SPEC),)
    return Model("m", diamond(), None, {**values, **weights}, *ports)


@pytest.mark.parametrize(
    "shape, free, count",
    [
        ((), 1, 1),
        ((3, 4), 1, 12),
        (("batch", 3), 1, 3),
        (("batch", 3), 8, 24),
        (("batch", "time"), 5, 25),
        ((0, 4), 1, 0),
    ],
)
def test_elements(shape, free, count):
    assert TensorSpec(shape, "float32").elements(free) == count


def test_a_node_names_its_tensor():
    assert node("a.b:add#3").out == "a.b:add#3:out"


def test_by_key_and_consumers():
    graph = diamond()
    readers = {key: [reader.key for reader in nodes] for key, nodes in graph.consumers.items()}
    assert graph.by_key["c:linear#0"].macs == 16
    assert readers == {
        ":input#0": ["a:linear#0"],
        "a:linear#0": ["b:relu#0", "c:linear#0"],
        "b:relu#0": ["d:cat#0"],  # once, although it is read twice
        "c:linear#0": ["d:cat#0"],
        "d:cat#0": [],
    }


def test_consumers_of_a_node_that_is_not_there():
    with pytest.raises(KeyError):
        _ = Graph((node("a:relu#0", "gone:relu#0"),), (), ()).consumers


def test_the_digest_sees_everything_but_the_exporter_s_names():
    graph = diamond()
    last = graph.nodes[-1]
    changes = [
        {"key": "e:cat#0"},
        {"op": "stack"},
        {"inputs": ("c:linear#0", "b:relu#0", "b:relu#0")},
        {"weight": "a.w"},
        {"bias": "a.b"},
        {"parameters": ("a.w",)},
        {"attributes": {"dim": 2}},
        {"attributes": {}},
        {"output": TensorSpec(("batch", 8), "float32")},
        {"output": TensorSpec(("time", 4), "float32")},
        {"output": TensorSpec(("batch", 4), "float16")},
    ]
    graphs = [Graph((*graph.nodes[:-1], replace(last, **change)), graph.inputs, graph.outputs) for change in changes]
    graphs += [replace(graph, outputs=()), replace(graph, inputs=())]
    digests = [graph.digest, *(each.digest for each in graphs)]
    assert len(set(digests)) == len(digests)
    renamed = Graph((*graph.nodes[:-1], replace(last, name="other", macs=3)), graph.inputs, graph.outputs)
    assert renamed.digest == graph.digest


def test_the_order_of_attributes_does_not_count():
    one = Graph((node("a:conv2d#0", attributes={"stride": [1, 1], "padding": [0, 0]}),), (), ())
    two = Graph((node("a:conv2d#0", attributes={"padding": [0, 0], "stride": [1, 1]}),), (), ())
    assert one.digest == two.digest


def test_counts_of_a_model():
    assert model().parameter_count == 16 + 4  # the shared weight once, the unread one not at all
    assert model().macs == 32


def test_with_weights_leaves_the_old_model_alone():
    before = model()
    after = before.with_weights({"a.b": np.ones(4, np.float32)}, "moved the bias")
    assert before.weights["a.b"].sum() == 0
    assert after.weights["a.b"].sum() == 4
    assert after.weights["a.w"] is before.weights["a.w"]
    assert (before.notes, after.notes) == ((), ("moved the bias",))
    assert after.with_weights({}).notes == ("moved the bias",)


def test_with_weights_refuses_another_shape_or_name():
    with pytest.raises(ValueError, match=r"a.b: shape \(5,\) does not fit \(4,\)"):
        model().with_weights({"a.b": np.zeros(5, np.float32)})
    with pytest.raises(KeyError, match="a.c"):
        model().with_weights({"a.c": np.zeros(4, np.float32)})


def test_the_digest_of_a_model():
    one = model()
    assert one.digest == model().digest
    assert replace(one, name="other", notes=("n",)).digest == one.digest
    assert one.with_weights({"a.b": np.ones(4, np.float32)}).digest != one.digest
    assert replace(one, inputs=(Port("z", SPEC),)).digest != one.digest
    assert replace(one, outputs=(Port("y", TensorSpec((1, 4), "float32")),)).digest != one.digest
    assert replace(one, graph=replace(one.graph, outputs=())).digest != one.digest
