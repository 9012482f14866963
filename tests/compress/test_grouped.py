"""Weights in groups: scales group by group, plans that fall back by layer, and refusals by key."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.constraints import Constraints
from haversack.base.encodings import BlockAffine, Dynamic
from haversack.base.errors import ConversionError, JobError, UsageError
from haversack.base.plan import GROUPS, LayerPlan, Plan, Step
from haversack.compress.encode import encode
from haversack.compress.perturb import perturb
from haversack.compress.plans import uniform
from haversack.compress.rates import rates
from haversack.compress.weights import store
from haversack.tools.graph.demands import demands
from haversack.tools.graph.simulate import Simulator
from haversack.tools.numerics import blocks
from haversack.tools.numerics.entropy import bits_per_code

WIDE, ODD, CONV = "wide:linear#0", "odd:linear#0", "conv:conv2d#0"


@pytest.fixture(scope="module")
def model(make_model):
    import torch
    from torch import nn

    torch.manual_seed(3)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 8, 1)
            self.wide, self.odd = nn.Linear(128, 12), nn.Linear(12, 5)

        def forward(self, x):
            return self.odd(torch.relu(self.wide(self.conv(x).flatten(1))))

    return make_model(Net(), (2, 4, 4))


def layer(group=None, part="minmax", **settings):
    return LayerPlan("w4_grouped", weights=Step(part, settings | ({} if group is None else {"group": group})))


@pytest.mark.parametrize("group", GROUPS[:3])
def test_full_scales_are_the_peak_of_each_group(model, group):
    stored = store(model, model.graph.by_key[WIDE], layer(group), None)
    encoding, codes = stored.tensors[f"{WIDE}:weight"], stored.integers[f"{WIDE}:weight"]
    weight = model.weights["wide.weight"]
    peaks = np.abs(weight.reshape(12, 128 // group, group)).max(2)
    assert isinstance(encoding, BlockAffine)
    assert (encoding.block, encoding.bits, encoding.scale.shape) == (group, 4, peaks.shape)
    assert np.allclose(encoding.scale, peaks / 7, rtol=2**-8)
    assert (blocks.rounded(encoding.scale) == encoding.scale).all()
    assert stored.tensors[f"{WIDE}:in"] == Dynamic(8)
    assert (codes == blocks.quantize(weight, encoding)).all()


def test_smaller_groups_and_clipping_lose_less(model):
    weight = model.weights["wide.weight"]

    def loss(one):
        stored = store(model, model.graph.by_key[WIDE], one, None)
        found = blocks.values(stored.integers[f"{WIDE}:weight"], stored.tensors[f"{WIDE}:weight"])
        return float(np.square(found - weight).sum())

    assert loss(layer(32)) < loss(layer(64)) < loss(layer(128))
    assert loss(layer(32, "mse", weight_least=0.6)) < loss(layer(32))
    assert loss(layer()) == loss(layer(GROUPS[0]))


@pytest.mark.parametrize("group", [16, 33, 0, -32, "32", True, 32.5])
def test_a_group_that_no_kernel_has_is_refused(model, group):
    with pytest.raises(UsageError, match="32, 64, 128, 256"):
        store(model, model.graph.by_key[WIDE], layer(group), None)


def test_a_layer_without_such_a_kernel_is_told_by_its_path(model):
    kernels = demands(model.graph, groups=GROUPS)
    assert kernels.groups == {WIDE: frozenset({32, 64, 128})}
    plan = Plan("here", {WIDE: layer(256), ODD: layer(32)})
    with pytest.raises(ConversionError) as caught:
        encode(model, plan, {}, kernels)
    faults = {fault.where: fault.cause for fault in caught.value.faults}
    assert set(faults) == {"wide", "odd"}
    assert "those that have: 32, 64, 128" in faults["wide"]
    assert "those that have: none" in faults["odd"]
    with pytest.raises(UsageError, match="cannot have the precision w4_grouped"):
        encode(model, Plan("here", {CONV: layer(32)}), {}, kernels)


def test_a_uniform_plan_gives_each_layer_what_it_can_have(model):
    kernels = demands(model.graph, groups=GROUPS)
    weights = Step("mse", {"group": 64, "weight_least": 0.6})
    found = uniform(model.graph, "w4_grouped", weights=weights, groups=kernels.groups)
    assert {key: one.precision for key, one in found.items()} == {
        CONV: "int8_weights", WIDE: "w4_grouped", ODD: "int8_dynamic",
    }  # fmt: skip
    assert found[WIDE].weights == weights
    assert found[ODD].weights == Step("mse", {"weight_least": 0.6})
    assert set(uniform(model.graph, "w4_grouped", weights=weights, stores_integers=False)) == {WIDE, ODD}
    encodings, _ = encode(model, Plan("here", found), {}, kernels)
    assert isinstance(encodings.tensors[f"{WIDE}:weight"], BlockAffine)


def test_only_what_all_targets_have_is_common():
    one = Constraints(groups={WIDE: frozenset({32, 64}), ODD: frozenset({32})})
    other = Constraints(groups={WIDE: frozenset({64, 128}), ODD: frozenset({64})})
    assert Constraints.union([one, other]).groups == {WIDE: frozenset({64})}
    assert Constraints.union([one]).groups == one.groups
    assert Constraints.union([one, Constraints()]).groups == {}


def test_the_simulation_computes_with_what_codes_mean(model):
    import torch

    encodings = perturb(model, WIDE, LayerPlan("w4_grouped"), ranges={})
    x = np.random.default_rng(0).normal(size=(3, 2, 4, 4)).astype(np.float32)
    (found,) = Simulator(model).run(encodings, [(x,)])[0]
    weight = blocks.values(encodings.integers[f"{WIDE}:weight"], encodings.tensors[f"{WIDE}:weight"])
    with torch.no_grad():
        named = {name: torch.from_numpy(value) for name, value in model.weights.items()}
        hidden = torch.conv2d(torch.from_numpy(x), named["conv.weight"], named["conv.bias"]).flatten(1)
        low, high = min(float(hidden.min()), 0.0), max(float(hidden.max()), 0.0)
        step = (high - low) / 255
        zero = round(-low / step)
        hidden = ((hidden / step).round() + zero).clamp(0, 255).sub(zero).mul(step)
        wide = torch.relu(torch.nn.functional.linear(hidden, torch.from_numpy(weight), named["wide.bias"]))
        wanted = torch.nn.functional.linear(wide, named["odd.weight"], named["odd.bias"]).numpy()
    assert np.allclose(found, wanted, atol=1e-4)
    assert perturb(model, ODD, LayerPlan("w4_grouped"), ranges={}).tensors == {}
    assert perturb(model, CONV, LayerPlan("w4_grouped"), ranges={}).tensors == {}


@pytest.mark.parametrize(("group", "able"), [(32, True), (128, True), (256, False)])
def test_a_group_that_does_not_divide_a_row_perturbs_nothing(model, group, able):
    found = perturb(model, WIDE, layer(group), ranges={})
    assert set(found.tensors) == ({f"{WIDE}:weight", f"{WIDE}:in"} if able else set())


def test_a_rate_counts_the_codes_and_the_two_bytes_of_each_scale(model):
    found = rates(model, lambda node: {f"{one}": layer(one) for one in (32, 128)} if node.key == WIDE else {})[WIDE]
    for group in (32, 128):
        stored = store(model, model.graph.by_key[WIDE], layer(group), None)
        codes, scale = stored.integers[f"{WIDE}:weight"], stored.tensors[f"{WIDE}:weight"].scale
        parts = scale.astype(np.float16).reshape(-1).view(np.uint8).reshape(-1, 2)
        scales = sum(bits_per_code(column) * len(column) for column in parts.T)
        assert found[f"{group}"] == pytest.approx(bits_per_code(codes) + scales / codes.size)
        assert bits_per_code(codes) < found[f"{group}"] <= 4 + 16 / group


def test_a_weight_that_is_not_finite_is_told(model):
    broken = model.with_weights({"wide.weight": np.full((12, 128), np.nan, np.float32)})
    with pytest.raises(JobError, match="NaN") as caught:
        store(broken, broken.graph.by_key[WIDE], layer(32), None)
    assert caught.value.where == "wide"
