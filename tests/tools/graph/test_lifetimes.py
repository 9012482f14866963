"""Bytes alive, counted by hand on small graphs, and by brute force on any."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from haversack.base.encodings import Affine, Encodings
from haversack.base.graph import Graph, Node, TensorSpec
from haversack.tools.graph.lifetimes import Lifetimes, elements, lifetimes, steps


def node(key, *inputs, size=1, dtype="float32", **more):
    return Node(key, key.partition(":")[2].partition("#")[0], key, inputs, TensorSpec((size,), dtype), **more)


def graph(*nodes, outputs=()):
    inputs = tuple(one.key for one in nodes if one.op == "input")
    return Graph(nodes, inputs, outputs or (nodes[-1].key,))


def live(found: Lifetimes):
    return [(one.node, one.bytes) for one in found.live]


X = node("x:input#0", size=10)


def test_a_chain_holds_what_is_read_what_is_made_and_the_input():
    chain = graph(X, node("a:sigmoid#0", "x:input#0", size=20), node("b:sigmoid#0", "a:sigmoid#0", size=5))
    found = lifetimes(chain)
    assert live(found) == [("a:sigmoid#0", 120), ("b:sigmoid#0", 140)]
    assert found.peak.node == "b:sigmoid#0"
    assert found.alive == (("a:sigmoid#0", 80), ("x:input#0", 40), ("b:sigmoid#0", 20))


def test_a_skip_keeps_its_tensor_until_the_add():
    found = lifetimes(
        graph(
            X,
            node("a:sigmoid#0", "x:input#0", size=10),
            node("b:sigmoid#0", "a:sigmoid#0", size=30),
            node("c:sigmoid#0", "b:sigmoid#0", size=10),
            node("d:add#0", "a:sigmoid#0", "c:sigmoid#0", size=10),
        )
    )
    assert [bytes_ for _, bytes_ in live(found)] == [80, 200, 240, 160]


@pytest.mark.parametrize("op", ["view", "flatten", "squeeze", "dropout", "contiguous"])
def test_a_view_takes_no_memory_and_keeps_its_source(op):
    found = lifetimes(
        graph(
            X,
            node("a:sigmoid#0", "x:input#0", size=10),
            node(f"v:{op}#0", "a:sigmoid#0", size=10),
            node("b:sigmoid#0", "x:input#0", size=10),
            node("c:add#0", f"v:{op}#0", "b:sigmoid#0", size=10),
        )
    )
    assert live(found) == [("a:sigmoid#0", 80), ("b:sigmoid#0", 120), ("c:add#0", 160)]


def test_a_view_of_an_input_is_a_step_without_memory():
    found = lifetimes(graph(X, node("v:view#0", "x:input#0", size=10), node("a:sigmoid#0", "v:view#0", size=2)))
    assert live(found) == [("v:view#0", 40), ("a:sigmoid#0", 48)]


def test_a_move_is_no_view():
    found = lifetimes(graph(X, node("p:permute#0", "x:input#0", size=10)))
    assert live(found) == [("p:permute#0", 80)]


def test_a_fused_clamp_shares_its_layers_tensor():
    found = lifetimes(
        graph(
            X,
            node("c:linear#0", "x:input#0", size=30, weight="w", parameters=("w",)),
            node("r:relu#0", "c:linear#0", size=30),
            node("d:sigmoid#0", "r:relu#0", size=1),
        )
    )
    assert live(found) == [("c:linear#0", 160), ("d:sigmoid#0", 164)]


def test_a_clamp_of_a_tensor_that_others_read_has_its_own():
    found = lifetimes(
        graph(
            X,
            node("c:linear#0", "x:input#0", size=30, weight="w", parameters=("w",)),
            node("r:relu#0", "c:linear#0", size=30),
            node("d:add#0", "r:relu#0", "c:linear#0", size=1),
        )
    )
    assert [bytes_ for _, bytes_ in live(found)] == [160, 280, 284]


def test_outputs_are_held_to_the_end():
    found = lifetimes(
        graph(
            X,
            node("a:sigmoid#0", "x:input#0", size=10),
            node("b:sigmoid#0", "a:sigmoid#0", size=10),
            node("c:sigmoid#0", "b:sigmoid#0", size=10),
            outputs=("a:sigmoid#0", "c:sigmoid#0"),
        )
    )
    assert [bytes_ for _, bytes_ in live(found)] == [80, 120, 160]


def test_the_parts_of_a_split_are_made_together():
    found = lifetimes(
        graph(
            X,
            node("s:split#0", "x:input#0", size=5),
            node("s:getitem#0", "s:split#0", size=5),
            node("a:sigmoid#0", "s:getitem#0", size=5),
            node("s:getitem#1", "s:split#0", size=5),
            node("b:add#0", "a:sigmoid#0", "s:getitem#1", size=5),
        )
    )
    assert live(found) == [("s:split#0", 80), ("a:sigmoid#0", 100), ("b:add#0", 100)]


def test_what_depends_on_no_input_is_part_of_the_file():
    found = lifetimes(
        graph(
            X,
            node("k:arange#0", size=1000),
            node("v:view#0", "k:arange#0", size=1000),
            node("a:add#0", "x:input#0", "v:view#0", size=10),
        )
    )
    assert found.peak.bytes == 80


@pytest.mark.parametrize(
    "dtype, width", [("float32", 4), ("float16", 2), ("int64", 8), ("int32", 4), ("bool", 1), ("uint8", 1)]
)
def test_widths(dtype, width):
    found = lifetimes(graph(X, node("a:gt#0", "x:input#0", size=100, dtype=dtype)))
    assert found.peak.bytes == 40 + 100 * width


@pytest.mark.parametrize("bits, width", [(8, 1), (4, 1), (16, 2)])
def test_an_encoded_value_takes_the_bytes_of_its_code(bits, width):
    grid = Affine(bits, False, None, np.array(1, np.float32), np.array(0, np.int32))
    chain = graph(X, node("a:sigmoid#0", "x:input#0", size=100))
    found = lifetimes(chain, Encodings({"a:sigmoid#0:out": grid}))
    assert found.peak.bytes == 40 + 100 * width


@pytest.mark.parametrize(
    "shape, count",
    [
        ((2, 3), 6),
        (("batch", 3), 3),
        (("batch", "length"), 7),
        (("batch", "length + 1"), 8),
        (("2*length", 2), 28),
        (("length - 9",), 1),
        (("length//2",), 3),
        (("length//other - 1",), 6),
        (("Max(1, length)",), 1),
    ],
)
def test_free_lengths(shape, count):
    assert elements(TensorSpec(shape, "float32"), {"length": 7}) == count


def test_a_graph_without_steps():
    found = lifetimes(graph(X))
    assert (found.live, found.peak.bytes, found.peak.node, found.alive) == ((), 0, "", ())


def test_an_order_that_does_not_compute_is_refused():
    found = steps(graph(X, node("a:sigmoid#0", "x:input#0"), node("b:sigmoid#0", "a:sigmoid#0")))
    with pytest.raises(ValueError, match="b:sigmoid#0 runs before what it reads"):
        found.over([1, 0])
    with pytest.raises(ValueError, match="not an order of all steps"):
        found.over([0])


@st.composite
def graphs(draw, most=9):
    """Any graph of sums and views, each node reading one or two earlier ones."""
    nodes = [X]
    for number in range(draw(st.integers(1, most))):
        view = draw(st.integers(0, 5)) == 0
        count = 1 if view else draw(st.integers(1, 2))
        inputs = [nodes[draw(st.integers(max(0, len(nodes) - 5), len(nodes) - 1))] for _ in range(count)]
        size = inputs[0].output.shape[0] if view else draw(st.integers(1, 40))
        key = f"n{number}:{'view' if view else 'sum'}#0"
        nodes.append(node(key, *dict.fromkeys(one.key for one in inputs), size=size))
    ends = {one.key for one in nodes} - {key for one in nodes for key in one.inputs} - {X.key}
    return graph(*nodes, outputs=tuple(sorted(ends)) or (nodes[-1].key,))


def slowly(one: Graph, order):
    """Return the bytes alive at each node of an order by looking at every pair of tensor and time."""

    def memory(key):
        found = one.by_key[key]
        return memory(found.inputs[0]) if found.op == "view" else key

    times = {key: time for time, key in enumerate(order)}
    last = {memory(key): times[key] for key in order}
    for reader in order:
        for key in one.by_key[reader].inputs:
            last[memory(key)] = max(last.get(memory(key), -1), times[reader])
    last |= {memory(key): len(order) for key in one.outputs}
    work = [key for key in order if one.by_key[key].op != "view"]
    return {
        key: 40
        + sum(4 * one.by_key[other].output.shape[0] for other in work if times[other] <= times[key] <= last[other])
        for key in work
    }


@given(graphs())
def test_the_count_is_what_looking_at_every_pair_gives(one):
    found = {each.node: each.bytes for each in lifetimes(one).live if one.by_key[each.node].op != "view"}
    order = [key for each in steps(one).steps for key in each.nodes]
    assert found == slowly(one, order)


@given(graphs())
def test_what_is_alive_at_the_peak_adds_up(one):
    found = lifetimes(one)
    assert sum(size for _, size in found.alive) == found.peak.bytes
    assert [size for _, size in found.alive] == sorted((size for _, size in found.alive), reverse=True)
    assert found.peak.bytes == max(each.bytes for each in found.live)


def test_a_real_network(model_of):
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    found = lifetimes(model_of(net, torch.zeros(2, 1, 8, 8)).graph)
    assert live(found) == [
        ("0:conv2d#0", 4 * 64 + 4 * 256),
        ("2:adaptive_avg_pool2d#0", 4 * 64 + 4 * 256 + 16),
        ("4:linear#0", 4 * 64 + 16 + 8),
    ]
