"""Plans with 4-bit weights: who may have them, what their codes are, and what stays as in 8 bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from haversack.base.constraints import Constraints
from haversack.base.encodings import Affine, largest_code
from haversack.base.errors import ConversionError
from haversack.base.plan import NARROW as FEWER
from haversack.base.plan import PRECISIONS, STATIC, WEIGHT_BITS, WIDTHS, LayerPlan, Plan, Step
from haversack.base.recipe import structure, unstructure
from haversack.choose.options import QUANTIZERS
from haversack.compress.apply import apply
from haversack.compress.encode import encode
from haversack.compress.perturb import perturb
from haversack.compress.plans import uniform
from haversack.compress.weights import store
from haversack.profile.ranges import ranges
from haversack.tools.graph.demands import demands

STEM, WIDE, NARROW, HEAD = "stem:conv2d#0", "wide:conv2d#0", "narrow:conv2d#0", "head:linear#0"
BLOCK = "block.conv:conv2d#0"


@pytest.fixture(scope="module")
def limits(folded):
    return demands(folded.graph)


def bits_of(encodings):
    found = {key.removesuffix(":weight"): one for key, one in encodings.tensors.items() if key.endswith(":weight")}
    return {key: one.bits for key, one in found.items() if isinstance(one, Affine)}


def test_every_precision_says_its_bits():
    assert set(WEIGHT_BITS) == {*PRECISIONS, "palette"}
    assert {name for name, bits in WEIGHT_BITS.items() if bits == 4} == {"w4a8", "w4_grouped", "palette"}
    assert {name: WEIGHT_BITS[name] for name in STATIC} == {"int8": 8} | {f"w{bits}a8": bits for bits in range(1, 8)}


def test_a_plan_is_written_and_read_with_its_name():
    plan = Plan("litert", {WIDE: LayerPlan("w4a8", "channel", Step("mse", {"weight_least": 0.6}))})
    again = structure(unstructure(plan), Plan, where="here")
    assert again.digest == plan.digest
    assert again.differences(Plan("litert", {WIDE: LayerPlan()})) == [
        f"{WIDE}: w4a8/channel/mse(weight_least=0.6) -> int8/channel/minmax"
    ]


def test_a_uniform_plan_gives_the_others_eight_bits(folded, limits):
    layers = uniform(folded.graph, "w4a8", widths=limits.widths)
    assert {key: layer.precision for key, layer in layers.items()} == {
        STEM: "int8", BLOCK: "int8", WIDE: "w4a8", NARROW: "int8", HEAD: "w4a8"
    }  # fmt: skip


def test_a_uniform_plan_leaves_out_what_has_no_kernel(folded):
    layers = uniform(folded.graph, "w4a8", integer_ops=frozenset({"linear"}))
    assert {key: layer.precision for key, layer in layers.items()} == {HEAD: "w4a8"}


def test_a_table_keeps_eight_bits(make_model):
    graph = make_model(nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3)), (6,), dtype=torch.long).graph
    found = {key: layer.precision for key, layer in uniform(graph, "w4a8").items()}
    assert found == {"0:embedding#0": "int8_weights", "1:linear#0": "w4a8"}


def test_activations_and_biases_are_encoded_as_for_eight_bits(folded, folded_ranges, limits):
    made = {
        precision: encode(
            folded,
            Plan("t", uniform(folded.graph, precision, widths=limits.widths)),
            folded_ranges,
            limits,
        )[0]
        for precision in ("int8", "w4a8")
    }
    assert bits_of(made["w4a8"]) == {STEM: 8, BLOCK: 8, WIDE: 4, NARROW: 8, HEAD: 4}
    outs = [{k for k in each.tensors if k.endswith(":out")} for each in made.values()]
    assert outs[0] == outs[1] != set()
    assert all(made["int8"].affine(key).scale == made["w4a8"].affine(key).scale for key in outs[0])


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_codes_reach_seven_and_never_minus_eight(folded, granularity):
    made = store(folded, folded.graph.by_key[HEAD], LayerPlan("w4a8", granularity), None)
    encoding, codes = made.tensors[f"{HEAD}:weight"], made.integers[f"{HEAD}:weight"]
    weight = folded.weights[folded.graph.by_key[HEAD].weight]
    assert (encoding.bits, encoding.low, encoding.high) == (4, -7, 7)
    assert (codes.min(), np.abs(codes).max()) >= (-7, 7)
    scale = encoding.scale[:, None] if granularity == "channel" else encoding.scale
    assert np.abs(weight - codes * scale).max() <= encoding.scale.max() * 0.5001


def test_clipping_pays_with_few_codes(folded):
    node = folded.graph.by_key[WIDE]
    weight = folded.weights[node.weight]
    errors = {}
    for name, step in (("nearest", Step("minmax")), ("clipped", Step("mse", {"weight_least": 0.6}))):
        made = store(folded, node, LayerPlan("w4a8", "channel", step), None)
        scale = made.tensors[f"{WIDE}:weight"].scale.reshape(-1, 1, 1, 1)
        errors[name] = np.square(weight - made.integers[f"{WIDE}:weight"] * scale).sum()
    assert errors["clipped"] < 0.98 * errors["nearest"]


def test_a_layer_without_such_a_kernel_is_told_with_what_to_do(folded, folded_ranges, limits):
    plan = Plan("litert", {STEM: LayerPlan("w4a8"), WIDE: LayerPlan("w4a8")}, constrained_by=("litert", "executorch"))
    with pytest.raises(ConversionError) as told:
        encode(folded, plan, folded_ranges, limits)
    assert [(fault.where, fault.cause) for fault in told.value.faults] == [
        ("stem", "litert, executorch cannot have weights of 4 bits in this conv2d; it can have 8")
    ]
    assert "another width where one is told" in told.value.next_step


def test_all_layers_that_cannot_have_a_width_are_told_at_once_with_what_they_can_have(folded, folded_ranges, limits):
    plan = Plan("litert", {STEM: LayerPlan("w3a8"), WIDE: LayerPlan("w1a8"), HEAD: LayerPlan("w4a8")})
    with pytest.raises(ConversionError) as told:
        encode(folded, plan, folded_ranges, limits)
    assert [(fault.where, fault.cause) for fault in told.value.faults] == [
        ("stem", "litert cannot have weights of 3 bits in this conv2d; it can have 8"),
        ("wide", "litert cannot have weights of 1 bit in this conv2d; it can have 4, 8"),
    ]
    assert told.value.exit_code == 4


@pytest.mark.parametrize("bits", sorted(FEWER))
def test_where_a_layer_can_have_a_width_it_has_its_codes(folded, folded_ranges, limits, bits):
    able = replace(limits, widths={WIDE: FEWER})
    made = encode(folded, Plan("t", {WIDE: LayerPlan(WIDTHS[bits], weights=QUANTIZERS[bits])}), folded_ranges, able)[0]
    codes = made.integers[f"{WIDE}:weight"]
    assert bits_of(made) == {WIDE: bits}
    assert largest_code(bits) / 2 < np.abs(codes).max() <= largest_code(bits)
    assert bits > 1 or 0 not in codes


def test_without_integer_kernels_that_is_what_is_told(folded, folded_ranges):
    with pytest.raises(ConversionError, match="cannot run in integers") as told:
        encode(folded, Plan("t", {HEAD: LayerPlan("w4a8")}), folded_ranges, Constraints())
    assert told.value.faults[0].cause == "t has no integer kernel for linear"


def test_ranges_are_measured_and_biases_corrected(folded, limits):
    image = np.random.default_rng(0).normal(size=(4, 3, 9, 9)).astype(np.float32)
    plan = Plan("t", {WIDE: LayerPlan("w4a8"), HEAD: LayerPlan("w4a8")}, (Step("bias_correct"),))
    made = apply(folded, plan, ranges=lambda m: ranges(m, [(image,)]), constraints=limits, samples=lambda: [(image,)])
    bias = folded.graph.by_key[WIDE].bias
    assert bits_of(made.encodings) == {WIDE: 4, HEAD: 4}
    assert np.abs(made.model.weights[bias] - folded.weights[bias]).max() > 0


def test_one_layer_alone_may_be_perturbed_if_it_can_have_four_bits(folded, folded_ranges):
    made = perturb(folded, WIDE, LayerPlan("w4a8"), ranges=folded_ranges)
    assert bits_of(made) == {WIDE: 4}
    assert (
        perturb(folded, WIDE, LayerPlan("w4a8"), ranges=folded_ranges, widths={WIDE: {4}}).tensors.keys()
        == made.tensors.keys()
    )
    assert not perturb(folded, WIDE, LayerPlan("w4a8"), ranges=folded_ranges, widths={HEAD: {4}, WIDE: {2}}).tensors
    assert perturb(folded, WIDE, LayerPlan("int8"), ranges=folded_ranges, widths={HEAD: {4}, WIDE: {2}}).tensors
