"""One runtime of several: the budget first, then milliseconds, then the error; and a paragraph that says so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from haversack.base.budget import Budget
from haversack.choose.runtimes import Choice, between, outdone, overshoot


@pytest.fixture
def measured(make):
    """Make a candidate of a runtime by what it takes."""

    def build(target, ms, *, error=0.05, size=1_000_000, ratio=0.5, verdict="chosen"):
        reason = "it crashed" if verdict == "failed" else ""
        made = make(size=size, ratio=ratio, error=error, float_ms=ms / ratio, verdict=verdict, reason=reason)
        return replace(made, plan=replace(made.plan, target=target))

    return build


BUDGET = Budget(size=2_000_000)


@pytest.mark.parametrize(
    "best, winner",
    [
        (lambda m: {"a": m("a", 10), "b": m("b", 5)}, "b"),
        (lambda m: {"a": m("a", 10, ratio=0.4), "b": m("b", 5, ratio=0.9)}, "b"),
        (lambda m: {"a": m("a", 10), "b": m("b", 5, size=3_000_000)}, "a"),
        (lambda m: {"a": m("a", 10), "b": m("b", 5, verdict="failed")}, "a"),
        (lambda m: {"a": m("a", 10, error=0.02), "b": m("b", 9.8, error=0.03)}, "a"),
        (lambda m: {"a": m("a", 10, error=0.03, size=9), "b": m("b", 10, error=0.03, size=8)}, "b"),
        (lambda m: {"a": m("a", 10, size=4_000_000), "b": m("b", 5, size=5_000_000)}, "a"),
        (lambda m: {"a": m("a", 10)}, "a"),
    ],
    ids=[
        "the fastest",
        "milliseconds, not ratios",
        "not what is too big",
        "not what failed",
        "as fast: nearest to float",
        "as near: the smallest",
        "none meets: the least over",
        "alone",
    ],
)
def test_who_wins(measured, best, winner):
    found = between(best(measured), BUDGET)
    assert found.target == winner
    assert found.paragraph.startswith(f"{winner} ships (")


def test_the_paragraph_tells_of_every_other(measured):
    best = {
        "fast": measured("fast", 5),
        "slow": measured("slow", 20),
        "big": measured("big", 2, size=3_000_000),
        "gone": measured("gone", 2, verdict="failed"),
        "level": measured("level", 5.1, error=0.5),
    }
    text = between(best, BUDGET, shipping={"fast": "pip brings it"}, left_out={"far": "it is not installed"}).paragraph
    for wanted in (
        "fast ships (5 ms a call, 1.000 MB, output error 0.0500): it meets every limit",
        "slow takes 4.00 times as long (20 ms).",
        "big misses the budget: size is 3.000 MB, allowed is 2.000 MB.",
        "gone failed: it crashed.",
        "level is as fast (5.1 ms), its outputs are 0.5000 from float.",
        "far was not tried: it is not installed.",
        "To ship it: pip brings it.",
    ):
        assert wanted in text


def test_a_best_effort_says_so(measured):
    found = between({"a": measured("a", 1, size=4_000_000), "b": measured("b", 1, size=8_000_000)}, BUDGET)
    assert "misses the budget by the least" in found.paragraph
    assert overshoot(measured("a", 1, size=4_000_000), BUDGET) == pytest.approx(1.0)


def test_without_any_there_is_nothing_to_choose():
    with pytest.raises(ValueError, match="no runtime"):
        between({}, BUDGET)


@pytest.fixture
def several(measured):
    """Candidates of two runtimes, best first: one chosen each, the rest met, missed and failed."""
    verdicts = ("chosen", "met", "missed", "failed")
    return [measured(name, 5, verdict=one) for name in ("a", "b") for one in verdicts]


@pytest.mark.parametrize("winner, place", [("a", 4), ("b", 0)])
def test_the_others_are_no_longer_chosen_and_say_who_is(several, winner, place):
    found = outdone(several, Choice(winner, "why"))
    assert [one.verdict for one in found].count("chosen") == 1
    assert next(one for one in found if one.verdict == "chosen").plan.target == winner
    assert (found[place].verdict, found[place].reason) == ("met", f"met, but {winner} ships instead")
    kept = [one for index, one in enumerate(found) if index != place]
    assert kept == [one for index, one in enumerate(several) if index != place]


def test_outdone_changes_nothing_but_verdict_and_reason(several):
    changed = outdone(several, Choice("a", "why"))[4]
    assert replace(changed, verdict="chosen", reason=several[4].reason) == several[4]
    assert several[4].verdict == "chosen"


def test_outdone_twice_is_outdone_once(several):
    choice = Choice("b", "why")
    once = outdone(several, choice)
    assert outdone(once, choice) == once
    assert outdone([], choice) == []


def test_a_runtime_that_is_alone_is_not_outdone(measured):
    alone = [measured("a", 5), measured("a", 6, verdict="met")]
    assert outdone(alone, Choice("a", "why")) == alone


def test_outdone_takes_the_choice_as_between_made_it(measured):
    best = {"a": measured("a", 10), "b": measured("b", 5)}
    found = outdone(best.values(), between(best, BUDGET))
    assert {one.plan.target: one.verdict for one in found} == {"a": "met", "b": "chosen"}
