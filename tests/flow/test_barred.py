"""What only a forbidden part, or a layer fixed otherwise, could meet: named in words, and nothing else is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from layered import network

from haversack.base.budget import Budget
from haversack.base.candidate import Artifact, ArtifactFile, Candidate, Latency, Parity
from haversack.base.plan import PRECISIONS, LayerPlan, Plan, Step
from haversack.base.profile import Profile
from haversack.base.quality import Drop, Quality
from haversack.base.scope import Scope
from haversack.choose.mixing import Mixer
from haversack.choose.verdict import judged
from haversack.flow.barred import else_free, instead, lifts, words

T = "onnxruntime"
HEAD, FIRST = "head:linear#0", "features.0:conv2d#0"
ELEMENTS = {HEAD: 10_000, FIRST: 10_000}
FEW = ("w2a8", "w4a8", "w5a8", "w7a8")
WIDE = Plan(T, dict.fromkeys(ELEMENTS, LayerPlan("int8", weights=Step("mse"))), origin="int8")
NARROW = Plan(T, dict.fromkeys(ELEMENTS, LayerPlan("w4a8", weights=Step("mse"))), origin="4 bits")


def mixer(scope, *, known=True):
    losses = {key: {"int8": 0.01, **({"w4a8": 0.1} if known else {})} for key in ELEMENTS}
    return Mixer(network(), Profile({}, losses), ELEMENTS, {T: PRECISIONS}, scope)


def measured(plan=WIDE, size=21_000, unit="fraction"):
    file = ArtifactFile("model.onnx", size, size, "0" * 64)
    latency = Latency(0.5, 1.0, 1.0, 9.0, 0.5, 0.5, 0.5, 2.0, 100)
    quality = Quality("top1", 0.9, unit, "higher", 100, 0.03)
    drop = Drop(0.0, -0.01, 0.01, 100)
    return Candidate(plan, Artifact(T, (file,), (), (), "1"), quality, drop, Parity(1.0, 0.01), latency, None)


def told(scope, budget=None, *, uniform=lambda *_: (), known=True, made=None):
    budget = budget or Budget(size=15_000)
    found = {T: judged([made or measured()], budget)}
    barred = instead(found, budget, mixer(scope, known=known), uniform)
    return {target: one.words for target, one in barred.items()}


def test_a_forbidden_precision_that_would_reach_it_is_named_with_the_limit():
    assert told(Scope(without=("palette", "w4a8"))) == {
        T: "only w4a8, which --without forbids, is forecast to reach size=15KB"
    }


def test_what_is_met_needs_nothing_else():
    assert told(Scope(without=("w4a8",)), Budget(size=30_000)) == {}


def test_the_gentlest_that_is_enough_is_named_and_not_as_the_only_one_where_others_are():
    by_width = {name: Plan(T, dict.fromkeys(ELEMENTS, LayerPlan(name, weights=Step("mse")))) for name in FEW}

    def uniform(_, scope):
        return [plan for name, plan in by_width.items() if name not in scope.without]

    found = told(Scope(without=FEW), Budget(size=17_500), uniform=uniform, known=False)
    assert found == {T: "w5a8, which --without forbids, is forecast to reach size=17.5KB"}
    one = told(Scope(without=FEW), Budget(size=8_000), uniform=uniform, known=False)
    assert one == {T: "only w2a8, which --without forbids, is forecast to reach size=8KB"}


@pytest.mark.parametrize("scope", [Scope(), Scope(without=("palette", "gptq"))])
def test_what_would_not_help_is_not_named(scope):
    assert told(scope) == {}


def test_a_limit_that_nothing_reaches_names_nothing():
    assert told(Scope(without=("w4a8",)), Budget(size=3_000)) == {}
    assert told(Scope(without=("w4a8",)), Budget(drop=-0.5)) == {}


def test_a_uniform_plan_that_is_forbidden_counts_where_no_mixture_is_known():
    """Mixtures know no w4a8 without its loss; the plan that the user forbids is forecast by its weights."""

    def uniform(target, scope):
        assert target == T
        return [] if "w4a8" in scope.without else [NARROW]

    scope = Scope(without=("w4a8",))
    assert told(scope, known=False) == {}
    assert told(scope, known=False, uniform=uniform) == {
        T: "only w4a8, which --without forbids, is forecast to reach size=15KB"
    }


def test_a_fixed_layer_that_stands_in_the_way_is_named():
    scope = Scope(("head=float32",), (), {HEAD: LayerPlan("float32")})
    held = replace(WIDE, layers={FIRST: WIDE.layers[FIRST]})

    def uniform(_, lifted):
        return [held if lifted.fixed else WIDE]

    said = told(scope, Budget(size=25_000), uniform=uniform, made=measured(held, 51_000))
    assert said == {T: "only head in int8, which --layer fixes otherwise, is forecast to reach size=25KB"}


def test_both_are_lifted_together_where_neither_is_enough():
    scope = Scope(("head=float32",), ("w4a8",), {HEAD: LayerPlan("float32")})
    held = replace(WIDE, layers={FIRST: WIDE.layers[FIRST]})

    def uniform(_, lifted):
        return [] if lifted.fixed or lifted.without else [NARROW]

    said = told(scope, Budget(size=12_000), uniform=uniform, known=False, made=measured(held, 51_000))
    assert said[T].startswith("only w4a8, which --without forbids, and head in w4a8, which --layer fixes otherwise,")


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        (Scope(), ""),
        (Scope(without=("int8",)), ""),
        (Scope(without=("w4a8", "mse")), "w4a8 and mse, which --without forbids,"),
        (Scope(fixed={HEAD: LayerPlan("w4a8")}), ""),
        (
            Scope(without=("mse",), fixed={HEAD: LayerPlan("int8"), FIRST: LayerPlan("float32")}),
            "mse, which --without forbids, and head, features.0 in w4a8, which --layer fixes otherwise,",
        ),
    ],
)
def test_what_of_a_plan_is_barred(scope, said):
    assert words(NARROW, scope) == said


@dataclass(frozen=True)
class Many:
    """So many fixed layers as a line has no room for."""

    count: int = 5

    @property
    def scope(self):
        return Scope(fixed={f"l{n}:linear#0": LayerPlan("float32") for n in range(self.count)})


def test_many_layers_are_shortened():
    plan = Plan(T, {f"l{n}:linear#0": LayerPlan("int8") for n in range(5)})
    assert words(plan, Many().scope) == "l0, l1, l2, … in int8, which --layer fixes otherwise,"


def test_what_else_might_be_said_begins_with_the_gentlest_name():
    scope = Scope(("head=float32",), ("palette", "w2a8", "gptq", "w7a8", "w4a8"), {HEAD: LayerPlan("float32")})
    found = list(lifts(scope))
    gone = [[name for name in scope.without if name not in one.without] for one in found]
    assert gone == [["w7a8"], ["w4a8"], ["palette"], ["w2a8"], ["gptq"], [], [*scope.without]]
    assert [bool(one.fixed) for one in found] == [True] * 5 + [False] * 2


@pytest.mark.parametrize("scope", [Scope(), Scope(without=("w4a8",)), Scope(fixed={HEAD: LayerPlan("int8")})])
def test_all_is_lifted_only_where_there_is_more_than_one_thing(scope):
    assert len(list(lifts(scope))) == len(scope.without) + bool(scope.fixed)


def test_what_a_plan_needs_is_barred_alone_to_see_whether_anything_else_would_do():
    scope = Scope((), ("w4a8", "w2a8"), {HEAD: LayerPlan("float32"), FIRST: LayerPlan("w4a8")})
    alone = list(else_free(scope, NARROW))
    assert [one.without for one in alone] == [("w4a8",), ()]
    assert [bool(one.fixed) for one in alone] == [False, True]
    assert list(else_free(Scope(without=("w2a8",)), NARROW)) == []


def test_a_target_without_candidates_is_told_nothing():
    assert instead({T: []}, Budget(size=1), mixer(Scope(without=("w4a8",)))) == {}
