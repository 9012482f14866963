"""Findings: a closed list, each kind with a severity and an exit code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from haversack.base.finding import KINDS, Finding

DESIGNED = (
    "slower-than-float float-op scale-changed weight-changed dead-channel range-mixing "
    "not-established export-only nondeterministic large-error-at"
)


def test_the_kinds_of_the_design_are_there():
    assert set(DESIGNED.split()) <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_has_an_exit_code_and_nothing_else_has(kind):
    finding = Finding(kind, "text")
    assert finding.severity in {"error", "warning", "note"}
    assert finding.exit_code in ({4, 5} if finding.severity == "error" else {0})


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_are_words_that_can_be_typed_and_are_explained(kind):
    assert kind.replace("-", "").isalpha()
    assert kind == kind.lower()
    assert len(KINDS[kind][2].split()) >= 4


@pytest.mark.parametrize("kind", ["", "slow", "Float-op", "float-op ", "fall-back"])
def test_no_other_kind(kind):
    with pytest.raises(ValueError, match="unknown kind of finding"):
        Finding(kind, "text")


def test_findings_are_values():
    assert Finding("float-op", "a", "b") == Finding("float-op", "a", "b")
    assert len({Finding("float-op", "a"), Finding("float-op", "a"), Finding("float-op", "a", "b")}) == 2


def test_the_guide_lists_every_kind_under_its_severity():
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "00-start.md").read_text()
    for severity in ("error", "warning", "note"):
        (row,) = re.findall(rf"^\| {severity} \| (.*) \|$", guide, re.MULTILINE)
        assert set(re.findall(r"`([a-z-]+)`", row)) == {kind for kind, told in KINDS.items() if told[0] == severity}
