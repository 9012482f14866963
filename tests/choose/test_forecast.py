"""What a file weighs at least, and which plans are not worth making."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haversack.base.budget import Budget
from haversack.base.graph import Graph
from haversack.base.plan import PRECISIONS, LayerPlan, Plan
from haversack.choose.forecast import FLOAT_RATIO, FREED, TOLERANCE, hopeless, least_bytes, least_memory, overshoot
from haversack.choose.options import BYTES_PER_WEIGHT


def arrays(world):
    return {f"block.{index}.weight": np.zeros((count, 1), np.float32) for index, count in enumerate(world.elements)}


@pytest.mark.parametrize(
    "precision, width", [("float32", 4), ("float16", 2), ("int8", 1), ("int8_dynamic", 1), ("int8_weights", 1)]
)
def test_a_uniform_plan_weighs_its_elements(world, precision, width):
    assert least_bytes(world.graph, arrays(world), world.plan(precision)) == sum(world.elements) * width


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=st.lists(st.sampled_from(PRECISIONS), min_size=4, max_size=4))
def test_a_mixed_plan_weighs_the_sum_and_never_more_than_the_file(world, kinds):
    expected = sum(count * BYTES_PER_WEIGHT[kind] for count, kind in zip(world.elements, kinds, strict=True))
    assert least_bytes(world.graph, arrays(world), world.plan(*kinds)) == expected
    if set(kinds) <= {"int8", "float16", "float32"}:
        assert expected <= world.truth(world.plan(*kinds))[0]


def test_what_is_no_weight_of_a_layer_counts_as_float32(world):
    nodes = list(world.graph.nodes)
    nodes[1] = replace(nodes[1], bias="block.0.bias", parameters=("block.0.weight", "block.0.bias"))
    nodes[2] = replace(nodes[2], parameters=("slope",))
    graph = Graph(tuple(nodes), world.graph.inputs, world.graph.outputs)
    weights = {**arrays(world), "block.0.bias": np.zeros(100, np.float32), "slope": np.zeros(7, np.float32)}
    assert least_bytes(graph, weights, world.plan("int8")) == sum(world.elements) + 4 * 107


def test_a_weight_that_two_layers_share_counts_once_as_the_cheaper_stores_it(world):
    nodes = list(world.graph.nodes)
    nodes[3] = replace(nodes[3], weight="block.0.weight", parameters=("block.0.weight",))
    graph = Graph(tuple(nodes), world.graph.inputs, world.graph.outputs)
    rest = sum(world.elements[2:])
    assert least_bytes(graph, arrays(world), world.plan("int8")) == world.elements[0] + rest
    half = world.plan("float16", "int8", "int8", "int8")
    assert least_bytes(graph, arrays(world), half) == world.elements[0] + rest


def test_what_nothing_reads_and_what_is_no_float_counts_nothing(world):
    nodes = list(world.graph.nodes)
    nodes[2] = replace(nodes[2], parameters=("positions",))
    graph = Graph(tuple(nodes), world.graph.inputs, world.graph.outputs)
    weights = {**arrays(world), "unread": np.zeros(1000, np.float32), "positions": np.zeros(1000, np.int64)}
    assert least_bytes(graph, weights, world.plan("int8")) == sum(world.elements)


def test_a_plan_for_layers_elsewhere_is_all_float(world):
    plan = Plan("onnxruntime", {"other:linear#0": LayerPlan("int8")})
    assert least_bytes(world.graph, arrays(world), plan) == 4 * sum(world.elements)


def test_hopeless_says_forecast_and_limit_with_units(world):
    why = hopeless(world.graph, arrays(world), Budget(size=520_000))
    assert why(world.plan("int8")) == ""
    assert why(world.plan("float16")) == ""
    assert why(world.plan("float32")) == "forecast size 800.0 kB is over the allowed 520.0 kB"


def test_a_forecast_little_over_its_limit_is_tried(world):
    size = sum(world.elements)
    just = Budget(size=round(size / TOLERANCE) + 1)
    over = Budget(size=round(size / TOLERANCE) - 1)
    assert hopeless(world.graph, arrays(world), just)(world.plan("int8")) == ""
    assert hopeless(world.graph, arrays(world), over)(world.plan("int8")) != ""


@pytest.mark.parametrize("budget", [Budget(), Budget(download=1, memory=1, latency_ms=0.1, drop=0.0)])
def test_other_limits_make_nothing_hopeless(world, budget):
    assert hopeless(world.graph, arrays(world), budget)(world.plan("float32")) == ""


@pytest.mark.parametrize("precision", ["float32", "float16", "int8_weights"])
@pytest.mark.parametrize("ratio, refused", [(0.5, True), (FLOAT_RATIO - 1e-6, True), (FLOAT_RATIO, False), (2, False)])
def test_what_computes_in_float_is_not_faster_than_float(world, precision, ratio, refused):
    why = hopeless(world.graph, arrays(world), Budget(latency_ratio=ratio))
    assert bool(why(world.plan(precision))) is refused


@pytest.mark.parametrize("precision", ["int8", "int8_dynamic"])
def test_what_computes_in_integers_may_be_as_fast_as_it_likes(world, precision):
    why = hopeless(world.graph, arrays(world), Budget(latency_ratio=0.01))
    assert why(world.plan(precision)) == ""
    assert why(world.plan("float32", "float32", "float32", precision)) == ""


def test_a_hopeless_ratio_is_said_in_words(world):
    why = hopeless(world.graph, arrays(world), Budget(latency_ratio=0.55))
    assert why(world.plan("float16")) == "it computes in float: forecast latency ×1.00 is over the allowed ×0.55"


def test_size_is_told_before_latency(world):
    why = hopeless(world.graph, arrays(world), Budget(size=300_000, latency_ratio=0.5))
    assert why(world.plan("float16")).startswith("forecast size")
    assert why(world.plan("int8_weights")).startswith("it computes in float")


@pytest.mark.parametrize(
    ("precision", "over"), [("int8", 1.0), ("float16", 3.0 + 1.0), ("int8_weights", 1.0 + 1.0), ("float32", 7.0 + 1.0)]
)
def test_overshoot_sums_what_a_plan_is_forecast_to_miss(world, precision, over):
    limits = Budget(size=sum(world.elements) // 2, latency_ratio=0.5)
    assert overshoot(world.graph, arrays(world), limits)(world.plan(precision)) == pytest.approx(over)
    assert overshoot(world.graph, arrays(world), Budget(drop=0.0))(world.plan(precision)) == 0.0


def large(world, factor=1_000):
    """The world's weights, made large enough that what a runtime freed does not matter."""
    return {name: np.zeros((array.size * factor, 1), np.float32) for name, array in arrays(world).items()}


