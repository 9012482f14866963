"""What the user allows of layers and plans: fixed precisions, forbidden names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.plan import PRECISIONS, LayerPlan, Plan, Step
from haversack.base.scope import Scope, precision, quantizers

COARSE = LayerPlan("int8", weights=Step("coarse", {"factor": 8.0, "of": "percentile"}))
kinds = st.sampled_from([*PRECISIONS, "palette"])
layers = st.builds(LayerPlan, kinds, st.just("channel"), st.builds(Step, st.sampled_from(["mse", "minmax"])))


@given(st.none() | layers)
def test_nothing_said_allows_everything(layer):
    assert Scope().allows("a:linear#0", layer)
    assert Scope().forbids(Plan("t", {} if layer is None else {"a:linear#0": layer}, (Step("gptq"),))) == ()


@given(st.none() | layers, kinds)
def test_a_fixed_layer_has_its_precision_and_no_other(layer, kind):
    scope = Scope(fixed={"a:linear#0": LayerPlan(kind)})
    assert scope.allows("a:linear#0", layer) == (precision(layer) == kind)
    assert scope.allows("b:linear#0", layer)


@given(st.none() | layers, kinds)
def test_a_forbidden_precision_is_allowed_nowhere(layer, kind):
    assert Scope(without=(kind,)).allows("a:linear#0", layer) == (precision(layer) != kind)


def test_a_layer_that_is_not_named_is_float32():
    assert precision(None) == "float32"
    assert not Scope(without=("float32",)).allows("a:linear#0", None)
    assert Scope(fixed={"a:linear#0": LayerPlan("float32")}).allows("a:linear#0", None)


@pytest.mark.parametrize(
    ("layer", "parts"),
    [
        (LayerPlan("int8", weights=Step("mse")), {"mse"}),
        (COARSE, {"coarse", "percentile"}),
        (LayerPlan("int8", weights=Step("coarse", {"factor": 2.0})), {"coarse", "mse"}),
        (LayerPlan("float16"), set()),
        (LayerPlan("float32"), set()),
    ],
)
def test_the_parts_that_set_scales(layer, parts):
    assert quantizers(layer) == parts
    for part in ("mse", "coarse", "percentile", "minmax"):
        assert Scope(without=(part,)).allows("a:linear#0", layer) == (part not in parts)


def test_what_a_plan_uses_of_what_is_forbidden():
    static = Plan("t", {"a:linear#0": COARSE}, (Step("fold_norm"), Step("gptq")), Step("minmax"))
    names = ("w4a8", "gptq", "int8", "minmax", "percentile", "bias_correct", "coarse")
    assert Scope(without=names).forbids(static) == ("gptq", "int8", "minmax", "percentile", "coarse")


def test_ranges_count_only_where_a_layer_is_static():
    stored = Plan("t", {"a:linear#0": LayerPlan("int8_weights", weights=Step("mse"))}, ranges=Step("minmax"))
    assert Scope(without=("minmax",)).forbids(stored) == ()
