"""What a run says to type next: a miss is answered with limits that what was measured meets."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from haversack.base import budget as budgets
from haversack.base.candidate import Artifact, ArtifactFile, Candidate, Latency, Memory
from haversack.base.finding import Finding
from haversack.base.plan import Plan
from haversack.base.quality import Drop, Quality
from haversack.choose.verdict import checks
from haversack.flow.next_step import next_step

OUT = Path("some where/out")


def candidate(target="a", size=51_234, download=43_065, ratio=1.1403, drop=0.0123, unit="fraction"):
    file = ArtifactFile("model.onnx", size, download, "0" * 64)
    latency = Latency(ratio, ratio * 2.0, 3.0, 9.0, ratio, ratio, ratio, 2.0, 100)
    quality = Quality("top1", 0.9, unit, "higher", 100, 0.03)
    spread = Drop(drop, drop - 0.01, drop + 0.01, 100)
    artifact = Artifact(target, (file,), (), (), "1")
    return Candidate(Plan(target), artifact, quality, spread, None, latency, Memory(7_000_001))


def refused(**figures):
    told = (Finding("slower-than-float", "it is"), Finding("dead-channel", "one"))
    return replace(candidate(**figures), verdict="failed", findings=told)


def asked(budget, *found, chosen_on=None):
    return next_step(OUT, {one.plan.target: one for one in found}, budgets.parse(budget), chosen_on or {})


def test_what_meets_its_budget_is_verified():
    assert asked("size=60KB,latency=1.2x,drop=2pt", candidate()) == "haversack verify 'some where/out'"


def test_where_nothing_was_left_there_is_nothing_to_verify():
    assert asked("size=60KB") == "mend what failed, as told above, or choose another --target: no artefact was left"


@pytest.mark.parametrize(
    "budget",
    [
        "size=50KB",
        "download=40KB,size=80KB",
        "latency=1.1x",
        "latency=2ms",
        "memory=7MB",
        "drop=1pt",
        "size=1KB,download=1KB,memory=1KB,latency=0.1x,drop=0.1pt",
    ],
)
def test_the_limits_it_names_are_met_by_what_was_measured_and_no_looser_than_needed(budget):
    found = [candidate(), candidate("b", size=52_000, ratio=1.2, drop=0.02)]
    text = asked(budget, *found)
    assert text.startswith("haversack resolve 'some where/out' --budget ")
    loosened = budgets.parse(text.split()[5])
    assert all(check.met for one in found for check in checks(one, loosened))
    for name, value in loosened.limits().items():
        worst = max(check.got for one in found for check in checks(one, loosened) if check.limit == name)
        before = budgets.parse(budget).limits()[name]
        assert value == before or value <= worst * 1.001


def test_the_worse_half_counts():
    one = candidate(drop=0.012)
    assert "drop=3.1pt" in asked("drop=1pt", one, chosen_on={one.id: 0.031})


def test_what_would_meet_it_if_it_were_allowed_is_said_beside():
    only = "only w4a8, which --without forbids, is forecast to reach size=50KB"
    one = {"a": candidate()}
    told = next_step(OUT, one, budgets.parse("size=50KB"), {}, only)
    assert told == f"{next_step(OUT, one, budgets.parse('size=50KB'), {})[:-1]}; {only})"
    assert only not in next_step(OUT, one, budgets.parse("size=60KB"), {}, only)


def test_a_drop_in_the_metrics_own_unit():
    assert "drop=0.0123 " in asked("drop=0.01", candidate(unit="points"))


@pytest.mark.parametrize("typed", [["--budget", "size=50KB"], ["--budget=size=50KB"], []])
def test_what_failed_is_allowed_in_the_command_for_resolve_would_not_take_it(typed):
    command = shlex.join(["haversack", "pack", "a job.py", *typed, "--out", str(OUT)])
    text = next_step(OUT, {"a": refused()}, budgets.parse("size=50KB"), {}, command=command)
    line, _, told = text.partition("    ")
    limits = ["--budget", "size=51.234KB", "--allow", "slower-than-float"]
    assert shlex.split(line) == ["haversack", "pack", "a job.py", "--out", str(OUT), *limits]
    assert told == "(what was measured meets that, and failed for slower-than-float)"


def test_without_a_command_what_failed_is_told_in_words():
    text = asked("size=50KB", refused())
    assert text.startswith("pack it again with the limits size=51.234KB, allowing slower-than-float")
    assert "haversack resolve" not in text
