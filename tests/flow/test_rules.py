"""Rules obeyed: whatever is proposed, fixed layers are as the user says, and nothing forbidden is used."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from layered import network

from haversack.base.constraints import Constraints
from haversack.base.errors import UsageError
from haversack.base.job import Job
from haversack.base.plan import PRECISIONS, STATIC, LayerPlan, Plan, Step
from haversack.base.scope import Scope, precision, quantizers
from haversack.choose.forecast import COMPUTING
from haversack.flow import scoping
from haversack.flow.effort import EFFORTS, PLAIN, allowed
from haversack.flow.proposals import careful, proposals, smaller
from haversack.flow.request import Runtimes
from haversack.flow.rules import Rules, forms, lacking, refuse
from haversack.flow.search import ruling
from haversack.targets.contract import SHELF as TARGETS

GRAPH = network()
NAMES = ("onnxruntime", "executorch", "coreml", "ncnn")
PARTS = {name: TARGETS.build(name) for name in NAMES}
FREE = {name: scoping.ruled(GRAPH, ("up=float32",), (), {name: part}) for name, part in PARTS.items()}
KEYS = list(FREE["onnxruntime"].able["onnxruntime"])


def rules(*texts, without=(), target="onnxruntime"):
    return scoping.ruled(GRAPH, texts, without, {target: PARTS[target]})


def proposed(target, spend=EFFORTS["default"]):
    """Return all uniform plans of a target, as a search makes them."""
    part = PARTS[target]
    found = proposals(GRAPH, target, part.precisions, (target,), spend)
    first = found.variants[:1]
    narrow = [two for one in first for two in smaller(one, part.precisions, part.constraints(GRAPH), lambda _: "")]
    return [*found.variants, *narrow, *(two for one in first for two in careful(GRAPH, one)), *found.fallbacks]


def held(plan):
    return {key.partition(":")[0]: layer.precision for key, layer in plan.layers.items()}


def test_without_rules_plans_stay_as_they_are():
    plans = proposed("onnxruntime")
    assert Rules().kept(plans) == plans
    assert FREE["onnxruntime"].kept(plans) == plans


@given(st.sampled_from(NAMES), st.data())
def test_every_plan_that_is_kept_obeys(target, data):
    names = [name for name in scoping.names() if name != scoping.ALWAYS]
    without = data.draw(st.lists(st.sampled_from(names), unique=True, max_size=4).map(tuple))
    able = forms_of(target, without)[target]
    fixed = {key: data.draw(st.sampled_from([None, *able[key].values()]), key) for key in KEYS}
    fixed = {key: layer for key, layer in fixed.items() if layer is not None}
    assume(not {layer.precision for layer in fixed.values()} & set(without))
    found = Rules(Scope((), without, fixed), forms_of(target, without))
    assume(not any(lacking(found).values()))
    kept = found.kept(proposed(target, allowed(EFFORTS["default"], without)))
    for plan in kept:
        assert found.faults(plan) == ()
        assert found.scope.forbids(plan) == ()
        for key, layer in fixed.items():
            assert precision(plan.layers.get(key)) == layer.precision
        for key in KEYS:
            alone = not any(found.scope.allows(key, form) for form in found.able[target][key].values())
            assert alone or found.scope.allows(key, plan.layers.get(key))
        assert all(layer.precision in able[key] for key, layer in plan.layers.items())
    assert len({plan.digest for plan in kept}) == len(kept)
    assert kept or "float32" in without


def forms_of(target, without):
    return {target: forms(GRAPH, PARTS[target], PARTS[target].constraints(GRAPH), without)}


def test_a_fixed_layer_is_so_in_every_plan_and_the_others_are_as_proposed():
    before = proposed("onnxruntime")
    after = rules("head=float16").kept(before)
    assert {held(plan).get("head") for plan in after} == {"float16"}
    assert [{**held(plan), "head": ""} for plan in after][:3] == [{**held(plan), "head": ""} for plan in before][:3]


def test_a_layer_that_is_so_already_keeps_its_settings():
    special = Plan("onnxruntime", {"head:linear#0": LayerPlan("int8", "tensor", Step("percentile"))})
    assert rules("head=int8").obeyed(special) == special


def test_a_fixed_layer_in_4_bits_has_their_quantizer():
    (first, *_) = rules("head=w4a8").kept(proposed("onnxruntime"))
    assert held(first) == {"features.0": "int8", "features.1.conv": "int8", "features.10.conv": "int8", "head": "w4a8"}
    assert first.layers["head:linear#0"].weights == Step("mse", {"weight_least": 0.6})


def test_groups_of_4_bits_are_those_the_layer_can_have():
    form = FREE["onnxruntime"].able["onnxruntime"]["head:linear#0"]["w4_grouped"]
    assert form.weights.settings["group"] == 32


def test_a_forbidden_precision_is_stored_in_float_arithmetic_by_its_gentler_neighbour():
    (plan,) = rules(without=("int8_dynamic",)).kept([Plan("onnxruntime", {
        "head:linear#0": LayerPlan("int8_dynamic"), "features.0:conv2d#0": LayerPlan("int8"),
    })])  # fmt: skip
    assert held(plan) == {"features.0": "int8", "head": "int8_weights"}


def test_a_kind_of_plan_of_which_nothing_is_left_is_not_tried():
    kept = rules(without=("int8", "w4a8")).kept(proposed("onnxruntime"))
    assert not any(layer.precision in STATIC for plan in kept for layer in plan.layers.values())
    assert [plan.origin.partition(",")[0] for plan in kept] == [
        "int8 weights",
        "palettes of 64 values",
        "palettes of 16 values",
        "float16 weights",
        "float",
    ]


def test_4_bits_may_be_left_where_8_are_forbidden():
    first, *_ = rules(without=("int8",)).kept(proposed("onnxruntime"))
    assert set(held(first).values()) == {"w4a8"}


def test_a_forbidden_kernel_does_not_forbid_what_is_fixed_to_another():
    found = rules("head=w4a8", without=("int8",)).kept(proposed("onnxruntime"))
    assert found[0].prepare[-1].part == "gptq"
    assert held(found[0]) == {
        "features.0": "int8_weights",
        "features.1.conv": "int8_weights",
        "features.10.conv": "int8_weights",
        "head": "w4a8",
    }


def test_without_float32_no_layer_that_can_be_something_else_is_float():
    for plan in rules(without=("float32",)).kept(proposed("onnxruntime")):
        assert set(plan.layers) == set(KEYS)


def test_a_forbidden_quantizer_gives_way_to_the_plain_one():
    kept = rules(without=("mse",)).kept(proposed("onnxruntime"))
    parts = {part for plan in kept for layer in plan.layers.values() for part in quantizers(layer)}
    assert parts == {"minmax", "kmeans"}
    assert any(layer.precision in COMPUTING for layer in kept[0].layers.values())


@pytest.mark.parametrize(
    ("level", "without", "part"),
    [
        ("high", (), "gptq"),
        ("highest", (), "block_reconstruction"),
        ("highest", ("block_reconstruction",), "gptq"),
        ("highest", ("block_reconstruction", "gptq"), "bias_correct"),
        ("default", ("gptq",), "bias_correct"),
        ("default", ("bias_correct",), "gptq"),
        ("fast", ("bias_correct",), None),
        ("default", ("gptq", "bias_correct"), None),
    ],
)
def test_a_forbidden_rounding_gives_way_to_a_cheaper_one(level, without, part):
    found = allowed(EFFORTS[level], without)
    assert (found.rounding.part if found.rounding else None) == part
    assert (found is PLAIN) == (part is None)
    made = proposals(GRAPH, "onnxruntime", PRECISIONS, (), found).variants[0]
    assert [step.part for step in made.prepare] == ["fold_norm", *([part] if part else [])]


@pytest.mark.parametrize("target", NAMES)
def test_what_a_layer_can_be_is_what_its_runtime_has_and_float_always(target):
    for key, kinds in FREE[target].able[target].items():
        assert set(kinds) <= {*PARTS[target].precisions, "int8_weights"}, key  # tables are stored everywhere
        assert all(form.precision == kind for kind, form in kinds.items())
        assert "float32" in kinds


def test_a_layer_without_a_kernel_is_told_with_what_it_can_be():
    (fault,) = lacking(rules("features.0=w4_grouped"))["onnxruntime"]
    assert (fault.where, fault.cause.partition(";")[0]) == ("features.0", "onnxruntime cannot have it in w4_grouped")
    assert fault.cause.endswith("int8, w7a8, w6a8, w5a8, w4a8, w3a8, w2a8, w1a8, int8_weights, palette")


def test_each_runtime_is_asked_and_all_is_told_at_once():
    both = {name: PARTS[name] for name in ("ncnn", "coreml")}
    found = scoping.ruled(GRAPH, ("head=w4a8", "features.0=palette"), (), both)
    assert {name: len(faults) for name, faults in lacking(found).items()} == {"ncnn": 2, "coreml": 1}
    with pytest.raises(UsageError) as caught:
        refuse(lacking(found), found, {})
    assert len(caught.value.faults) == 3
    refuse({"ncnn": ()}, found, {})


def test_the_runtime_that_is_in_the_way_of_another_is_the_one_that_is_told():
    """onnxruntime alone has weights of 6 bits, and beside executorch, whose encodings it shares, it has not."""
    both = {name: PARTS[name] for name in ("onnxruntime", "executorch")}
    found = scoping.ruled(GRAPH, ("head=w6a8",), (), both)
    assert "w6a8" not in found.able["onnxruntime"]["head:linear#0"]
    told = lacking(found)
    assert told["onnxruntime"] == ()
    (fault,) = told["executorch"]
    assert fault.cause.startswith("executorch cannot have it in w6a8; it can be float32, ")
    assert found.scope.fixed["head:linear#0"].weights == Step("mse", {"weight_least": 0.6})


def test_a_fixed_layer_whose_scales_nothing_may_set_is_told():
    found = rules("head=int8", without=("mse", "minmax"))
    (fault,) = lacking(found)["onnxruntime"]
    assert (fault.where, fault.cause) == ("head", "--without forbids all that could set its scales")


def test_a_layer_all_of_whose_precisions_are_forbidden_is_told():
    found = rules(without=(*PRECISIONS, "palette"))
    told = lacking(found)["onnxruntime"]
    assert [fault.where for fault in told] == ["features.0", "features.1.conv", "features.10.conv", "head"]
    assert told[0].cause.startswith("--without forbids all that it can be in onnxruntime: float32, ")


def test_a_plan_of_somebody_else_is_held_against_the_rules():
    found = rules("head=float16", "features.0=int8", without=("gptq", "w4a8"))
    plan = Plan("onnxruntime", {
        "features.0:conv2d#0": LayerPlan("int8"), "features.1.conv:conv2d#0": LayerPlan("w4a8"),
    }, (Step("gptq"),))  # fmt: skip
    with pytest.raises(UsageError) as caught:
        refuse({}, found, {"onnxruntime": plan})
    assert {fault.where: fault.cause for fault in caught.value.faults} == {
        "head": "the plan has it in float32, and --layer wants float16",
        "features.1.conv": "the plan has it in w4a8, and --without forbids that",
        "gptq": "the plan uses it, and --without forbids that",
    }
    refuse({}, found, {"onnxruntime": found.obeyed(replace(plan, prepare=()))})


def test_constraints_shared_with_another_runtime_count():
    shared = Constraints(integer_ops=frozenset({"linear"}))
    assert "int8" not in forms(GRAPH, PARTS["onnxruntime"], shared)["features.0:conv2d#0"]


class Told(list):
    """A shop that keeps what it is told."""

    def tell(self, event):
        self.append(event.text)


@dataclass(frozen=True)
class Few:
    """What ``ruling`` looks at of a run's steps."""

    targets: dict
    shop: Told
    job: Job
    model: SimpleNamespace

    def only(self, names):
        return replace(self, targets={name: self.targets[name] for name in names})


def few(*names, rule):
    job = Job("small", "job.py", lambda: None, lambda: (), lambda: (), "top1", layer_precisions=(rule,))
    return Few({name: PARTS[name] for name in names}, Told(), job, SimpleNamespace(graph=GRAPH, notes=()))


def test_any_leaves_out_the_runtimes_that_are_in_the_way_and_keeps_the_one_that_can():
    begun = few("onnxruntime", "executorch", "ncnn", rule="head=w6a8")
    steps, tried, found = ruling(begun, Runtimes(tuple(begun.targets), one=True), {})
    assert tried.targets == ("onnxruntime",) == tuple(steps.targets)
    assert set(tried.left_out) == {"executorch", "ncnn"}
    assert [text.partition(" ")[0] for text in begun.shop] == ["executorch", "ncnn"]
    assert "w6a8" in found.able["onnxruntime"]["head:linear#0"]


def test_a_named_runtime_that_is_in_the_way_is_refused_by_its_name():
    begun = few("onnxruntime", "executorch", rule="head=w6a8")
    with pytest.raises(UsageError) as caught:
        ruling(begun, Runtimes(tuple(begun.targets)), {})
    assert [fault.cause.partition(" ")[0] for fault in caught.value.faults] == ["executorch"]
