"""The same folder under other limits: what was made and measured is reused, the verdict is of these limits."""

from __future__ import annotations

import json

import pytest

from haversack import report
from haversack.base.candidate import Candidate
from haversack.cli import main


@pytest.fixture
def again(run, packed):
    """Run the same plan in the same folder under another budget; return (exit code, the candidate that ships)."""
    plan = run.parent / "plan.toml"

    def build(budget: str, *more: str) -> tuple[int, Candidate]:
        from haversack.flow.request import write_plan

        (shipped,) = [one.plan for one in report.read(run).candidates]
        write_plan(shipped, plan)
        words = packed.command(run, "--plan", str(plan), *more)[3:]
        words[words.index("--budget") + 1] = budget
        return main(words), report.read(run).candidates[0]

    return build


def test_a_verdict_is_of_the_limits_that_were_typed_last(again, run):
    code, candidate = again("size=1KB,drop=5pt")
    assert (code, candidate.verdict) == (3, "missed")
    assert "allowed is 1.0 kB" in candidate.reason
    code, candidate = again("size=1MB,drop=5pt")
    assert (code, candidate.verdict) == (0, "chosen")
    events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [event["kind"] for event in events if event["text"].startswith("candidate:")][-2:] == ["reused", "reused"]