@pytest.mark.parametrize("precision, width", [("float32", 4), ("float16", 2), ("int8", 1)])
def test_memory_holds_the_weights_and_the_largest_tensor(world, precision, width):
    weights = large(world)
    total = sum(array.size for array in weights.values()) * width
    plan = world.plan(precision)
    nodes = list(world.graph.nodes)
    nodes[-1] = replace(nodes[-1], output=replace(nodes[-1].output, shape=("batch", 1_000_000)))
    graph = Graph(tuple(nodes), world.graph.inputs, world.graph.outputs)
    more = least_memory(graph, weights, plan) - least_memory(world.graph, weights, plan)
    assert 0 <= least_memory(world.graph, weights, plan) - (total - FREED) <= 4 * 1000
    assert more == pytest.approx(1_000_000 * (1 if precision == "int8" else 4), rel=1e-3)


def test_a_table_of_which_rows_are_read_does_not_count(world):
    nodes = list(world.graph.nodes)
    nodes[1] = replace(nodes[1], op="embedding")
    graph = Graph(tuple(nodes), world.graph.inputs, world.graph.outputs)
    weights, plan = large(world), world.plan("float32")
    less = least_memory(world.graph, weights, plan) - least_memory(graph, weights, plan)
    assert less == 4 * weights["block.0.weight"].size


def test_small_models_are_never_hopeless_for_their_memory(world):
    assert least_memory(world.graph, arrays(world), world.plan("float32")) == 0
    assert hopeless(world.graph, arrays(world), Budget(memory=1))(world.plan("float32")) == ""


def test_a_memory_limit_that_weights_alone_break_is_hopeless(world):
    weights = large(world)
    least = least_memory(world.graph, weights, world.plan("float32"))
    tight, wide = Budget(memory=int(least / TOLERANCE) - 1), Budget(memory=int(least) + 1)
    assert "memory, at least" in hopeless(world.graph, weights, tight)(world.plan("float32"))
    assert hopeless(world.graph, weights, tight)(world.plan("int8")) == ""
    assert hopeless(world.graph, weights, wide)(world.plan("float32")) == ""
    over = overshoot(world.graph, weights, Budget(memory=int(least) // 8))
    assert over(world.plan("float32")) == pytest.approx(7.0, rel=1e-3)
    assert over(world.plan("int8")) < over(world.plan("float16")) < over(world.plan("float32"))
