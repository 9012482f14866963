"""Another budget for a finished run: measured if it can be, a forecast if it must be, nothing if it cannot."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from alone import best, propose, resolve

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.choose.best import SPARED
from haversack.choose.mixing import BYTES_MARGIN, MIXED
from haversack.choose.resolve import resolve as everywhere


@pytest.fixture
def finished(world):
    """A run without a mixer: three uniform candidates."""
    plans = [world.plan("int8"), world.plan("float16"), world.plan("float32")]
    return best(plans, Budget(size=10**9), world.evaluate)


def test_a_measured_candidate_that_fits_is_the_answer(world, finished):
    found = resolve(finished, Budget(size=450_000), world.mixer)
    assert found.met
    assert found.candidates[0].plan.origin == "float16"
    assert found.candidates[0].verdict == "chosen"
    assert (found.plan, found.forecast) == (None, None)
    assert len(found.candidates) == len(finished)


def test_between_two_measured_ones_the_knapsack_forecasts(world, finished):
    budget = Budget(size=500_000, latency_ratio=0.85)
    found = resolve(finished, budget, world.mixer)
    assert found.met
    faster_and_finer = Budget(size=300_000, latency_ratio=0.9, drop=0.005)
    found = resolve(finished, faster_and_finer, world.mixer)
    assert not found.met
    assert found.plan.origin == MIXED
    assert found.forecast.bytes <= 300_000 * (1 - BYTES_MARGIN) * (1 + 1e-5)
    size, seconds, error = world.truth(found.plan)
    assert found.forecast.bytes == pytest.approx(size)
    assert found.forecast.latency_ratio == pytest.approx(seconds / world.total_seconds)
    assert found.forecast.relative_error == pytest.approx(error)
    assert world.plan("int8").digest != found.plan.digest


def test_making_the_forecast_true_answers_the_budget(world, finished):
    budget = Budget(size=300_000, latency_ratio=0.9, drop=0.005)
    forecast = resolve(finished, budget, world.mixer)
    made = world.evaluate(forecast.plan)
    assert resolve([*finished, made], budget, world.mixer).met


@pytest.mark.parametrize(
    "budget",
    [
        Budget(size=100_000),
        Budget(latency_ratio=0.1),
        Budget(latency_ms=1.0),
        Budget(download=50_000),
        Budget(size=300_000, latency_ratio=0.1),
    ],
)
def test_what_even_the_knapsack_cannot_reach_has_no_plan(world, finished, budget):
    found = resolve(finished, budget, world.mixer)
    assert not found.met
    assert (found.plan, found.forecast) == (None, None)
    assert found.candidates[0].reason.startswith("nearest:")


def test_a_plan_that_was_measured_and_missed_is_not_forecast_again(world, finished):
    only_int8 = [one for one in finished if one.plan.origin == "int8"]
    strict = Budget(size=206_000, drop=1e-9)  # the only plan that fits the size is the measured one
    found = resolve(only_int8, strict, world.mixer)
    assert found.plan is None


def test_memory_is_not_forecast(world, finished):
    hungry = [replace(one, memory=replace(one.memory, peak_bytes=10**9)) for one in finished]
    budget = Budget(size=300_000, memory=10**8, latency_ratio=0.9)
    assert resolve(hungry, budget, world.mixer).plan is None
    modest = resolve(finished, Budget(size=300_000, memory=10**8, latency_ratio=0.9, drop=0.005), world.mixer)
    assert modest.plan is not None


def test_a_forecast_for_a_missed_drop_must_err_less(world, finished):
    base = next(one for one in finished if one.plan.origin == "int8")
    found = resolve([base], Budget(size=300_000, drop=base.drop.value / 2), world.mixer)
    assert found.forecast.relative_error < base.parity.relative_error


def test_what_failed_is_no_ground_for_a_forecast(world, finished):
    failed = [replace(one, verdict="failed", reason="crashed") for one in finished]
    found = resolve(failed, Budget(size=300_000), world.mixer)
    assert not found.met
    assert found.plan is None
    assert {one.reason for one in found.candidates} == {"crashed"}


def test_a_plan_that_was_never_made_may_be_forecast_now(world, finished):
    given_up = Candidate(
        world.plan("float32"), None, None, None, None, None, None, verdict="missed", reason="not made: too large"
    )
    base = [one for one in finished if one.plan.origin == "int8"]
    found = resolve([*base, given_up], Budget(size=900_000, drop=0.0), world.mixer)
    assert not found.met
    assert found.plan.digest == given_up.plan.digest
    assert found.candidates[-1].reason == "not made: too large"


def test_an_unknown_float_time_fits_no_limit_in_milliseconds(world, finished):
    base = next(one for one in finished if one.plan.origin == "int8")
    blind = replace(base, latency=replace(base.latency, float_median_ms=0.0))
    found = resolve([blind], Budget(size=300_000, latency_ms=0.001), world.mixer)
    assert found.plan is None
    assert math.isnan(propose(world.mixer, blind, Budget(size=300_000), 0.0)[1].latency_ms)


def test_nothing_measured_nothing_answered(world):
    assert everywhere([], Budget(size=1), world.mixer) == {}


# ---- plans that the run did not make -----------------------------------------------------------------------------


def given_up(plan, extra=None):
    candidate = Candidate(plan, None, None, None, None, None, None, verdict="missed", reason="not made: too large")
    return replace(candidate, extra=extra or {})


@pytest.fixture
def slow(world):
    """A run under a tight size: integers were made and failed, half precision was not made."""
    made = world.evaluate(world.plan("int8"))
    return [replace(made, verdict="failed", reason="slower-than-float"), given_up(world.plan("float16"))]


def test_a_plan_that_the_old_limits_forbade_is_forecast_for_new_ones(world, slow):
    found = resolve(slow, Budget(size=500_000, drop=1e-9, latency_ratio=1.2), world.mixer)
    assert not found.met
    assert found.plan == world.plan("float16")
    assert found.forecast.bytes == pytest.approx(world.truth(found.plan)[0])
    assert found.forecast.latency_ratio == 1.0
    assert math.isnan(found.forecast.relative_error)


@pytest.mark.parametrize(
    "budget",
    [
        Budget(size=400_000),
        Budget(size=500_000, latency_ratio=0.9),
        Budget(size=500_000, memory=1),
        Budget(latency_ms=1),
    ],
)
def test_a_plan_that_the_new_limits_forbid_too_stays_unmade(world, slow, budget):
    assert resolve(slow, budget, world.mixer).plan is None


def test_what_lost_a_race_is_not_offered(world, slow):
    spared = replace(slow[1], extra=SPARED)
    assert resolve([slow[0], spared], Budget(size=500_000), world.mixer).plan is None


def test_integers_that_were_not_measured_have_no_forecast_of_time(world, slow):
    run = [slow[0], given_up(world.plan("int8_dynamic"))]
    assert resolve(run, Budget(size=500_000), world.mixer).plan is not None
    assert resolve(run, Budget(size=500_000, latency_ratio=5.0), world.mixer).plan is None
    assert resolve(run, Budget(size=500_000, drop=1e-9), world.mixer).plan is None


def test_where_nothing_was_measured_the_weights_alone_are_forecast(world):
    run = [replace(given_up(world.plan("int8")), verdict="failed"), given_up(world.plan("float16"))]
    found = resolve(run, Budget(size=500_000), world.mixer)
    assert found.forecast.bytes == 2 * sum(world.elements)
    assert resolve(run, Budget(download=500_000, latency_ms=9), world.mixer).plan is None


def test_a_mixture_that_leaves_all_in_float_is_told_as_float(world, finished):
    base = [one for one in finished if one.plan.origin == "int8"]
    found = resolve(base, Budget(size=900_000, drop=0.0), world.mixer)
    assert (found.plan.layers, found.plan.origin) == ({}, "float")
