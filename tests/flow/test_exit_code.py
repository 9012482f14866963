"""The exit code of a run, from what ships for each target."""

from __future__ import annotations

from dataclasses import replace

import pytest

from haversack.base.budget import Budget
from haversack.base.candidate import Artifact, ArtifactFile, Candidate
from haversack.base.finding import Finding
from haversack.base.plan import Plan
from haversack.flow.outputs import shipped
from haversack.flow.search import exit_code

FILE = Artifact("one", (), (), (), "1")
GOOD = Candidate(Plan("one"), FILE, None, None, None, None, None, verdict="chosen")
SLOW = Finding("slower-than-float", "it is")
UNREADABLE = Finding("unreadable", "it does not open")
NOTE = Finding("dead-channel", "one")


def other(candidate):
    return replace(candidate, plan=Plan("other"))


@pytest.mark.parametrize(
    "candidates, allow, code",
    [
        ([GOOD], (), 0),
        ([replace(GOOD, verdict="missed")], (), 3),
        ([replace(GOOD, findings=(NOTE,))], (), 0),
        ([replace(GOOD, verdict="failed", findings=(SLOW,))], (), 5),
        ([replace(GOOD, findings=(SLOW,))], ("slower-than-float",), 0),
        ([replace(GOOD, verdict="missed", findings=(SLOW,))], ("slower-than-float",), 3),
        ([GOOD, replace(GOOD, verdict="failed", findings=(SLOW,))], (), 0),
        ([GOOD, other(replace(GOOD, verdict="missed"))], (), 3),
        ([replace(GOOD, verdict="missed"), other(replace(GOOD, findings=(SLOW,)))], (), 5),
        ([replace(GOOD, artifact=None, verdict="failed", findings=(UNREADABLE,))], (), 4),
        ([replace(GOOD, artifact=None, verdict="failed")], (), 5),
        ([GOOD, other(replace(GOOD, artifact=None, verdict="failed", findings=(UNREADABLE,)))], (), 4),
    ],
)
def test_the_worst_of_what_ships_decides(candidates, allow, code):
    assert exit_code(candidates, allow, Budget()) == code


@pytest.mark.parametrize(
    ("findings", "size", "code"),
    [((SLOW,), 10, 3), ((SLOW, UNREADABLE), 10, 4), ((SLOW,), 1000, 5), ((), 10, 3)],
    ids=[
        "a missed budget is the miss",
        "but no excuse for the rest",
        "within the budget slowness fails",
        "a miss alone",
    ],
)
def test_a_missed_budget_excuses_slowness_alone(findings, size, code):
    file = ArtifactFile("model.onnx", 100, 90, "0" * 64)
    candidate = replace(GOOD, artifact=Artifact("one", (file,), (), (), "1"), verdict="failed", findings=findings)
    assert exit_code([candidate], (), Budget(size=size)) == code


def test_the_first_with_an_artefact_ships_for_each_target():
    gone = replace(GOOD, artifact=None)
    later = replace(GOOD, verdict="met")
    assert shipped([gone, GOOD, later, other(later)]) == {"one": GOOD, "other": other(later)}
