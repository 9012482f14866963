"""A weight that several layers read has one form, one set of scales and one loss, whatever each call demands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from shared_weights import CELLS, recurrent, tied_table

from haversack.base.constraints import Constraints
from haversack.base.encodings import Affine
from haversack.base.errors import UsageError
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.base.profile import TensorStatistics
from haversack.compress.encode import store_weights
from haversack.compress.perturb import perturb
from haversack.compress.plans import float_first, uniform
from haversack.compress.rates import rates
from haversack.compress.selection import check
from haversack.profile.ranges import ranges
from haversack.profile.sensitivity import sensitivity
from haversack.tools.graph import tied
from haversack.tools.numerics.affine import BIAS_LIMIT, bias_codes, from_range

CELL, TABLE = recurrent(), tied_table()
FIRST, SECOND = "step:linear#0", "step:linear#1"


@pytest.fixture(scope="module")
def twice(make_model):
    """Return a layer that is called twice; the second time its inputs are small beside its bias."""
    import torch
    from torch import nn

    torch.manual_seed(3)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.step = nn.Linear(8, 8)
            self.head = nn.Linear(8, 3)
            with torch.no_grad():
                self.step.bias.copy_(torch.linspace(-3, 3, 8))

        def forward(self, x):
            return self.head(torch.tanh(self.step(1e-6 * torch.tanh(self.step(x)))))

    return make_model(Twice(), (8,))


@pytest.mark.parametrize("precision", ["int8", "w4a8"])
def test_scales_leave_room_for_the_bias_of_every_call(twice, precision):
    layers = dict.fromkeys((FIRST, SECOND), LayerPlan(precision))
    inputs = {key: f"{twice.graph.by_key[key].inputs[0]}:out" for key in (FIRST, SECOND)}
    affine = {inputs[FIRST]: from_range(-2.0, 2.0), inputs[SECOND]: from_range(-1e-6, 1e-6)}
    alone = store_weights(twice, Plan("t", {FIRST: layers[FIRST]}), affine)[0][f"{FIRST}:weight"]
    tensors, integers, findings = store_weights(twice, Plan("t", layers), affine)
    one, other = tensors[f"{FIRST}:weight"], tensors[f"{SECOND}:weight"]
    assert one.scale.tobytes() == other.scale.tobytes()
    assert (one.scale > alone.scale).any(), "the second call has less room"
    assert integers[f"{FIRST}:weight"] is integers[f"{SECOND}:weight"]
    for key in (FIRST, SECOND):
        codes = bias_codes(twice.weights["step.bias"], affine[inputs[key]].scale, one.scale)
        assert np.abs(codes.astype(np.int64)).max() <= BIAS_LIMIT
    assert [one.kind for one in findings] == ["dead-channel"]


def test_scales_that_are_kept_are_one_as_well(twice):
    layers = dict.fromkeys((FIRST, SECOND), LayerPlan("int8_dynamic"))
    made, _, _ = store_weights(twice, Plan("t", layers), {})
    held = {key: one for key, one in made.items() if isinstance(one, Affine)}
    again, integers, _ = store_weights(twice, Plan("t", layers), held, keep_scales=True)
    assert again[f"{SECOND}:weight"].scale.tobytes() == made[f"{FIRST}:weight"].scale.tobytes()
    assert integers[f"{FIRST}:weight"] is integers[f"{SECOND}:weight"]


def test_float16_scales_are_those_of_all_calls(twice):
    layers = {FIRST: LayerPlan("int8_weights"), SECOND: LayerPlan("int8_dynamic")}
    tensors, _, _ = store_weights(twice, Plan("t", layers), {}, half=True)
    one, other = tensors[f"{FIRST}:weight"].scale, tensors[f"{SECOND}:weight"].scale
    assert one.tobytes() == other.tobytes() == one.astype(np.float16).astype(np.float32).tobytes()


def test_one_call_is_perturbed_with_all(twice):
    spans = ranges(twice, [(np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32),)])
    for key in (FIRST, SECOND):
        found = perturb(twice, key, LayerPlan("int8"), ranges=spans)
        assert {f"{FIRST}:weight", f"{SECOND}:weight"} <= set(found.tensors)
        assert "head:linear#0:weight" not in found.tensors
    assert not perturb(twice, FIRST, LayerPlan("w4a8"), ranges=spans, widths={FIRST: {4}}).tensors


def test_the_first_call_has_the_loss_and_the_rate(twice):
    tried = []

    def told(model, key, layer):
        tried.append(key)
        return perturb(model, key, layer, ranges={})

    samples = [(np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32),)]
    way = {"int8_weights": LayerPlan("int8_weights")}
    found = sensitivity(twice, told, samples, ways=lambda _: way)
    assert set(found) == set(tried) == {FIRST, "head:linear#0"}
    assert set(rates(twice, lambda _: way)) == {FIRST, "head:linear#0"}


KINDS = ("int8", "w4a8", "int8_dynamic", "w4_grouped", "int8_weights", "palette", "float16")


@pytest.mark.parametrize("precision", KINDS)
def test_a_uniform_plan_has_one_form_for_each_weight(precision):
    step = Step("kmeans", {"bits": 4, "group": 16}) if precision == "palette" else Step("mse")
    for graph in (CELL, TABLE):
        for ops in (None, frozenset()):
            layers = uniform(graph, precision, weights=step, integer_ops=ops)
            assert list(tied.quarrels(graph, layers)) == []
    assert {"table:embedding#0", "head:linear#0"} <= set(uniform(TABLE, precision, weights=step))


def test_the_first_layer_in_float_is_not_one_that_is_called_again():
    layers = uniform(CELL, "int8")
    assert set(layers) - set(float_first(CELL, layers)) == {"front:linear#0"}
    nodes = tuple(
        replace(node, inputs=tuple(key.replace("front:linear", "x:input") for key in node.inputs))
        for node in CELL.nodes
        if node.key != "front:linear#0"
    )
    without = replace(CELL, nodes=nodes)
    layers = uniform(without, "int8")
    assert CELLS[0] in layers
    assert float_first(without, layers) == layers


def test_a_plan_that_stores_one_weight_twice_is_refused_by_name():
    layers = {CELLS[0]: LayerPlan("int8"), CELLS[1]: LayerPlan("int8"), CELLS[2]: LayerPlan("int8_weights", "tensor")}
    with pytest.raises(UsageError) as caught:
        check(CELL, Plan("t", layers), Constraints(integer_ops=frozenset({"linear"})))
    (fault,) = caught.value.faults
    assert fault.where == CELLS[2]
    assert "it reads cell.weight as cell:linear#0 does, and they are int8 and int8_weights" in fault.cause
    check(CELL, Plan("t", dict.fromkeys(CELLS, LayerPlan("int8"))), Constraints(integer_ops=frozenset({"linear"})))


def test_statistics_are_needed_of_every_call(twice):
    """What is decided once is still computed at each call, in the integers of its own inputs."""
    spans = ranges(twice, [(np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32),)])
    assert all(isinstance(one, TensorStatistics) for one in spans.values())
    found = perturb(twice, FIRST, LayerPlan("int8"), ranges=spans)
    scales = {found.affine(f"{twice.graph.by_key[key].inputs[0]}:out").scale.tobytes() for key in (FIRST, SECOND)}
    assert len(scales) == 2
