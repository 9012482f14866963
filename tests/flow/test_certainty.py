"""What so many samples establish of a drop is told of what ships, whatever its verdict, for the limit asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from haversack.base.budget import Budget
from haversack.base.candidate import Artifact, Candidate, Latency
from haversack.base.finding import Finding
from haversack.base.plan import Plan
from haversack.base.quality import Drop, Quality
from haversack.flow.certainty import KIND, certain
from haversack.flow.reporting import _told

OTHER = Finding("dead-channel", "one")
SCORED = Candidate(
    Plan("one"),
    Artifact("one", (), (), (), "1"),
    Quality("top1", 0.9, "fraction", "higher", 100, 0.03),
    Drop(0.01, -0.02, 0.04, 100),
    None,
    None,
    None,
    findings=(OTHER,),
)


def kinds(candidate):
    return [finding.kind for finding in candidate.findings]


def test_an_interval_across_the_limit_is_told_in_points():
    (_, found) = certain(SCORED, Budget(drop=0.02)).findings
    said = "the drop is 1.00 pt, 95 %: \u22122.00 to 4.00 pt; 100 samples do not establish that it is within 2.00 pt"
    assert (found.kind, found.text) == (KIND, said)


@pytest.mark.parametrize("budget", [Budget(), Budget(size=1), Budget(drop=0.04), Budget(drop=-0.03)])
def test_what_another_budget_left_is_taken_off(budget):
    earlier = certain(SCORED, Budget(drop=0.02))
    assert kinds(certain(earlier, budget)) == ["dead-channel"]
    assert kinds(certain(earlier, Budget(drop=0.02))) == ["dead-channel", KIND]


def test_without_a_drop_nothing_is_told():
    assert kinds(certain(replace(SCORED, drop=None), Budget(drop=0.02))) == ["dead-channel"]


@pytest.mark.parametrize("verdict", ["chosen", "missed", "failed"])
def test_what_ships_is_told_whatever_its_verdict(verdict):
    unmade = replace(SCORED, plan=Plan("none"), artifact=None)
    ships, later = replace(SCORED, verdict=verdict), replace(SCORED, plan=Plan("later"))
    found = _told([unmade, ships, later], Budget(drop=0.02))
    assert [KIND in kinds(one) for one in found] == [False, True, False]


BUSY = Latency(0.5, 5.0, 9.0, 20.0, 0.5, 0.2, 0.8, 10.0, 400)
QUIET = replace(BUSY, ratio_low=0.46, ratio_high=0.54)


@pytest.mark.parametrize(
    "latency, budget, said",
    [
        (BUSY, Budget(latency_ratio=0.4), "\u00d70.20 to \u00d70.80, the limit is \u00d70.40"),
        (BUSY, Budget(latency_ms=7.5), "2.000 ms to 8.000 ms, the limit is 7.500 ms"),
        (BUSY, Budget(latency_ratio=0.9), ""),
        (BUSY, Budget(latency_ms=1.5), ""),
        (BUSY, Budget(size=1), ""),
        (QUIET, Budget(latency_ratio=0.5), ""),
    ],
)
def test_a_latency_of_a_busy_machine_is_told_where_the_limit_lies_between_its_quartiles(latency, budget, said):
    found = certain(replace(SCORED, latency=latency), budget)
    told = [finding.text for finding in found.findings if finding.kind == "noisy"]
    assert len(told) == bool(said)
    assert all(said in text for text in told)
    assert kinds(certain(found, Budget())) == ["dead-channel"], "another budget takes it off"


def test_a_note_of_speeds_that_cannot_be_told_apart_stays():
    told = Finding("noisy", "its speed cannot be told from float's here")
    assert told in certain(replace(SCORED, findings=(told,)), Budget()).findings
