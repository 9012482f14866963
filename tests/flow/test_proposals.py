"""The plans that are tried first: only what the target can do, fitting the kind of model, each with its reason."""

from __future__ import annotations

import pytest

from haversack.base.constraints import Constraints
from haversack.base.graph import Graph, Node, TensorSpec
from haversack.base.plan import NARROW, PRECISIONS, WEIGHT_BITS, LayerPlan, Plan
from haversack.choose.options import GROUPED, QUANTIZERS
from haversack.flow.effort import EFFORTS, FAST
from haversack.flow.proposals import careful, mostly_linear, proposals, regrouped, smaller

SPEC = TensorSpec(("batch", 3), "float32")


def graph(convolutions: int, linears: int) -> Graph:
    nodes = (
        Node("x:input#0", "input", "x", (), SPEC),
        Node("a:conv2d#0", "conv2d", "a", ("x:input#0",), SPEC, weight="a.w", macs=convolutions),
        Node("b:linear#0", "linear", "b", ("a:conv2d#0",), SPEC, weight="b.w", macs=linears),
    )
    return Graph(nodes, ("x:input#0",), ("b:linear#0",))


def plans_of(found):
    return [*found.variants, *found.fallbacks]


def precisions(plan) -> set[str]:
    return {layer.precision for layer in plan.layers.values()}


@pytest.mark.parametrize(
    "convolutions, linears, is_linear", [(10, 0, False), (0, 10, True), (6, 4, False), (4, 6, True), (0, 0, False)]
)
def test_what_most_multiplications_are_in(convolutions, linears, is_linear):
    assert mostly_linear(graph(convolutions, linears)) is is_linear


def test_transposed_convolutions_are_convolutions():
    """A decoder is as little a network of linear layers as an encoder is, whether or not it has integer kernels."""
    spread = Node("u:conv_transpose2d#0", "conv_transpose2d", "u", ("a:conv2d#0",), SPEC, weight="u.w", macs=90)
    plain = graph(5, 5)
    assert not mostly_linear(Graph((*plain.nodes, spread), plain.inputs, (spread.key,)))


@pytest.mark.parametrize("convolutions, first, never", [(100, "int8", "int8_dynamic"), (0, "int8_dynamic", "int8")])
def test_the_kind_of_network_decides_what_comes_first(convolutions, first, never):
    found = proposals(graph(convolutions, 10), "onnxruntime", PRECISIONS, ())
    assert first in precisions(found.variants[0])
    assert not any(never in precisions(plan) for plan in plans_of(found))


@pytest.mark.parametrize("able", [(), ("float16",), ("int8",), ("float32", "int8_weights")])
def test_only_what_the_target_can_do(able):
    found = plans_of(proposals(graph(100, 10), "onnxruntime", able, ()))
    assert set().union(*map(precisions, found)) <= set(able)


def test_every_plan_is_another_and_says_why():
    found = plans_of(proposals(graph(100, 10), "onnxruntime", PRECISIONS, ("onnxruntime", "other")))
    assert len({plan.digest for plan in found}) == len(found)
    assert all(plan.origin and plan.target == "onnxruntime" for plan in found)
    assert all(plan.constrained_by == ("onnxruntime", "other") for plan in found)


def test_float_is_the_last_resort():
    found = proposals(graph(100, 10), "onnxruntime", PRECISIONS, ())
    assert found.fallbacks[-1].layers == {}
    assert all(plan.layers for plan in found.variants)


def joined():
    """Return a graph that joins two tensors."""
    network = graph(100, 10)
    join = Node("j:cat#0", "cat", "j", (network.nodes[-1].key, network.nodes[-1].key), SPEC)
    return Graph((*network.nodes, join), network.inputs, (join.key,))


def test_without_joins_no_channels_are_evened_out():
    variants = proposals(graph(100, 10), "onnxruntime", PRECISIONS, ()).variants
    assert len(variants) == 5
    assert not any("equalize" in [step.part for step in plan.prepare] for plan in variants)


