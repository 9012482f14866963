"""What each layer could be, what that costs, and where float meets integers."""

from __future__ import annotations

from typing import get_args

import pytest

from haversack.base.graph import Graph, Node, TensorSpec
from haversack.base.plan import LayerPlan, Precision, Step
from haversack.base.profile import Profile
from haversack.choose.options import BYTES_PER_WEIGHT, SECONDS_PER_BORDER_ELEMENT, borders, options


def node(key, *inputs, width=8):
    return Node(f"{key}:op#0", "op", key, tuple(f"{name}:op#0" for name in inputs), TensorSpec(("batch", width), "f"))


def graph(*nodes):
    return Graph(nodes, (nodes[0].key,), (nodes[-1].key,))


def pairs(found):
    return {(one.first.split(":")[0], one.second.split(":")[0]): one.seconds for one in found}


def test_every_precision_has_its_bytes():
    assert set(BYTES_PER_WEIGHT) == set(get_args(Precision))


def test_options_are_the_planned_one_first_then_float16_and_float32(world):
    base = world.plan("int8").layers
    found = options(
        world.graph,
        world.profile,
        base,
        weight_elements=dict(zip(world.layers, world.elements, strict=True)),
        speed={"onnxruntime": {"int8": 0.5}},
    )
    assert list(found) == list(world.layers)
    integer, half, whole = found[world.layers[1]]
    assert [one.plan.precision for one in (integer, half, whole)] == ["int8", "float16", "float32"]
    assert (integer.bytes, half.bytes, whole.bytes) == (10_000, 20_000, 40_000)
    assert [one.seconds["onnxruntime"] for one in (integer, half, whole)] == [0.5e-3, 1e-3, 1e-3]
    assert (integer.loss, half.loss, whole.loss) == pytest.approx((0.08**2, 4e-8, 0.0))


def test_the_planned_layer_keeps_its_settings_and_is_not_offered_twice(world):
    special = LayerPlan("int8", "tensor", Step("mse"))
    base = {world.layers[0]: special, world.layers[2]: LayerPlan("float16")}
    found = options(
        world.graph,
        world.profile,
        base,
        weight_elements=dict(zip(world.layers, world.elements, strict=True)),
        speed={"onnxruntime": {}},
    )
    assert list(found) == [world.layers[0], world.layers[2]]
    assert found[world.layers[0]][0].plan == special
    assert [one.plan.precision for one in found[world.layers[2]]] == ["float16", "float32"]


def test_what_was_not_profiled_costs_nothing_and_loses_nothing(world):
    found = options(
        world.graph,
        Profile(),
        world.plan("int8").layers,
        weight_elements=dict.fromkeys(world.layers, 1),
        speed={"onnxruntime": {"int8": 0.5}},
    )
    assert {(one.seconds["onnxruntime"], one.loss) for each in found.values() for one in each} == {(0.0, 0.0)}


def test_neighbours_in_a_chain_meet_through_what_lies_between():
    chain = graph(node("x"), node("a", "x"), node("relu", "a"), node("b", "relu"), node("c", "b"))
    found = pairs(borders(chain, ["a:op#0", "b:op#0", "c:op#0"]))
    assert found == dict.fromkeys([("a", "b"), ("b", "c")], 8 * SECONDS_PER_BORDER_ELEMENT)


def test_the_cost_is_that_of_the_values_the_first_layer_makes():
    chain = graph(node("x"), node("a", "x", width=100), node("pool", "a", width=4), node("b", "pool"))
    assert pairs(borders(chain, ["a:op#0", "b:op#0"])) == {("a", "b"): 100 * SECONDS_PER_BORDER_ELEMENT}


def test_a_residual_add_joins_both_of_its_sources_to_what_follows():
    block = graph(node("x"), node("a", "x"), node("b", "a"), node("add", "a", "b"), node("c", "add"))
    assert set(pairs(borders(block, ["a:op#0", "b:op#0", "c:op#0"]))) == {("a", "b"), ("a", "c"), ("b", "c")}


def test_branches_that_do_not_meet_share_no_border():
    split = graph(node("x"), node("a", "x"), node("b", "x"), node("c", "a"))
    assert set(pairs(borders(split, ["a:op#0", "b:op#0", "c:op#0"]))) == {("a", "c")}


def test_a_layer_that_is_not_chosen_is_passed_through():
    chain = graph(node("x"), node("a", "x"), node("b", "a"), node("c", "b"))
    assert set(pairs(borders(chain, ["a:op#0", "c:op#0"]))) == {("a", "c")}


def test_no_layers_no_borders(world):
    assert borders(world.graph, []) == ()


def test_what_the_target_cannot_store_is_no_option(world):
    found = options(
        world.graph,
        world.profile,
        world.plan("int8").layers,
        weight_elements=dict(zip(world.layers, world.elements, strict=True)),
        speed={"onnxruntime": {"int8": 0.5}},
        precisions=("float32", "int8"),
    )
    assert {tuple(one.plan.precision for one in each) for each in found.values()} == {("int8", "float32")}
