"""Verdicts: met, missed, failed, not measured, not made; who comes first, and why."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.plan import Plan
from haversack.choose.verdict import Check, amount, checks, cost, exactness, judged, loss, ranked, unmade

ALL = Budget(
    size=1_000_000,
    download=900_000,
    memory=20_000_000,
    latency_ms=6.0,
    latency_ratio=0.55,
    drop=0.01,
)


def names(candidates):
    return [one.plan.origin for one in candidates]


def not_made(name="none", reason="not made: forecast size 9.300 MB is over the allowed 5.200 MB"):
    return Candidate(
        Plan("onnxruntime", origin=name), None, None, None, None, None, None, verdict="missed", reason=reason
    )


def test_the_half_that_is_reported_ranks_nothing(make):
    """By the error over all samples the second were first."""
    one, two = (make(name, error=error) for name, error in (("one", 0.05), ("two", 0.04)))
    one = replace(one, parity=replace(one.parity, choosing_error=0.02))
    two = replace(two, parity=replace(two.parity, choosing_error=0.03))
    assert names(ranked([two, one], Budget(size=10**7))) == ["one", "two"]
    assert loss(one) == 0.02


@pytest.mark.parametrize(
    "limit, measured, met",
    [
        ("size", {"size": 1_000_000}, True),
        ("size", {"size": 1_000_001}, False),
        ("download", {"download": 900_000}, True),
        ("download", {"download": 900_001}, False),
        ("memory", {"memory": 20_000_000}, True),
        ("memory", {"memory": 20_000_001}, False),
        ("latency_ms", {"ratio": 0.6, "float_ms": 10.0}, True),
        ("latency_ms", {"ratio": 0.61, "float_ms": 10.0}, False),
        ("latency_ratio", {"ratio": 0.55}, True),
        ("latency_ratio", {"ratio": 0.551}, False),
        ("drop", {"drop": 0.01}, True),
        ("drop", {"drop": 0.0101}, False),
        ("drop", {"drop": -0.2}, True),
        ("memory", {"memory": None}, False),
        ("latency_ms", {"ratio": None}, False),
        ("latency_ratio", {"ratio": None}, False),
        ("drop", {"drop": None}, False),
        ("drop", {"drop": math.nan}, False),
    ],
)
def test_a_limit_is_met_up_to_its_value(make, limit, measured, met):
    found = {check.limit: check for check in checks(make(**measured), ALL)}
    assert found[limit].met is met


def test_only_limits_that_are_set_are_checked(make):
    assert checks(make(), Budget()) == ()
    assert [check.limit for check in checks(make(), Budget(size=1, drop=0.0))] == ["size", "drop"]


@pytest.mark.parametrize(
    "allowed, got, overshoot",
    [
        (100, 100, 0.0),
        (100, 90, 0.0),
        (100, 150, 0.5),
        (0.5, 0.6, 0.2),
        (100, math.nan, math.inf),
        (0.0, 1e-10, 0.1),  # a drop of nothing at all is missed by a finite amount
    ],
)
def test_overshoot(allowed, got, overshoot):
    assert Check("drop", allowed, got).overshoot == pytest.approx(overshoot)


def test_a_check_in_words():
    assert str(Check("size", 5_200_000, 9_300_000)) == "size is 9.300 MB, allowed is 5.200 MB"
    assert str(Check("latency_ratio", 0.55, 0.6)) == "latency is ×0.60, allowed is ×0.55"
    assert str(Check("latency_ratio", 0.55, 0.5504)) == "latency is ×0.5504, allowed is ×0.5500"
    assert str(Check("latency_ms", 8, math.nan)) == "latency was not measured"
    assert str(Check("drop", 0.01, 0.0215, "fraction")) == "drop is 2.15 pt, allowed is 1.00 pt"
    assert str(Check("drop", 0.01, 0.0215, "nats")) == "drop is 0.0215 nats, allowed is 0.0100 nats"


@pytest.mark.parametrize(
    "limit, value, text",
    [
        ("size", 1_234_567, "1.235 MB"),
        ("download", 1e6, "1.000 MB"),
        ("download", 26_400, "26.4 kB"),
        ("memory", 300.0, "300 bytes"),
        ("memory", 4.5e7, "45.000 MB"),
        ("latency_ratio", 0.4567, "×0.46"),
        ("latency_ms", 12.0, "12.000 ms"),
        ("drop", 0.0123, "0.0123"),
    ],
)
def test_amounts_have_their_units(limit, value, text):
    assert amount(limit, value) == text


def test_an_error_that_is_not_known_is_the_worst(make):
    assert loss(make(error=None)) == math.inf
    assert loss(make(error=math.nan)) == math.inf
    assert names(ranked([make("nan", error=math.nan), make("known", error=0.9)], Budget(size=10**7))) == [
        "known",
        "nan",
    ]


def test_cost_is_size_times_latency(make):
    assert cost(make(size=200, ratio=0.5)) == 100.0
    assert cost(make(ratio=None)) == math.inf
    assert cost(not_made()) == math.inf


def test_the_table_of_verdicts(make):
    found = judged(
        [
            make("failed", size=1, verdict="failed", reason="the runtime crashed"),
            make("worse", size=900_000, error=0.06),
            make("too large", size=1_100_000, error=0.001),
            make("best", size=950_000, error=0.05),
            not_made(),
            make("no latency", ratio=None),
        ],
        Budget(size=1_000_000, latency_ratio=0.6),
    )
    assert [(one.plan.origin, one.verdict) for one in found] == [
        ("best", "chosen"),
        ("worse", "met"),
        ("too large", "missed"),
        ("no latency", "missed"),
        ("failed", "failed"),
        ("none", "missed"),
    ]
    reasons = {one.plan.origin: one.reason for one in found}
    assert reasons["best"] == "least output error (0.0500) of 2 within the budget"
    assert reasons["worse"] == f"met, but its output error 0.0600 is not below 0.0500 of {found[0].id}"
    assert reasons["too large"] == "size is 1.100 MB, allowed is 1.000 MB (10.0% over)"
    assert reasons["no latency"].startswith("latency was not measured")
    assert reasons["failed"] == "the runtime crashed"
    assert reasons["none"] == "not made: forecast size 9.300 MB is over the allowed 5.200 MB"


def test_a_budget_nobody_meets_has_a_nearest(make):
    found = judged([make("far", size=300), make("near", size=150, error=0.9)], Budget(size=100))
    assert names(found) == ["near", "far"]
    assert [one.verdict for one in found] == ["missed", "missed"]
    assert found[0].reason == "nearest: size is 150 bytes, allowed is 100 bytes (50.0% over)"


def test_overshoots_of_several_limits_add_up(make):
    slightly_both = make("slightly both", size=110, ratio=0.55)
    one_much = make("one much", size=100, ratio=0.8)
    assert names(ranked([one_much, slightly_both], Budget(size=100, latency_ratio=0.5))) == [
        "slightly both",
        "one much",
    ]


def test_only_a_drop_ranks_those_within_it_by_size_times_latency(make):
    candidates = [
        make("precise", size=400, ratio=1.0, error=0.001, drop=0.0),
        make("small and fast", size=100, ratio=0.5, error=0.05, drop=0.005),
        make("small and slow", size=100, ratio=3.0, error=0.02, drop=0.005),
        make("lossy", size=50, ratio=0.1, error=0.5, drop=0.2),
    ]
    found = judged(candidates, Budget(drop=0.01))
    assert names(found) == ["small and fast", "small and slow", "precise", "lossy"]
    assert [one.verdict for one in found] == ["chosen", "met", "met", "missed"]
    assert found[0].reason == "smallest size times latency of 3 within the allowed drop"
    assert found[2].reason == f"met, but size times latency is 8.00 times that of {found[0].id}"


def test_a_second_limit_ranks_by_error_again(make):
    candidates = [make("small", size=100, error=0.05), make("precise", size=400, error=0.001)]
    assert names(ranked(candidates, Budget(drop=0.01, size=1000))) == ["precise", "small"]


def test_without_any_limit_all_are_met(make):
    found = judged([make("large", size=500), make("small", size=100)], Budget())
    assert [(one.plan.origin, one.verdict) for one in found] == [("small", "chosen"), ("large", "met")]


def test_all_failed_keeps_every_reason(make):
    found = judged([make("a", verdict="failed", reason="one"), make("b", verdict="failed", reason="two")], ALL)
    assert [(one.verdict, one.reason) for one in found] == [("failed", "one"), ("failed", "two")]


def test_nothing_to_judge():
    assert judged([], ALL) == []


def test_what_was_not_made_is_neither_met_nor_counted(make):
    found = judged([not_made(), make("made", error=0.1)], Budget())
    assert [one.verdict for one in found] == ["chosen", "missed"]
    assert "of 1 within" in found[0].reason


def test_what_was_not_made_comes_behind_what_failed(make):
    found = judged([not_made(), make("broken", verdict="failed", reason="crashed")], Budget(size=1))
    assert names(found) == ["broken", "none"]
    assert unmade(found[1])
    assert not unmade(found[0])


def test_a_failure_without_an_artefact_is_no_plan_that_was_not_made():
    assert not unmade(replace(not_made(), verdict="failed"))


def test_judging_again_under_another_budget_starts_afresh(make):
    first = judged([make("a", size=100, error=0.1), make("b", size=300, error=0.01)], Budget(size=200))
    again = judged(first, Budget(size=400))
    assert names(first) == ["a", "b"]
    assert [(one.plan.origin, one.verdict) for one in again] == [("b", "chosen"), ("a", "met")]


ROWS = list(itertools.product([0.2, 0.9], [None, 0.1, math.nan], [None, 0.3]))


@given(order=st.permutations(range(len(ROWS))))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_order_does_not_depend_on_the_order_given(make, order):
    budget = Budget(latency_ratio=0.5, drop=0.1)
    candidates = [make(str(index), ratio=ROWS[index][0], error=ROWS[index][1], drop=ROWS[index][2]) for index in order]
    worths = [(sum(check.overshoot for check in checks(one, budget)), loss(one)) for one in ranked(candidates, budget)]
    assert worths == sorted(worths)
    assert len(worths) == len(ROWS)


@pytest.mark.parametrize(
    ("quartiles", "first"),
    [
        (((0.90, 1.04), (0.98, 1.05)), "exact"),
        (((0.70, 0.75), (0.98, 1.05)), "rough"),
        (((0.70, 0.98), (0.98, 1.05)), "exact"),
    ],
    ids=["overlapping quartiles: the smaller error", "clearly faster: the faster", "touching quartiles are equal"],
)
def test_misses_of_latency_are_not_ranked_inside_the_noise(make, quartiles, first):
    made = []
    for name, ratio, error, (low, high) in zip(("rough", "exact"), (0.7, 1.0), (0.09, 0.08), quartiles, strict=True):
        one = make(name, ratio=ratio, error=error)
        made.append(replace(one, latency=replace(one.latency, ratio_low=low, ratio_high=high)))
    order = ranked(made, Budget(latency_ratio=0.55, size=5_000_000))
    assert order[0].plan.origin == first
    assert len(order) == 2


def test_noise_in_latency_excuses_no_other_miss(make):
    big, small = make("big", ratio=1.0, error=0.01, size=9_000_000), make("small", ratio=1.0, error=0.5)
    assert names(ranked([big, small], Budget(latency_ratio=0.55, size=5_000_000))) == ["small", "big"]


def compared(candidate, differing):
    """Return a candidate with so many of 80 values that differ from the reference's."""
    return replace(candidate, parity=replace(candidate.parity, reference_differing=differing, reference_compared=80))


