"""The loop in a world whose costs are known: what it tries, what it learns from a miss, where it ends."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from alone import best, propose
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haversack.base.budget import Budget
from haversack.base.plan import Step
from haversack.base.profile import Profile
from haversack.base.progress import Event
from haversack.choose import best as search
from haversack.choose.best import GENTLER
from haversack.choose.mixing import BYTES_MARGIN, MARGINS, MIXED, margins, settled
from haversack.choose.verdict import checks


def uniforms(world):
    return [world.plan("int8"), world.plan("float16"), world.plan("float32")]


def mixed(candidates):
    return [one for one in candidates if one.plan.origin == MIXED]


def forecast(one):
    return one.extra["forecast"]


# ---- the mixer's forecast against the truth ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [210_000, 260_000, 330_000, 500_000, 900_000])
@pytest.mark.parametrize("ratio", [0.52, 0.7, 0.9, 2.0])
def test_where_costs_add_up_the_forecast_is_the_truth(world, size, ratio):
    base = world.evaluate(world.plan("int8"))
    plan, told = propose(world.mixer, base, Budget(size=size, latency_ratio=ratio))
    true_size, seconds, error = world.truth(plan)
    if any(layer.precision == "int8" for layer in plan.layers.values()):
        assert told.bytes == pytest.approx(true_size)
        assert told.latency_ratio == pytest.approx(seconds / world.total_seconds)
        assert told.latency_ms == pytest.approx(seconds * 1e3)
        assert told.download_bytes == pytest.approx(true_size * world.packing, rel=1e-4)
        assert told.relative_error == pytest.approx(error, rel=1e-6)
    assert told.bytes <= size * (1 + 1e-5)


errors = st.floats(0.001, 0.2)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    elements=st.lists(st.integers(1_000, 100_000), min_size=2, max_size=5),
    data=st.data(),
    room=st.floats(1.0, 4.0),
)
def test_no_plan_of_an_additive_world_is_better_within_the_limit(make_world, elements, data, room):
    count = len(elements)
    world = make_world(
        elements=tuple(elements),
        seconds=(1e-3,) * count,
        errors=tuple(data.draw(st.lists(errors, min_size=count, max_size=count))),
        half_errors=(1e-5,) * count,
    )
    limit = round(world.truth(world.plan("int8"))[0] * room)
    plan, told = propose(world.mixer, world.evaluate(world.plan("int8")), Budget(size=limit))
    size, _, error = world.truth(plan)
    assert size <= limit * (1 + 1e-5)
    assert told.bytes == pytest.approx(size)
    kinds = ("int8", "float16", "float32")
    rivals = [world.truth(world.plan(*pick)) for pick in itertools.product(kinds, repeat=count)]
    least = min(rival_error for rival_size, _, rival_error in rivals if rival_size <= limit)
    assert error**2 <= least**2 + 1e-3 * max(world.errors) ** 2 + 1e-12


def test_a_margin_keeps_room(world):
    base = world.evaluate(world.plan("int8"))
    _, told = propose(world.mixer, base, Budget(size=400_000), 0.1)
    assert told.bytes <= 360_000 * (1 + 1e-5)


def test_a_download_limit_binds_through_the_measured_packing(world):
    base = world.evaluate(world.plan("int8"))
    _, told = propose(world.mixer, base, Budget(download=270_000))
    assert 200_000 < told.download_bytes <= 270_000 * (1 + 1e-5)


def test_milliseconds_bind_through_the_measured_float_time(world):
    base = world.evaluate(world.plan("int8"))
    _, told = propose(world.mixer, base, Budget(latency_ms=8.0))
    assert 6.0 < told.latency_ms <= 8.0 * (1 + 1e-5)


def test_the_tighter_of_two_limits_on_one_thing_binds(world):
    base = world.evaluate(world.plan("int8"))
    _, told = propose(world.mixer, base, Budget(latency_ms=8.0, latency_ratio=0.6))
    assert told.latency_ratio <= 0.6 * (1 + 1e-5)


@pytest.mark.parametrize("missing", ["artifact", "latency", "parity"])
def test_what_was_not_measured_is_no_base(world, missing):
    base = replace(world.evaluate(world.plan("int8")), **{missing: None})
    assert propose(world.mixer, base, Budget(size=10)) is None


def test_a_proposal_keeps_the_plan_around_the_layers(world):
    plan = replace(world.plan("int8"), prepare=(Step("fold_norm"),), ranges=Step("mse"), constrained_by=("a", "b"))
    made, _ = propose(world.mixer, world.evaluate(plan), Budget(size=300_000))
    assert (made.prepare, made.ranges, made.constrained_by) == (plan.prepare, plan.ranges, plan.constrained_by)
    assert made.origin == MIXED
    assert "float32" not in {layer.precision for layer in made.layers.values()}


def test_without_a_forecast_of_loss_or_time_the_forecast_still_stands(world):
    mixer = replace(world.mixer, profile=Profile())
    _, told = propose(mixer, world.evaluate(world.plan("int8")), Budget(size=300_000))
    assert told.bytes <= 300_000 * (1 + 1e-5)
    assert math.isnan(told.relative_error), "nobody measured what layers lose: not that they lose nothing"
    assert told.latency_ratio == pytest.approx(world.evaluate(world.plan("int8")).latency.ratio, rel=0.01)


# ---- the loop ---------------------------------------------------------------------------------------------------


def test_the_knapsack_finds_what_no_uniform_plan_is(world):
    found = best(uniforms(world), Budget(size=300_000), world.evaluate, mixer=world.mixer)
    first = found[0]
    assert first.plan.origin == MIXED
    assert first.verdict == "chosen"
    assert first.artifact.bytes <= 300_000
    assert first.parity.relative_error < world.truth(world.plan("int8"))[2]
    assert {one.verdict for one in found[1:]} == {"met", "missed"}


def compared(world, differing):
    """Make candidates of ``world`` that were compared with the reference."""

    def evaluate(plan):
        one = world.evaluate(plan)
        return replace(one, parity=replace(one.parity, reference_compared=100, reference_differing=differing))

    return evaluate


@pytest.mark.parametrize(("differing", "made"), [(0, 0), (1, 1)])
def test_no_layer_is_left_in_float_where_the_reference_bits_meet_every_limit(world, differing, made):
    evaluate, budget = compared(world, differing), Budget(size=600_000)
    found = best([world.plan("int8")], budget, evaluate, mixer=world.mixer, rounds=1)
    assert len(mixed(found)) == made
    base = evaluate(world.plan("int8"))
    plan, _ = propose(world.mixer, base, budget)
    assert (plan.layers == base.plan.layers) is settled(base, budget) is (not made)
    assert not settled(base, Budget(size=100_000))


def test_the_forecast_is_kept_beside_the_measurement(world):
    found = best(uniforms(world), Budget(size=300_000), world.evaluate, mixer=world.mixer)
    (one,) = mixed(found)
    assert forecast(one)["bytes"] == pytest.approx(one.artifact.bytes, abs=1)
    assert forecast(one)["relative_error"] == pytest.approx(one.parity.relative_error)
    assert all("forecast" not in other.extra for other in found if other is not one)


def test_margins_are_wider_where_a_mixture_was_further_off(make_world):
    exact = best(uniforms(make_world()), Budget(size=300_000), make_world().evaluate, mixer=make_world().mixer)
    assert margins(exact) == MARGINS
    world = make_world(surprise=0.06)
    found = best(uniforms(world), Budget(size=280_000), world.evaluate, mixer=world.mixer, rounds=5)
    told = margins(found)
    assert told["size"] == pytest.approx(0.06, abs=1e-4)
    assert {name for name in MARGINS if told[name] != MARGINS[name]} == {"size"}
    for one in mixed(found):
        assert abs(one.artifact.bytes / forecast(one)["bytes"] - 1) <= told["size"] + 1e-6


def test_a_first_hit_ends_the_loop(world):
    best(uniforms(world), Budget(size=300_000), world.evaluate, mixer=world.mixer, rounds=5)
    assert len(world.calls) == 4


def test_a_miss_widens_the_margin_until_it_fits(make_world):
    world = make_world(surprise=0.06)
    found = best(uniforms(world), Budget(size=280_000), world.evaluate, mixer=world.mixer, rounds=5)
    tries = sorted(mixed(found), key=lambda one: -forecast(one)["bytes"])
    assert len(tries) > 1
    assert tries[0].verdict == "missed"
    assert tries[0].artifact.bytes > 280_000
    assert tries[1].artifact.bytes <= 280_000
    assert found[0] is tries[-1]
    over = tries[0].artifact.bytes / 280_000 - 1
    assert forecast(tries[1])["bytes"] <= 280_000 * (1 - BYTES_MARGIN - over) * (1 + 1e-5)


def drops(world, size):
    """Return the drop of the mixture forecast to be within a size, and of the one within what it measures to be."""
    base = world.evaluate(world.plan("int8"))
    tight, wide = (
        propose(world.mixer, base, Budget(size=round(limit)))[0] for limit in (size, size / (1 + world.surprise))
    )
    return tuple(world.truth(plan)[2] * world.drop_per_error for plan in (tight, wide))


@pytest.mark.parametrize("kind", ["size", "download"])
def test_a_missed_drop_takes_the_room_that_the_forecast_did_not_see(make_world, kind):
    world = make_world(surprise=-0.15)
    tight, wide = drops(world, 280_000)
    assert wide < tight
    budget = Budget(drop=(tight + wide) / 2, **({"size": 280_000} if kind == "size" else {"download": 252_000}))
    evaluate = world.evaluate if kind == "size" else packed(world)
    found = best([world.plan("int8")], budget, evaluate, mixer=world.mixer, rounds=3)
    first, second = sorted(mixed(found), key=lambda one: forecast(one)["bytes"])
    assert {check.limit for check in checks(first, budget) if not check.met} == {"drop"}
    assert found[0] is second
    assert second.verdict == "chosen"
    assert forecast(second)["bytes"] > 280_000 * (1 - BYTES_MARGIN) >= second.artifact.bytes * (1 - 1e-5)


def packed(world):
    """Evaluate as the world does, the download surprising as the bytes do."""

    def evaluate(plan):
        one = world.evaluate(plan)
        (file,) = one.artifact.files
        small = replace(file, download_bytes=round(file.bytes * world.packing))
        return replace(one, artifact=replace(one.artifact, files=(small,)))

    return evaluate


@pytest.mark.parametrize("surprise, size, drop, rounds", [(0.0, 280_000, 1e-4, 3), (-0.15, 280_000, 1e-4, 1)])
def test_a_missed_drop_without_room_or_rounds_ends_the_loop(make_world, surprise, size, drop, rounds):
    world = make_world(surprise=surprise)
    found = best([world.plan("int8")], Budget(size=size, drop=drop), world.evaluate, mixer=world.mixer, rounds=rounds)
    assert len(mixed(found)) == 1


def test_a_mixture_that_is_hardly_gentler_is_not_made(make_world):
    world = make_world(surprise=-0.15, errors=(0.03, 1e-3, 1e-3, 0.5), half_errors=(0.0299, 1e-4, 1e-4, 0.4999))
    found = best([world.plan("int8")], Budget(size=280_000, drop=1e-4), world.evaluate, mixer=world.mixer, rounds=3)
    (one,) = mixed(found)
    wider, told = propose(world.mixer, world.evaluate(world.plan("int8")), Budget(size=329_000))
    assert wider.layers != one.plan.layers
    assert forecast(one)["relative_error"] * (1 - GENTLER) < told.relative_error <= forecast(one)["relative_error"]


def test_a_world_that_always_surprises_ends_all_the_same(make_world):
    world = make_world(surprise=5.0)
    found = best(uniforms(world), Budget(size=300_000), world.evaluate, mixer=world.mixer, rounds=4)
    assert len(world.calls) <= 3 + 4
    assert len(set(world.calls)) == len(world.calls)
    assert found[0].plan.origin == "int8"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(
    surprise=st.floats(-0.5, 3),
    budget=st.builds(
        Budget,
        size=st.integers(50_000, 1_000_000),
        latency_ratio=st.none() | st.floats(0.3, 1.5),
        drop=st.none() | st.floats(1e-5, 1e-2),
    ),
    rounds=st.integers(0, 4),
)
def test_whatever_happens_rounds_are_bounded_and_nothing_is_made_twice(make_world, surprise, budget, rounds):
    world = make_world(surprise=surprise)
    found = best(
        uniforms(world),
        budget,
        world.evaluate,
        mixer=world.mixer,
        rounds=rounds,
    )
    assert len(world.calls) == len(set(world.calls)) == len(found)
    assert len(found) <= 3 + rounds
    met = [one for one in found if all(check.met for check in checks(one, budget))]
    assert (found[0].verdict == "chosen") == bool(met)


def test_a_plan_proposed_twice_is_made_once(world):
    plans = [world.plan("int8", origin="one"), world.plan("int8", origin="the same"), world.plan("float32")]
    found = best(plans, Budget(size=10**9), world.evaluate)
    assert len(world.calls) == len(found) == 2


def test_no_mixer_no_mixing(world):
    found = best(uniforms(world), Budget(size=300_000), world.evaluate)
    assert not mixed(found)
    assert len(world.calls) == 3


@pytest.mark.parametrize("budget", [Budget(), Budget(drop=0.01), Budget(memory=10**9, drop=0.01)])
def test_limits_that_the_knapsack_cannot_forecast_start_no_mixing(world, budget):
    found = best(uniforms(world), budget, world.evaluate, mixer=world.mixer)
    assert not mixed(found)


def test_only_a_drop_chooses_the_smallest_and_fastest(world):
    found = best(uniforms(world), Budget(drop=0.05), world.evaluate, mixer=world.mixer)
    assert found[0].plan.origin == "int8"


def test_float_plans_alone_are_no_ground_for_mixing(world):
    found = best(uniforms(world)[1:], Budget(size=300_000), world.evaluate, mixer=world.mixer)
    assert not mixed(found)


def test_failing_candidates_keep_their_reason_and_do_not_stop_the_others(make_world):
    world = make_world(failing=frozenset({"float16"}))
    found = best(uniforms(world), Budget(size=300_000), world.evaluate, mixer=world.mixer)
    (failed,) = [one for one in found if one.verdict == "failed"]
    assert failed.reason == "the runtime crashed"
    assert found[0].plan.origin == MIXED
    assert found[-1] is failed


def test_a_failing_mixed_plan_ends_the_mixing(make_world):
    world = make_world(failing=frozenset({MIXED}))
    found = best(uniforms(world), Budget(size=300_000), world.evaluate, mixer=world.mixer, rounds=5)
    (failed,) = mixed(found)
    assert failed.verdict == "failed"
    assert len(world.calls) == 4
    assert found[0].plan.origin == "int8"


def test_when_all_fail_nothing_is_mixed(make_world):
    world = make_world(failing=frozenset({"int8", "float16", "float32"}))
    found = best(uniforms(world), Budget(size=300_000), world.evaluate, mixer=world.mixer)
    assert [one.verdict for one in found] == ["failed"] * 3


def test_a_miss_that_was_not_measured_widens_nothing(make_world):
    world = make_world()

    def without_latency(plan):
        one = world.evaluate(plan)
        return replace(one, latency=None) if plan.origin == MIXED else one

    budget = Budget(size=300_000, latency_ratio=0.9)
    found = best(uniforms(world), budget, without_latency, mixer=world.mixer, rounds=5)
    (one,) = mixed(found)
    assert "latency was not measured" in one.reason
    assert len(world.calls) == 4


@pytest.mark.parametrize("low, rounds", [(0.2, 1), (0.7, 3)], ids=["a busy machine", "a quiet one"])
def test_a_latency_that_a_quarter_of_the_pairs_kept_widens_nothing(make_world, low, rounds):
    """Else a mixture timed on a busy machine is followed by one that gives up quality for nothing."""
    world = make_world()

    def evaluate(plan):
        made = world.evaluate(plan)
        if plan.origin != MIXED:
            return made
        return replace(made, latency=replace(made.latency, ratio=0.75, ratio_low=low, ratio_high=0.9))

    budget = Budget(size=280_000, latency_ratio=0.65)
    found = best([world.plan("int8")], budget, evaluate, mixer=world.mixer, rounds=3)
    assert (len(mixed(found)) == 1) == (rounds == 1)


def test_a_missed_drop_does_not_widen_the_margin(make_world):
    world = make_world(drop_per_error=10.0)
    found = best(uniforms(world), Budget(size=300_000, drop=1e-6), world.evaluate, mixer=world.mixer, rounds=5)
    assert len(mixed(found)) == 1


def test_each_proposal_is_told(world):
    told: list[Event] = []
    best(uniforms(world), Budget(size=10**9), world.evaluate, sink=told.append)
    assert [(event.stage, event.text, event.done, event.total) for event in told] == [
        ("choose", "candidate int8", 0, 3),
        ("choose", "candidate float16", 1, 3),
        ("choose", "candidate float32", 2, 3),
    ]


def test_of_several_targets_each_line_names_its_own(world):
    told: list[Event] = []
    asked = {
        name: search.Ask([replace(one, target=name) for one in uniforms(world)], Budget(size=10**9))
        for name in ("onnxruntime", "litert")
    }
    search.best(asked, world.evaluate, sink=told.append)
    assert [event.text for event in told if event.kind == "progress"] == [
        f"{name}: candidate {precision}" for name in asked for precision in ("int8", "float16", "float32")
    ]


def test_nothing_proposed_nothing_found(world):
    assert best([], Budget(size=1), world.evaluate, mixer=world.mixer, hopeless=lambda plan: "no") == []


def test_a_mixture_that_is_far_too_slow_by_forecast_is_not_made(make_world):
    world = make_world(speed=1.1)
    found = best(uniforms(world), Budget(size=300_000, latency_ratio=0.5), world.evaluate, mixer=world.mixer)
    given_up = [one for one in found if one.plan.origin == MIXED]
    assert [one.reason[:27] for one in given_up] == ["not made: forecast latency "]
    assert not any(one.plan.digest in world.calls for one in given_up)


def test_a_mixture_that_is_nearly_fast_enough_by_forecast_is_made(make_world):
    world = make_world(speed=1.1)
    found = best(uniforms(world), Budget(size=300_000, latency_ratio=1.0), world.evaluate, mixer=world.mixer)
    assert any(one.plan.digest in world.calls for one in found if one.plan.origin == MIXED)
