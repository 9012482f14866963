"""Mixtures obey the user's say: fixed layers have one precision, and what is forbidden is no option."""

from __future__ import annotations

from dataclasses import replace

import pytest
from alone import HERE
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.budget import Budget
from haversack.base.plan import LayerPlan
from haversack.base.scope import Scope, precision
from haversack.choose.options import options


def offered(world, scope, base="int8"):
    found = options(
        world.graph,
        world.profile,
        world.plan(base).layers,
        weight_elements=dict(zip(world.layers, world.elements, strict=True)),
        speed={HERE: {"int8": 0.5}},
        scope=scope,
    )
    return [[option.plan.precision for option in found[key]] for key in found]


def test_what_is_forbidden_is_no_option(world):
    everything = [["int8", "float16", "float32"]] * 4
    assert offered(world, None) == offered(world, Scope()) == everything
    assert offered(world, Scope(without=("float16",))) == [["int8", "float32"]] * 4
    assert offered(world, Scope(without=("float16", "float32"))) == [["int8"]] * 4


def test_a_fixed_layer_has_one_option(world):
    scope = Scope(fixed={world.layers[1]: LayerPlan("int8")})
    assert offered(world, scope)[:2] == [["int8", "float16", "float32"], ["int8"]]


def test_what_was_measured_stays_an_option(world):
    assert offered(world, Scope(without=("int8",)))[0][0] == "int8"


@pytest.mark.parametrize("size", [90_000, 150_000, 300_000, 700_000])
@given(
    st.lists(st.sampled_from([None, "int8", "float16"]), min_size=4, max_size=4),
    st.sampled_from([(), ("float16",), ("float32",)]),
)
def test_every_mixture_obeys(make_world, size, held, without):
    world = make_world()
    fixed = {key: LayerPlan(kind) for key, kind in zip(world.layers, held, strict=True) if kind and kind not in without}
    scope = Scope((), without, fixed)
    base = world.plan(*(kind if kind and kind not in without else "int8" for kind in held))
    mixer = replace(world.mixer, scope=scope)
    found = mixer.propose({HERE: world.evaluate(base)}, Budget(size=size))
    for key in world.layers:
        layer = found.plans[HERE].layers.get(key)
        assert scope.allows(key, layer), key
        assert key not in fixed or precision(layer) == fixed[key].precision


def test_a_limit_that_only_a_forbidden_option_meets_is_not_forecast_to_be_met(world):
    base = {HERE: world.evaluate(world.plan("float16"))}
    tight = Budget(size=world.overhead + 2 * sum(world.elements) - 50_000)
    free = replace(world.mixer, scope=Scope(fixed={}))
    assert free.propose(base, tight) == world.mixer.propose(base, tight)
    held = replace(world.mixer, scope=Scope(without=("int8",)))
    assert not held.propose(base, tight).feasible
