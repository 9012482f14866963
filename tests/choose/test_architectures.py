"""One architecture of several: the budget first, then the metric's own value, or bytes times milliseconds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haversack.base.budget import Budget
from haversack.base.finding import Finding
from haversack.choose.architectures import between, outdone
from haversack.choose.verdict import checks

SIZE, DROP = Budget(size=2_000_000), Budget(drop=0.02)


@pytest.fixture
def measured(make):
    """Make a candidate by what it takes; its ratio and its output error say nothing."""

    def build(drop=0.0, *, size=1_000_000, ms=5.0, ratio=0.5, error=0.05, verdict="chosen", reason="", exported=False):
        one = make(size=size, ratio=ratio, float_ms=ms / ratio, error=error, drop=drop, verdict=verdict, reason=reason)
        if not exported:
            return one
        bare = {"quality": None, "drop": None, "parity": None, "latency": None, "memory": None}
        return replace(one, findings=(Finding("export-only", "not run here"),), **bare)

    return build


@pytest.mark.parametrize(
    "best, budget, winner",
    [
        (lambda m: {"a": m(0.01), "b": m(0.005)}, SIZE, "b"),
        (lambda m: {"a": m(0.01, error=0.001, ratio=0.1), "b": m(0.005, error=0.5, ratio=0.9)}, SIZE, "b"),
        (lambda m: {"a": m(0.01), "b": m(0.0, size=3_000_000)}, SIZE, "a"),
        (lambda m: {"a": m(0.01), "b": m(0.0, verdict="failed")}, SIZE, "a"),
        (lambda m: {"a": m(0.01, size=4_000_000), "b": m(0.0, size=5_000_000)}, SIZE, "a"),
        (lambda m: {"a": m(0.01, size=900), "b": m(0.01, size=800)}, SIZE, "b"),
        (lambda m: {"a": m(None), "b": m(0.5)}, SIZE, "b"),
        (lambda m: {"a": m(0.0, size=900, ms=9.0), "b": m(0.015, size=800, ms=5.0)}, DROP, "b"),
        (lambda m: {"a": m(0.0, size=900, ms=9.0, ratio=0.1), "b": m(0.0, size=900, ms=8.0, ratio=0.9)}, DROP, "b"),
        (lambda m: {"a": m(0.0, size=900), "b": m(0.03, size=800)}, DROP, "a"),
        (lambda m: {"a": m(0.05)}, DROP, "a"),
    ],
    ids=[
        "the best value",
        "not the output error, nor the ratio",
        "not what is too big",
        "not what failed",
        "none meets: the least over",
        "as good: the smallest",
        "what has no value comes behind",
        "quality alone limited: bytes times milliseconds",
        "milliseconds, not ratios",
        "not what loses too much",
        "alone",
    ],
)
def test_who_wins(measured, best, budget, winner):
    found = between(best(measured), budget, {})
    assert found.architecture == winner
    assert found.paragraph.startswith(f"{winner} is the best (top1 90.00 %, ")


def test_of_what_is_not_run_here_the_float_model_speaks(measured):
    best = {"small": measured(size=900, exported=True), "good": measured(size=1900, exported=True)}
    assert between(best, SIZE, {"small": 0.03, "good": 0.0}).architecture == "good"
    assert between(best, Budget(size=1000), {"small": 0.03, "good": 0.0}).architecture == "small"
    assert between(best, DROP, {"small": 0.03, "good": 0.0}).architecture == "good"


def test_the_paragraph_tells_of_every_other(measured):
    best = {
        "wins": measured(0.0),
        "worse": measured(0.01, size=1_100_000),
        "large": measured(0.0, size=3_000_000),
        "broken": measured(0.0, verdict="failed", reason="it crashed\n  tried: it"),
    }
    text = between(best, SIZE, {}).paragraph
    assert "it meets every limit, with the best quality of those that do." in text
    assert "worse has top1 90.00 %, 1.100 MB, 5 ms a call." in text
    assert "large misses the budget: size is 3.000 MB, allowed is 2.000 MB." in text
    assert "broken failed: it crashed." in text


@pytest.mark.parametrize(
    "one, words",
    [
        (lambda m: m(0.0), "it meets every limit."),
        (lambda m: m(0.0, size=3_000_000), "it misses the budget by the least."),
        (lambda m: m(0.0, verdict="failed", reason="not exact"), "it failed, as all of them did."),
    ],
)
def test_what_the_winner_is(measured, one, words):
    assert between({"only": one(measured)}, SIZE, {}).paragraph.endswith(words)


def test_nothing_to_choose_from_is_an_error():
    with pytest.raises(ValueError, match="no architecture"):
        between({}, SIZE, {})


ONES = st.dictionaries(
    st.sampled_from("abcde"),
    st.tuples(st.floats(-0.1, 0.1), st.integers(1, 5_000_000), st.floats(0.01, 100), st.booleans()),
    min_size=1,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ones=ONES, budget=st.sampled_from([SIZE, DROP, Budget(size=2_000_000, latency_ms=10.0, drop=0.02)]))
def test_nothing_that_did_not_fail_is_better_in_all(make, ones, budget):
    best = {
        name: make(size=size, ratio=0.5, float_ms=2 * ms, drop=drop, verdict="failed" if bad else "met")
        for name, (drop, size, ms, bad) in ones.items()
    }
    winner = between(best, budget, {}).architecture

    def over(name):
        return sum(check.overshoot for check in checks(best[name], budget))

    sound = [name for name in best if best[name].verdict != "failed"]
    if sound:
        assert winner in sound
        assert over(winner) == min(over(name) for name in sound)
        level = [name for name in sound if over(name) == over(winner)]
        if budget is not DROP or over(winner):
            assert best[winner].drop.value == min(best[name].drop.value for name in level)
        else:
            products = {name: best[name].artifact.bytes * best[name].latency.median_ms for name in level}
            assert math.isclose(products[winner], min(products.values()))


def test_the_others_are_no_longer_chosen(measured):
    ones = [replace(measured(), architecture=name) for name in ("a", "b")]
    ones.append(replace(measured(verdict="missed", reason="size"), architecture="b"))
    (target,) = {one.plan.target for one in ones}
    found = outdone(ones, {target: "a"})
    assert [one.verdict for one in found] == ["chosen", "met", "missed"]
    assert found[1].reason == "met, but a ships"
    other = outdone(ones, {"litert": "b"}, "litert")
    assert [one.verdict for one in other] == ["met", "met", "missed"]
    assert other[0].reason == "met, but b on litert ships"