def test_what_equals_the_reference_comes_first(make):
    exact, better = compared(make("exact", error=0.08), 0), compared(make("better", error=0.04), 3)
    found = judged([better, exact], Budget(size=5_000_000))
    assert names(found) == ["exact", "better"]
    assert found[0].reason == "of 2 within the budget the only one known to equal the reference bit for bit"
    assert "does not equal the reference" in found[1].reason
    assert (
        names(judged([better, replace(exact, drop=replace(exact.drop, value=0.5))], Budget(drop=0.01)))[0] == "better"
    )


@pytest.mark.parametrize("budget", [Budget(size=5_000_000), Budget(drop=0.01)])
def test_what_was_not_compared_is_not_called_equal_nor_different(make, budget):
    exact, other = compared(make("exact", error=0.08), 0), make("other", error=0.04, size=10)
    found = judged([other, exact], budget)
    assert names(found) == ["exact", "other"]
    assert "it was not compared with the reference, which" in found[1].reason
    assert exactness(found[0]) == "equal"
    assert exactness(found[1]) == "not compared"


def test_what_was_not_compared_is_as_good_as_what_differs(make):
    differing, other = compared(make("differing", error=0.04), 3), make("other", error=0.08)
    found = judged([other, differing], Budget(size=5_000_000))
    assert names(found) == ["differing", "other"]
    assert found[0].reason == "least output error (0.0400) of 2 within the budget"
    assert "is not below" in found[1].reason


def test_the_reason_counts_those_that_the_error_decided_between(make):
    equals = [compared(make(name, error=error), 0) for name, error in (("a", 0.08), ("b", 0.06))]
    found = judged([*equals, make("c", error=0.01)], Budget(size=5_000_000))
    assert names(found) == ["b", "a", "c"]
    said = "least output error (0.0600) of the 2 that equal the reference bit for bit, of 3 within the budget"
    assert found[0].reason == said
    alone = judged(equals, Budget(drop=0.5))
    assert alone[0].reason == "smallest size times latency of 2 within the allowed drop"
