"""What is not worth making, and what is made only while nothing else will do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from alone import best

from haversack.base.budget import Budget
from haversack.choose.mixing import MIXED


def uniforms(world):
    return [world.plan("int8"), world.plan("float16"), world.plan("float32")]


def mixed(candidates):
    return [one for one in candidates if one.plan.origin == MIXED]


# ---- what is not worth making -----------------------------------------------------------------------------------


def too_large(world, limit):
    def hopeless(plan):
        size = world.truth(plan)[0]
        return f"forecast size {size} is over {limit}" if size > limit else ""

    return hopeless


def test_a_hopeless_plan_is_not_made_and_says_why(world):
    found = best(
        uniforms(world), Budget(size=300_000), world.evaluate, mixer=world.mixer, hopeless=too_large(world, 300_000)
    )
    given_up = [one for one in found if one.artifact is None]
    assert {one.plan.origin for one in given_up} == {"float16", "float32"}
    assert {one.verdict for one in given_up} == {"missed"}
    assert all(one.reason.startswith("not made: forecast size") for one in given_up)
    assert found[-2:] == given_up
    assert not set(world.calls) & {one.plan.digest for one in given_up}
    assert found[0].plan.origin == MIXED


def test_when_all_are_hopeless_the_first_is_made(world):
    found = best(uniforms(world), Budget(size=1000), world.evaluate, hopeless=too_large(world, 1000))
    assert len(world.calls) == 1
    assert found[0].plan.origin == "int8"
    assert found[0].reason.startswith("nearest: size is")
    assert all(one.reason.startswith("not made:") for one in found[1:])


def test_a_hopeless_mixture_ends_the_mixing(world):
    def no_mixture(plan):
        return "no room" if plan.origin == MIXED else ""

    found = best(uniforms(world), Budget(size=300_000), world.evaluate, mixer=world.mixer, hopeless=no_mixture)
    assert len(world.calls) == 3
    assert found[-1].reason == "not made: no room"


def test_a_hopeless_plan_is_no_base_for_mixing(world):
    def no_integers(plan):
        return "no" if plan.origin == "int8" else ""

    found = best(uniforms(world), Budget(size=300_000), world.evaluate, mixer=world.mixer, hopeless=no_integers)
    assert not mixed(found)
    assert found[-1].plan.origin == "int8"


# ---- what is made only while nothing else will do ----------------------------------------------------------------


def made_in_order(world, found):
    """Return the origins of what was evaluated, in that order."""
    origins = {one.plan.digest: one.plan.origin for one in found}
    return [origins[digest] for digest in world.calls]


@pytest.mark.parametrize(
    "budget, made",
    [
        (Budget(size=10**6), ["int8"]),
        (Budget(size=207_000), ["int8"]),
        (Budget(size=206_999), ["int8"]),
        (Budget(size=10**6, drop=0.001), ["int8", "float16"]),
        (Budget(size=206_999, drop=0.001), ["int8", "float16", "float32"]),
        (Budget(latency_ratio=0.1, size=10**6), ["int8"]),
    ],
    ids=["met", "met at the limit", "too big, and gentler is bigger", "loses too much", "both", "too slow, but faster"],
)
def test_fallbacks_wait_until_they_may_help(world, budget, made):
    found = best(
        [world.plan("int8")],
        budget,
        world.evaluate,
        fallbacks=[world.plan("float16"), world.plan("float32")],
    )
    assert made_in_order(world, found) == made
    assert len(found) == len(made)


def test_integers_that_are_no_faster_than_float_are_not_tried_in_a_gentler_mixture(make_world):
    world = make_world(speed=1.2)
    budget = Budget(latency_ratio=1.0, size=10**6)
    careful = world.plan("float32", *["int8"] * (len(world.layers) - 1))
    found = best([world.plan("int8")], budget, world.evaluate, fallbacks=[careful, world.plan("float16")])
    assert made_in_order(world, found) == ["int8", "float16"]


def test_integers_that_lose_too_much_are_tried_in_a_gentler_mixture(make_world):
    world = make_world(speed=1.2)
    careful = world.plan("float32", *["int8"] * (len(world.layers) - 1))
    found = best([world.plan("int8")], Budget(drop=1e-9), world.evaluate, fallbacks=[careful])
    assert made_in_order(world, found) == ["int8", careful.origin]


def test_fallbacks_end_with_the_first_that_meets_the_budget(world):
    proposals, *fallbacks = (world.plan(name) for name in ("int8", "float16", "float32"))
    found = best([proposals], Budget(drop=1e-4), world.evaluate, fallbacks=fallbacks)
    assert made_in_order(world, found) == ["int8", "float16"]
    assert [(one.plan.origin, one.verdict) for one in found] == [("float16", "chosen"), ("int8", "missed")]


def test_all_proposals_are_made_even_when_the_first_meets_the_budget(world):
    found = best(
        [world.plan("int8"), world.plan("float16")], Budget(), world.evaluate, fallbacks=[world.plan("float32")]
    )
    assert made_in_order(world, found) == ["int8", "float16"]


def test_a_failed_proposal_meets_nothing(make_world):
    world = make_world(failing=frozenset({"int8"}))
    found = best([world.plan("int8")], Budget(), world.evaluate, fallbacks=[world.plan("float16")])
    assert made_in_order(world, found) == ["int8", "float16"]
    assert [one.verdict for one in found] == ["chosen", "failed"]


def test_what_was_not_made_meets_nothing(world):
    found = best(
        [world.plan("int8")],
        Budget(drop=0.5),
        world.evaluate,
        fallbacks=[world.plan("float16")],
        hopeless=lambda plan: "no" if plan.origin == "int8" else "",
    )
    assert made_in_order(world, found) == ["float16"]
    assert [(one.plan.origin, one.verdict) for one in found] == [("float16", "chosen"), ("int8", "missed")]


def test_a_hopeless_fallback_is_told_and_not_made(world):
    fallbacks = [world.plan("float16"), world.plan("float32")]
    limit = 207_000
    found = best(
        [world.plan("int8")],
        Budget(size=limit, drop=1e-9),
        world.evaluate,
        fallbacks=fallbacks,
        hopeless=too_large(world, limit),
    )
    assert made_in_order(world, found) == ["int8"]
    assert [one.reason[:9] for one in found[1:]] == ["not made:"] * 2


def test_a_hopeless_fallback_that_nobody_needs_is_not_told(world):
    limit = 207_000
    found = best(
        [world.plan("int8")],
        Budget(size=limit),
        world.evaluate,
        fallbacks=[world.plan("float16")],
        hopeless=too_large(world, limit),
    )
    assert [one.plan.origin for one in found] == ["int8"]


def test_when_proposals_and_fallbacks_are_hopeless_the_first_proposal_is_made(world):
    found = best(
        [world.plan("float16"), world.plan("float32")],
        Budget(size=1000),
        world.evaluate,
        fallbacks=[world.plan("int8")],
        hopeless=too_large(world, 1000),
    )
    assert made_in_order(world, found) == ["float16"]
    assert found[0].plan.origin == "float16"


def test_when_only_a_fallback_has_hope_it_is_what_is_made(world):
    found = best(
        [world.plan("float16")],
        Budget(size=207_000),
        world.evaluate,
        fallbacks=[world.plan("int8")],
        hopeless=too_large(world, 207_000),
    )
    assert made_in_order(world, found) == ["int8"]
    assert found[0].verdict == "chosen"


def test_fallbacks_are_made_before_layers_are_mixed(world):
    found = best(
        [world.plan("float16")],
        Budget(size=300_000),
        world.evaluate,
        fallbacks=[world.plan("int8"), world.plan("float32")],
        mixer=world.mixer,
    )
    assert made_in_order(world, found) == ["float16", "int8", MIXED]
    assert found[0].plan.origin == MIXED


# ---- the float file itself ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("speed", "float_bytes", "ships"),
    [
        (1.4, 150_000, "float32"),
        (0.9, 150_000, "float32"),
        (1.4, 900_000, "int8"),
        (1.4, 0, "int8"),
        (0.5, 807_000, "int8"),
    ],
)
@pytest.mark.parametrize("budget", [Budget(drop=0.9), Budget(size=10**7, drop=0.9)])
def test_what_is_larger_or_slower_than_float_by_more_than_it_gains_does_not_ship(
    make_world, speed, float_bytes, ships, budget
):
    world = make_world(speed=speed)
    floats = world.plan("float32")

    def evaluate(plan):
        made = world.evaluate(plan)
        if plan.layers or not float_bytes:
            return made
        (file,) = made.artifact.files
        return replace(made, artifact=replace(made.artifact, files=(replace(file, bytes=float_bytes),)))

    found = best([world.plan("int8")], budget, evaluate, fallbacks=[floats], float_bytes=float_bytes)
    assert found[0].plan.origin == ships
    assert found[0].verdict == "chosen"


def test_float_is_not_made_where_one_of_several_is_better_than_it(make_world):
    """A dear variant beside a cheap one is no ground: float would win by losing nothing, at four times the bytes."""
    world = make_world()

    def evaluate(plan):
        made = world.evaluate(plan)
        if plan.origin != "float16":
            return made
        return replace(made, latency=replace(made.latency, ratio=9.0, median_ms=90.0))

    plans = [world.plan("int8"), world.plan("float16")]
    found = best(plans, Budget(size=10**7, drop=0.9), evaluate, fallbacks=[world.plan("float32")], float_bytes=800_000)
    assert {one.plan.origin for one in found} == {"int8", "float16"}
