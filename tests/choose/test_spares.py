"""What is tried after a failure: the plans that lost a race, and what a closer look leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from alone import best

from haversack.base.budget import Budget
from haversack.base.finding import Finding
from haversack.base.plan import Step
from haversack.choose.best import SPARED
from haversack.choose.mixing import MIXED

ROOM = Budget(size=10**6)


def variants(world, count=3):
    """Return plans that differ in their ranges alone: the winner, and the others with a reason."""
    plans = [
        replace(world.plan("int8"), ranges=Step("percentile", {"n": index}), origin=f"variant {index}")
        for index in range(count)
    ]
    return plans[0], [(plan, f"{plan.origin} lost") for plan in plans[1:]]


def made_in_order(world, found):
    origins = {one.plan.digest: one.plan.origin for one in found}
    return [origins[digest] for digest in world.calls]


def test_spares_stay_unmade_with_their_reason_while_the_winner_does(world):
    winner, spares = variants(world)
    found = best([winner], ROOM, world.evaluate, spares=spares)
    assert made_in_order(world, found) == ["variant 0"]
    assert [one.reason for one in found[1:]] == ["not made: variant 1 lost", "not made: variant 2 lost"]
    assert all(one.extra == SPARED for one in found[1:])


def test_a_winner_that_misses_is_no_reason_to_make_the_others(world):
    winner, spares = variants(world)
    found = best([winner], Budget(size=10), world.evaluate, spares=spares)
    assert made_in_order(world, found) == ["variant 0"]


def test_after_a_failure_the_next_variant_is_made_before_anything_gentler(make_world):
    world = make_world(failing=frozenset({"variant 0"}))
    winner, spares = variants(world)
    found = best([winner], ROOM, world.evaluate, spares=spares, fallbacks=[world.plan("float16")])
    assert made_in_order(world, found) == ["variant 0", "variant 1"]
    assert [(one.plan.origin, one.verdict) for one in found[:2]] == [("variant 1", "chosen"), ("variant 0", "failed")]
    assert found[2].reason == "not made: variant 2 lost"


def test_two_failures_by_the_same_words_are_enough(make_world):
    world = make_world(failing=frozenset({"variant 0", "variant 1", "variant 2"}))
    winner, spares = variants(world)
    found = best([winner], ROOM, world.evaluate, spares=spares, fallbacks=[world.plan("float16")])
    assert made_in_order(world, found) == ["variant 0", "variant 1", "float16"]
    assert found[0].plan.origin == "float16"


@pytest.mark.parametrize(
    ("kind", "made"), [("slower-than-float", ["variant 0"]), ("not-exact", ["variant 0", "variant 1", "variant 2"])]
)
def test_variants_share_their_speed_and_nothing_else(world, kind, made):
    winner, spares = variants(world)

    def fails(plan):
        one = world.evaluate(plan)
        told = Finding(kind, f"{plan.origin}: it is")
        return replace(one, verdict="failed", reason=told.text, findings=(told,))

    assert made_in_order(world, best([winner], ROOM, fails, spares=spares)) == made


def test_a_spare_that_is_hopeless_says_so_and_is_never_made(make_world):
    world = make_world(failing=frozenset({"variant 0"}))
    winner, spares = variants(world)
    over = spares[0][0]
    found = best([winner], ROOM, world.evaluate, spares=spares, hopeless=lambda plan: "too big" if plan == over else "")
    assert made_in_order(world, found) == ["variant 0", "variant 2"]
    assert found[-1].reason == "not made: too big"


# ---- a closer look at the first ---------------------------------------------------------------------------------


def refuses(*origins):
    def confirm(one):
        bad = one.plan.origin in origins
        return replace(one, verdict="failed", reason=f"a closer look at {one.plan.origin}") if bad else one

    return confirm


def test_what_fails_a_closer_look_lets_the_search_go_on(world):
    found = best([world.plan("int8")], ROOM, world.evaluate, fallbacks=[world.plan("float16")], confirm=refuses("int8"))
    assert made_in_order(world, found) == ["int8", "float16"]
    assert [(one.plan.origin, one.verdict) for one in found] == [("float16", "chosen"), ("int8", "failed")]
    assert found[1].reason == "a closer look at int8"


def test_what_fails_a_closer_look_gives_way_to_a_spare(world):
    winner, spares = variants(world)
    found = best(
        [winner], ROOM, world.evaluate, spares=spares, fallbacks=[world.plan("float16")], confirm=refuses("variant 0")
    )
    assert made_in_order(world, found) == ["variant 0", "variant 1"]
    assert found[0].plan.origin == "variant 1"


def test_a_mixture_that_fails_a_closer_look_is_not_made_again(world):
    plans = [world.plan("int8"), world.plan("float16")]
    found = best(plans, Budget(size=300_000), world.evaluate, mixer=world.mixer, confirm=refuses(MIXED))
    assert made_in_order(world, found) == ["int8", "float16", MIXED]
    assert found[0].plan.origin == "int8"
    assert found[-1].plan.origin == MIXED


def with_bits(one, differing):
    return replace(one, parity=replace(one.parity, reference_differing=differing, reference_compared=80))


def test_what_is_not_equal_after_all_is_judged_again(world):
    plans = [world.plan("int8"), world.plan("float16")]
    found = best(plans, ROOM, lambda plan: with_bits(world.evaluate(plan), 0 if plan is plans[0] else 3))
    assert found[0].plan.origin == "int8"
    found = best(
        plans,
        ROOM,
        lambda plan: with_bits(world.evaluate(plan), 0 if plan is plans[0] else 3),
        confirm=lambda one: with_bits(one, 5),
    )
    assert [(one.plan.origin, one.verdict) for one in found] == [("float16", "chosen"), ("int8", "met")]
    assert "bit for bit" not in found[0].reason


def test_a_world_where_nothing_holds_ends_with_all_failed(world):
    plans = ("int8", "float16", "float32")
    found = best([world.plan(name) for name in plans], ROOM, world.evaluate, confirm=refuses(*plans))
    assert {one.verdict for one in found} == {"failed"}
    assert len(world.calls) == 3


# ---- what is made, and what is not ------------------------------------------------------------------------------


def test_where_all_are_hopeless_the_nearest_is_made(world):
    plans = [world.plan(name) for name in ("float32", "float16", "int8")]
    found = best(
        plans, Budget(size=1), world.evaluate, hopeless=lambda _: "no", overshoot=lambda plan: world.truth(plan)[0]
    )
    assert made_in_order(world, found) == ["int8"]


def test_a_mixture_that_compresses_nothing_is_not_made(world):
    found = best([world.plan("int8")], Budget(size=10**9), world.evaluate, mixer=world.mixer)
    assert [one.plan.origin for one in found] == ["int8"]


@pytest.mark.parametrize(("high", "made"), [(0.99, ["int8"]), (1.03, ["int8", "float16"])])
def test_faster_than_float_is_what_the_quartiles_say(world, high, made):
    def noisy(plan):
        one = world.evaluate(plan)
        return replace(one, latency=replace(one.latency, ratio=0.97, ratio_low=0.92, ratio_high=high))

    found = best([world.plan("int8")], Budget(latency_ratio=0.5), noisy, fallbacks=[world.plan("float16")])
    assert made_in_order(world, found) == made
