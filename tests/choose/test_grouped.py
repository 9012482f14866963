"""4-bit weights in groups as options of layers that quantize their activations at run time, in one knapsack with 8."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import pytest
from alone import best, propose, resolve

from haversack.base.budget import Budget
from haversack.base.plan import PRECISIONS, LayerPlan, Plan, Step
from haversack.base.profile import Profile
from haversack.base.recipe import FORMAT, Recipe, read, write
from haversack.base.scope import Scope
from haversack.choose.forecast import TOLERANCE, hopeless, least_bytes
from haversack.choose.mixing import MIXED, Mixer
from haversack.choose.options import FULL, GROUPED, PROBE, grouped, options, stored_bits, stores, ways

WIDE = LayerPlan("int8_dynamic", weights=FULL)
FINE, LARGE = map(grouped, GROUPED)
ERRORS = {FINE.kind: (0.2, 0.5, 0.1), LARGE.kind: (0.3, 0.7, 0.15)}
"""What the layers but the last lose so; the last can have no groups."""


@dataclass
class Grouping:
    """The little world with activations quantized at run time, all layers but the last with groups as well.

    ``slow`` is what groups of 32 take of float's time.
    """

    world: object
    slow: float = 0.5

    @property
    def profile(self):
        known = self.world.profile
        losses = {key: {"int8_dynamic": found["int8"]} for key, found in known.sensitivity.items()}
        for kind, errors in ERRORS.items():
            for key, error in zip(self.world.layers[:-1], errors, strict=True):
                losses[key][kind] = error
        rates = {key: {FINE.kind: 4.2, LARGE.kind: 4.0} for key in self.world.layers[:-1]}
        return Profile(known.seconds, losses, rates)

    @property
    def elements(self):
        return dict(zip(self.world.layers, self.world.elements, strict=True))

    def mixer(self, able=PRECISIONS, scope=None):
        return Mixer(self.world.graph, self.profile, self.elements, {"onnxruntime": able}, scope or Scope())

    def options(self, base, able=PRECISIONS, **settings):
        speed = {"onnxruntime": {"int8_dynamic": 0.5, "w4_grouped": 0.5, **settings.pop("speed", {})}}
        return options(
            self.world.graph,
            self.profile,
            base,
            weight_elements=self.elements,
            speed=speed,
            precisions=able,
            **settings,
        )

    def plan(self, *layers):
        each = layers * len(self.world.layers) if len(layers) == 1 else layers
        return Plan("onnxruntime", dict(zip(self.world.layers, each, strict=True)), origin="uniform")

    def evaluate(self, plan):
        """Bytes, seconds and squared losses add up, as in the little world."""
        graph = self.world.graph
        held = [(key, plan.layers.get(key, LayerPlan("float32"))) for key in self.world.layers]
        size = sum(self.elements[key] * stored_bits(one, graph.by_key[key]) / 8 for key, one in held)
        speeds = {"float32": 1.0, FINE.kind: self.slow}
        known = self.profile.sensitivity
        times = zip(self.world.seconds, held, strict=True)
        seconds = sum(one * speeds.get(layer.kind, 0.5) for one, (_, layer) in times)
        squared = sum(known[key].get(layer.kind, 0.0) ** 2 for key, layer in held)
        made = self.world.evaluate(self.world.plan("int8"))
        files = (replace(made.artifact.files[0], bytes=round(self.world.overhead + size)),)
        rest = len(self.world.layers) * self.world.relu_seconds * 0.5
        ratio = (seconds + rest) / self.world.total_seconds
        return replace(
            made,
            plan=plan,
            artifact=replace(made.artifact, files=files),
            latency=replace(made.latency, ratio=ratio, ratio_low=ratio, ratio_high=ratio),
            parity=replace(made.parity, relative_error=squared**0.5),
        )


@pytest.fixture
def grouping(world):
    return Grouping(world)


def kinds(found):
    return [option.plan.kind for option in found]


def held(plan):
    return [layer.kind for layer in plan.layers.values()]


def test_a_kind_tells_how_many_weights_share_a_scale():
    assert [grouped(group).kind for group in GROUPED] == ["w4_grouped/32", "w4_grouped/128"]
    assert LayerPlan("w4_grouped").kind == "w4_grouped/32"


def test_groups_are_options_where_their_loss_is_known(world, grouping):
    found = grouping.options(grouping.plan(WIDE).layers)
    one, last = kinds(found[world.layers[0]]), kinds(found[world.layers[3]])
    assert one == ["int8_dynamic", FINE.kind, LARGE.kind, "float16", "float32"]
    assert last == ["int8_dynamic", "float16", "float32"]
    wide, fine, large = found[world.layers[0]][:3]
    assert fine.bytes == world.elements[0] * (4 + 16 / 32) / 8
    assert large.bytes == world.elements[0] * (4 + 16 / 128) / 8
    assert (fine.download, large.download) == (world.elements[0] * 4.2 / 8, world.elements[0] * 4.0 / 8)
    assert (fine.loss, large.loss) == pytest.approx((0.2**2, 0.3**2))
    assert fine.seconds == wide.seconds


def test_from_groups_the_way_back_is_an_option(world, grouping):
    found = grouping.options(grouping.plan(LARGE).layers)
    assert found[world.layers[0]][1].plan == WIDE
    assert kinds(found[world.layers[0]])[:3] == [LARGE.kind, "int8_dynamic", FINE.kind]
    assert kinds(found[world.layers[3]]) == [LARGE.kind, "float16", "float32"]  # what it loses nobody knows


def test_from_groups_coarser_steps_are_options_as_well(world, grouping):
    probe = f"int8_dynamic/{PROBE:g}"
    known = grouping.profile
    losses = {key: {**found, probe: 0.4} for key, found in known.sensitivity.items()}
    rates = {key: {"int8_dynamic": 7.0, probe: 4.0} for key in world.layers}
    for first in (WIDE, LARGE):
        found = options(
            world.graph,
            Profile(known.seconds, losses, rates),
            grouping.plan(first).layers,
            weight_elements=grouping.elements,
            speed={"onnxruntime": {}},
            light=True,
        )
        assert probe in kinds(found[world.layers[0]])
        assert found[world.layers[0]][0].plan == first


@pytest.mark.parametrize("precision", ["int8", "int8_weights", "float16"])
def test_only_layers_that_quantize_activations_at_run_time_have_them(world, grouping, precision):
    found = grouping.options(grouping.plan(LayerPlan(precision)).layers)
    assert not any("w4_grouped" in kind for each in found.values() for kind in kinds(each))


def test_a_target_without_them_is_not_offered_them(grouping):
    found = grouping.options(grouping.plan(WIDE).layers, ("float32", "int8_dynamic"))
    assert {tuple(kinds(each)) for each in found.values()} == {("int8_dynamic", "float32")}


def test_what_the_user_forbids_or_fixes_is_no_option(world, grouping):
    base = grouping.plan(WIDE).layers
    without = grouping.options(base, scope=Scope(without=("w4_grouped",)))
    assert not any("w4_grouped" in kind for each in without.values() for kind in kinds(each))
    fixed = grouping.options(base, scope=Scope(fixed={world.layers[0]: WIDE}))
    assert kinds(fixed[world.layers[0]]) == ["int8_dynamic"]
    assert FINE.kind in kinds(fixed[world.layers[1]])


@pytest.mark.parametrize("first", [WIDE, FINE, LARGE], ids=lambda layer: layer.kind)
@pytest.mark.parametrize("limit", [170_000, 150_000, 145_500, 141_000])
def test_the_knapsack_finds_the_mixture_that_loses_least(grouping, first, limit):
    """All mixtures are looked through; from whatever uniform plan was measured, the best of them is found."""
    base = grouping.evaluate(grouping.plan(first, first, first, WIDE))
    plan, told = propose(grouping.mixer(), base, Budget(size=limit))
    every = [grouping.evaluate(grouping.plan(*one, WIDE)) for one in itertools.product((WIDE, FINE, LARGE), repeat=3)]
    fitting = [one for one in every if one.artifact.bytes <= limit]
    least = min(fitting, key=lambda one: one.parity.relative_error)
    assert held(plan) == held(least.plan)
    assert told.bytes == pytest.approx(least.artifact.bytes, abs=1)
    assert told.relative_error == pytest.approx(least.parity.relative_error)


def test_where_8_bits_fit_no_group_pays_for_layers_in_float(grouping, monkeypatch):
    """Groups lose hardly more than 8 bits here: their bytes would give the first layer room to be float."""
    monkeypatch.setitem(ERRORS, FINE.kind, (0.031, 0.081, 0.0101))
    base = grouping.evaluate(grouping.plan(WIDE))
    wide, _ = propose(grouping.mixer(), base, Budget(size=290_000, latency_ratio=2.0))
    assert base.artifact.bytes < 290_000
    assert not [kind for kind in held(wide) if kind.startswith("w4_grouped")]
    tight, _ = propose(grouping.mixer(), base, Budget(size=base.artifact.bytes - 20_000, latency_ratio=2.0))
    assert [kind for kind in held(tight) if kind.startswith("w4_grouped")]


def test_a_mixture_loses_less_than_the_uniform_plan_that_fits(grouping):
    """A uniform plan with groups in every layer meets the limit; the search finds what loses less, and ships it."""
    uniform = [grouping.plan(one, one, one, WIDE) for one in (WIDE, FINE)]
    limit = Budget(size=170_000)
    found = best(uniform, limit, grouping.evaluate, mixer=grouping.mixer())
    assert found[0].plan.origin == MIXED
    assert {"int8_dynamic", FINE.kind} == set(held(found[0].plan))
    assert found[0].verdict == "chosen"
    assert found[0].parity.relative_error < 0.5 * grouping.evaluate(uniform[1]).parity.relative_error


def test_resolve_forecasts_a_mixture_for_another_budget(grouping):
    made = [grouping.evaluate(grouping.plan(WIDE))]
    answer = resolve(made, Budget(size=170_000), grouping.mixer())
    assert not answer.met
    assert {"int8_dynamic", FINE.kind} == set(held(answer.plan))
    assert answer.forecast.bytes <= 170_000


def test_a_mixture_goes_through_a_recipe_and_back(tmp_path, world, grouping):
    plan, _ = propose(grouping.mixer(), grouping.evaluate(grouping.plan(WIDE)), Budget(size=145_500))
    write(Recipe(FORMAT, "job.py", "", Budget(size=145_500), (plan,)), tmp_path / "recipe.toml")
    (again,) = read(tmp_path / "recipe.toml").plans
    assert again.digest == plan.digest
    assert held(again) == held(plan)


def test_groups_take_the_time_of_8_bits_until_both_were_measured(world, make_world):
    slow = Grouping(world, slow=0.9)
    both = [slow.plan(one, one, one, WIDE) for one in (WIDE, FINE)]
    wide, fine = map(slow.evaluate, both)
    limit = Budget(size=170_000, latency_ratio=wide.latency.ratio * 1.05)
    for known, expected in (([wide], FINE.kind), ([wide, fine], LARGE.kind)):
        plan, told = propose(slow.mixer().knowing(known), wide, limit)
        assert expected in held(plan)
        assert told.latency_ratio <= limit.latency_ratio
    assert FINE.kind not in held(plan)
    back, told = propose(slow.mixer().knowing([wide, fine]), fine, limit)
    assert told.latency_ratio < fine.latency.ratio
    assert "int8_dynamic" in held(back)


def test_the_search_and_resolve_go_by_both_times(make_world):
    slow = Grouping(make_world(), slow=0.9)
    plans = [slow.plan(one, one, one, WIDE) for one in (WIDE, FINE)]
    made = [slow.evaluate(plan) for plan in plans]
    limit = Budget(size=170_000, latency_ratio=made[0].latency.ratio * 1.05)
    answer = resolve(made, limit, slow.mixer())
    assert LARGE.kind in held(answer.plan)
    assert FINE.kind not in held(answer.plan)
    found = best(plans, limit, slow.evaluate, mixer=slow.mixer())
    assert found[0].plan.layers == answer.plan.layers
    assert [one.plan.origin for one in found].count(MIXED) == 1


def test_what_was_measured_is_of_uniform_plans_that_have_a_time(grouping):
    wide, fine = (grouping.evaluate(grouping.plan(one, one, one, WIDE)) for one in (WIDE, FINE))
    mixed = replace(fine, plan=replace(fine.plan, origin=MIXED))
    known = grouping.mixer().knowing([wide, replace(fine, latency=None), mixed]).ratios
    assert known == {"onnxruntime": {"int8_dynamic": wide.latency.ratio}}
    slower = replace(wide, latency=replace(wide.latency, ratio=2.0))
    assert grouping.mixer().knowing([slower, wide, fine]).ratios["onnxruntime"] == {
        "int8_dynamic": wide.latency.ratio,
        FINE.kind: fine.latency.ratio,
    }


def test_without_a_limit_on_bytes_nothing_asks_for_them(grouping):
    base = grouping.evaluate(grouping.plan(WIDE))
    plan, _ = propose(grouping.mixer(), base, Budget(latency_ratio=2.0))
    assert not any("w4_grouped" in kind for kind in held(plan))


def test_what_is_measured_and_weighed_names_them_only_where_asked():
    assert not any("w4_grouped" in kind for kind in {**ways(["int8_dynamic"]), **stores(["int8_dynamic"])})
    for found in (ways(["int8_dynamic"], groups={32, 64}), stores(["int8_dynamic"], groups={32, 64})):
        assert {kind: plan for kind, plan in found.items() if "w4_grouped" in kind} == {FINE.kind: FINE}


def test_a_lower_bound_of_a_mixture_leaves_scales_out(world, grouping):
    import numpy as np

    weights = {f"block.{i}.weight": np.zeros(count, np.float32) for i, count in enumerate(world.elements)}
    plan = grouping.plan(FINE, WIDE, LARGE, WIDE)
    least = least_bytes(world.graph, weights, plan)
    assert least == 40_000 / 2 + 10_000 + 90_000 / 2 + 60_000
    assert least < grouping.evaluate(plan).artifact.bytes
    assert not hopeless(world.graph, weights, Budget(size=round(least / TOLERANCE) + 1))(plan)
    assert hopeless(world.graph, weights, Budget(size=round(least / TOLERANCE) - 1))(plan)


@pytest.mark.parametrize("group", [32, 64, 128, 256])
def test_a_weight_takes_its_share_of_the_scale(world, group):
    layer = LayerPlan("w4_grouped", weights=Step("mse", {"group": group}))
    assert stored_bits(layer, world.graph.by_key[world.layers[0]]) == 4 + 16 / group
