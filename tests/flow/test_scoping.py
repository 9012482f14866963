"""Rules for layers as they are typed: what a glob names, what contradicts, what is told of all that is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layered import network

from haversack.base.errors import UsageError
from haversack.base.graph import Graph, Node, TensorSpec
from haversack.base.scope import Scope
from haversack.flow import scoping
from haversack.targets.contract import SHELF as TARGETS

ORT = {"onnxruntime": TARGETS.build("onnxruntime")}


def fixed(*rules, targets=ORT):
    found = scoping.ruled(network(), rules, (), targets).scope.fixed
    return {key.partition(":")[0]: layer.precision for key, layer in found.items()}


def faults(*rules, without=(), targets=ORT):
    with pytest.raises(UsageError) as caught:
        scoping.ruled(network(), rules, without, targets)
    assert caught.value.exit_code == 2
    return {fault.where: fault.cause for fault in caught.value.faults}


@pytest.mark.parametrize(
    ("glob", "named"),
    [
        ("head", {"head"}),
        ("features.0", {"features.0"}),
        ("features.1", {"features.1.conv"}),  # with all inside it, and not features.10
        ("features.1*", {"features.1.conv", "features.10.conv"}),
        ("features", {"features.0", "features.1.conv", "features.10.conv"}),
        ("features.*.conv", {"features.1.conv", "features.10.conv"}),
        ("*", {"features.0", "features.1.conv", "features.10.conv", "head"}),
        ("features.[01]", {"features.0", "features.1.conv"}),
        ("*:linear#*", {"head"}),
        ("features.0:conv2d#0", {"features.0"}),
    ],
)
def test_what_a_glob_names(glob, named):
    assert set(fixed(f"{glob}=int8_weights")) == named


def test_layers_that_nobody_names_are_free():
    assert fixed() == {}
    assert fixed("head=float32", "features.0=int8") == {"head": "float32", "features.0": "int8"}


def test_two_rules_that_agree_may_name_one_layer():
    assert fixed("head=int8", "*=int8")["head"] == "int8"


def test_two_precisions_for_one_layer_contradict_whichever_is_longer_or_later():
    for rules in (("features.*=int8", "features.0=float32"), ("features.0=float32", "features.*=int8")):
        assert faults(*rules) == {"features.0": f"{' and '.join(rules)} contradict each other"}


@given(st.permutations(["head=int8", "*=float16", "features.0=float32", "features=float16"]))
def test_the_order_of_rules_means_nothing(rules):
    assert set(faults(*rules)) == {"head", "features.0"}


def test_a_glob_that_names_no_layer_shows_the_nearest():
    (cause,) = faults("feature.1.conv=int8").values()
    assert cause.startswith("it names no layer; the nearest are features.1.conv, ")
    (cause,) = faults("zzz=int8").values()
    assert cause == "it names no layer; layers are features.0, features.1.conv, features.10.conv, head"


def test_a_norm_that_was_folded_is_called_so():
    parts = {"onnxruntime": TARGETS.build("onnxruntime")}
    with pytest.raises(UsageError) as caught:
        scoping.ruled(network(), ("features.1.norm=int8",), (), parts, ("features.1.norm",))
    assert "features.1.norm is a norm, folded into the layer before it; layers are features.0, " in str(caught.value)
    with pytest.raises(UsageError, match="one: features.1.norm is a norm, folded"):
        scoping.parted({"one": network()}, ("features.1.norm=int8",), {"one": ("features.1.norm",)})


def test_what_has_no_weights_is_no_layer():
    assert faults("features.1.act=int8")["features.1.act=int8"].startswith("what it names has no weights; layers are ")


def test_what_is_float32_in_every_plan_may_be_called_so_and_nothing_else():
    assert fixed("up=float32") == {}
    assert faults("up=int8") == {"up=int8": "conv_transpose2d is float32 in every plan"}


def test_all_that_is_wrong_is_told_at_once():
    told = faults("hed=int8", "features.0=w4a8", "features.0=int8", "features.10=w4_grouped")
    assert told["hed=int8"].startswith("it names no layer; the nearest are head")
    assert "contradict each other" in told["features.0"]
    assert told["features.10.conv"].startswith("onnxruntime cannot have it in w4_grouped; it can be float32, ")


@pytest.mark.parametrize(
    ("rules", "without", "said"),
    [
        (["head"], [], "--layer head: it is not GLOB=PRECISION"),
        (["=int8"], [], "it is not GLOB=PRECISION"),
        (["head="], [], "it is not GLOB=PRECISION"),
        (["head=palette4"], [], "--layer head=palette4: palette alone names one, of 6 bits; other bits are set in"),
        (["head=int9"], [], "there is no precision 'int9'; did you mean int8?"),
        (["a b=zz"], [], "--layer 'a b=zz': there is no precision 'zz' (one of float32, "),
        (["head=w4a8"], ["w4a8"], "--layer head=w4a8: --without forbids w4a8"),
        ([], ["w4a9"], "--without w4a9: there is no precision and no part of this name; did you mean w4a8?"),
        ([], ["gtpq"], "did you mean gptq?"),
        ([], ["fold_norm"], "it is done when the model is read, and cannot be left out"),
    ],
)
def test_what_is_wrong_whatever_the_model_is(rules, without, said):
    with pytest.raises(UsageError) as caught:
        scoping.typed(rules, without)
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


def test_faults_of_both_flags_are_told_together():
    with pytest.raises(UsageError) as caught:
        scoping.typed(["head", "a=int9"], ["nothing-like-it", "fold_norm"])
    assert len(caught.value.faults) == 4


def test_a_job_files_faults_name_its_fields():
    with pytest.raises(UsageError) as caught:
        scoping.check(["head=int9"], ["w4a9"], typed=False)
    assert [fault.where for fault in caught.value.faults] == ["layer_precisions: head=int9", "without: w4a9"]


def test_every_precision_and_every_part_that_a_plan_names_may_be_forbidden():
    known = [name for name in scoping.names() if name != scoping.ALWAYS]
    assert {"w4a8", "palette", "gptq", "equalize", "coarse", "mse"} <= set(known)
    assert scoping.typed((), known)[1] == tuple(known)


@pytest.mark.parametrize(("typed", "read"), [((), None), (("none",), ()), (("head=int8", "head=int8"), ("head=int8",))])
def test_nothing_typed_is_not_none_typed(typed, read):
    assert scoping.typed(typed, ())[0] == read


def test_none_beside_others_is_refused():
    with pytest.raises(UsageError, match="none stands beside others") as caught:
        scoping.typed((), ("none", "w4a8"))
    assert caught.value.where == "--without"


@given(st.lists(st.sampled_from(["head=int8", "*.conv=float16", "a b=w4a8"]), unique=True))
def test_flags_say_the_same_again(rules):
    without = ("palette",)
    words = scoping.flags(Scope(tuple(rules), without))
    pairs = list(zip(words[::2], words[1::2], strict=True))
    assert [text for flag, text in pairs if flag == "--layer"] == rules
    assert [text for flag, text in pairs if flag == "--without"] == list(without)


CELL = Graph(
    tuple(
        Node(key, op, key, inputs, TensorSpec(("batch", 64), "float32"), weight=weight)
        for key, op, inputs, weight in (
            ("x:input#0", "input", (), None),
            ("now:linear#0", "linear", ("x:input#0",), "cell.weight"),
            ("now:tanh#0", "tanh", ("now:linear#0",), None),
            ("then:linear#0", "linear", ("now:tanh#0",), "cell.weight"),
            ("head:linear#0", "linear", ("then:linear#0",), "head.weight"),
        )
    ),
    ("x:input#0",),
    ("head:linear#0",),
)
"""One weight that two modules read."""


def test_what_is_said_of_one_layer_holds_for_all_that_read_its_weight():
    fixed = scoping.ruled(CELL, ("then=float16",), (), ORT).scope.fixed
    assert {key: layer.precision for key, layer in fixed.items()} == {
        "now:linear#0": "float16",
        "then:linear#0": "float16",
    }


def test_two_precisions_for_one_weight_contradict_with_both_layers_named():
    with pytest.raises(UsageError) as caught:
        scoping.ruled(CELL, ("now=int8", "then=float32", "head=int8"), (), ORT)
    (fault,) = caught.value.faults
    assert fault.where == "then"
    assert fault.cause == (
        "now=int8 and then=float32 contradict each other: now and then read one weight (cell.weight), which a file "
        "stores once"
    )
    assert "layers that read one weight the same" in caught.value.next_step
    assert caught.value.exit_code == 2


def test_calls_of_one_module_are_told_apart_by_their_keys():
    nodes = tuple(replace(n, key=n.key.replace("then:linear#0", "now:linear#1")) for n in CELL.nodes)
    nodes = tuple(replace(n, inputs=tuple(k.replace("then:linear#0", "now:linear#1") for k in n.inputs)) for n in nodes)
    graph = Graph(nodes, CELL.inputs, CELL.outputs)
    with pytest.raises(UsageError, match="now:linear#0 and now:linear#1 read one weight"):
        scoping.ruled(graph, ("now:linear#0=int8", "now:linear#1=float32"), (), ORT)


def test_one_weight_may_be_computed_with_in_two_ways():
    fixed = scoping.ruled(CELL, ("now=int8", "then=int8_dynamic"), (), ORT).scope.fixed
    assert {key: layer.precision for key, layer in fixed.items()} == {
        "now:linear#0": "int8",
        "then:linear#0": "int8_dynamic",
    }