@pytest.mark.parametrize(("level", "rounding"), [("default", "gptq"), ("highest", "block_reconstruction")])
def test_variants_with_channels_evened_out_come_last_and_before_the_rounding(level, rounding):
    variants = proposals(joined(), "onnxruntime", PRECISIONS, (), EFFORTS[level]).variants
    evened = [plan for plan in variants if "equalize" in [step.part for step in plan.prepare]]
    assert evened == [*variants[-2:]]
    assert [plan.ranges.part for plan in evened] == ["mse", "minmax"]
    for plan in evened:
        assert [step.part for step in plan.prepare] == ["fold_norm", "equalize", rounding]
        assert "channels evened out" in plan.origin


def test_channels_are_not_evened_out_where_weights_are_rounded_to_nearest():
    variants = proposals(joined(), "onnxruntime", PRECISIONS, (), EFFORTS[FAST]).variants
    assert len(variants) == 5
    assert {step.part for plan in variants for step in plan.prepare} == {"fold_norm", "bias_correct"}


def test_a_careful_plan_keeps_the_layer_at_the_input_in_float():
    network = graph(100, 10)
    static = proposals(network, "onnxruntime", PRECISIONS, ()).variants[0]
    (found,) = careful(network, static)
    assert set(static.layers) - set(found.layers) == {"a:conv2d#0"}
    assert found.origin.startswith(static.origin)


def test_where_nothing_is_static_nothing_is_careful():
    network = graph(0, 10)
    assert careful(network, proposals(network, "onnxruntime", PRECISIONS, ()).variants[0]) == []


def dynamic(*keys):
    return Plan("t", dict.fromkeys(keys, LayerPlan("int8_dynamic")) | {"t:embedding#0": LayerPlan("int8_weights")})


def test_a_dynamic_plan_gets_groups_where_layers_may_have_them():
    groups = {"a:linear#0": frozenset({32, 64, 128}), "b:linear#0": frozenset({32})}
    gentle, harsh = regrouped(dynamic("a:linear#0", "b:linear#0", "c:linear#0"), groups)
    found = [{key: layer.precision for key, layer in plan.layers.items()} for plan in (gentle, harsh)]
    kept = {"c:linear#0": "int8_dynamic", "t:embedding#0": "int8_weights"}
    assert found[0] == {"a:linear#0": "w4_grouped", "b:linear#0": "w4_grouped", **kept}
    assert found[1] == {"a:linear#0": "w4_grouped", "b:linear#0": "int8_dynamic", **kept}
    assert [plan.layers["a:linear#0"].weights.settings["group"] for plan in (gentle, harsh)] == list(GROUPED)
    assert gentle.origin.endswith("2 layers with 4-bit weights in groups of 32")
    assert harsh.origin.endswith("1 layer with 4-bit weights in groups of 128")
    assert regrouped(dynamic("c:linear#0"), groups) == []


@pytest.mark.parametrize(("able", "count"), [(PRECISIONS, 2), (("int8_dynamic",), 0), (("w4a8",), 0)])
def test_smaller_plans_are_those_the_target_can_make(able, count):
    demands = Constraints(groups={"a:linear#0": frozenset({32, 128})}, widths={"a:linear#0": NARROW})
    assert len(smaller(dynamic("a:linear#0"), able, demands, lambda _: "")) == count
    static = Plan("t", {"a:linear#0": LayerPlan("int8")})
    narrow = smaller(static, able, demands, lambda _: "")
    assert [precisions(plan) for plan in narrow] == ([{"w4a8"}] if "w4a8" in able else [])


@pytest.mark.parametrize(
    ("able", "least", "found"),
    [
        (PRECISIONS, 4, "w4a8"),
        (PRECISIONS, 3, "w3a8"),
        (PRECISIONS, 2, "w2a8"),
        (PRECISIONS, 1, "w1a8"),
        (PRECISIONS, 0, "w1a8"),
        (("int8", "w4a8"), 2, "w4a8"),
    ],
)
def test_the_most_bits_that_are_not_hopeless_are_tried_or_else_the_fewest(able, least, found):
    static = Plan("t", {"a:linear#0": LayerPlan("int8")})

    def hopeless(plan):
        return "too large" if WEIGHT_BITS[plan.layers["a:linear#0"].precision] > least else ""

    (made,) = smaller(static, able, Constraints(widths={"a:linear#0": NARROW}), hopeless)
    bits = WEIGHT_BITS[found]
    assert made.layers == {"a:linear#0": LayerPlan(found, "channel", QUANTIZERS[bits])}
    assert made.origin.endswith(f"1 layer with {bits}-bit weights")
