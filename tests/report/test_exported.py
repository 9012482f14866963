"""A file that does not run here, in the report: its size is judged, the rest is not said to be missed or measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from haversack.base.finding import Finding
from haversack.report import build, headline, render, text


@pytest.fixture
def unrun(values):
    """The values of a record whose first candidate was written and read back only."""
    first = values["candidates"][0]
    note = Finding("export-only", "not run here; on a Mac: type this")
    changed = replace(first, quality=None, drop=None, latency=None, memory=None, parity=None, findings=(note,))
    return {**values, "candidates": (changed, *values["candidates"][1:])}


def test_only_its_size_is_judged(unrun):
    record = build(**unrun)
    limits = {limit.limit: limit for limit in record.limits_of("onnxruntime")}
    assert limits["size"].judged
    assert [name for name, limit in limits.items() if limit.judged] == ["size"]
    assert len(limits) > 1
    assert not any(limit.missed for limit in limits.values())
    assert record.best_of("onnxruntime").exported


def test_without_the_finding_what_is_not_measured_is_missed(unrun):
    first = replace(unrun["candidates"][0], findings=())
    record = build(**{**unrun, "candidates": (first, *unrun["candidates"][1:])})
    limits = record.limits_of("onnxruntime")
    assert all(limit.judged for limit in limits)
    assert any(limit.missed for limit in limits)
    assert not record.best_of("onnxruntime").exported


def test_the_headline_does_not_say_that_every_budget_is_met(unrun):
    verdict = headline.of(build(**unrun))
    assert verdict.state == "met"
    assert "every budget is met" not in verdict.sentence.lower()
    assert verdict.sentence == "Only sizes are judged of what does not run here (onnxruntime)."


def test_a_size_that_is_missed_is_missed(unrun):
    first = unrun["candidates"][0]
    file = replace(first.artifact.files[0], bytes=9_000_000)
    large = replace(first, artifact=replace(first.artifact, files=(file,)))
    verdict = headline.of(build(**{**unrun, "candidates": (large, *unrun["candidates"][1:])}))
    assert verdict.state == "missed"
    assert "size 9.00 MB, allowed 5.20 MB (" in verdict.sentence


def test_the_terminal_says_it_in_the_line_of_the_target(unrun):
    (line,) = [one for one in text.lines(build(**unrun)) if one.startswith("onnxruntime: ")][:1]
    assert line.endswith("not run here  met")
    assert "drop" not in line
    assert "×" not in line


def test_the_page_says_it_where_figures_would_stand(unrun):
    page = render(build(**unrun))
    assert "Not run here." in page
    assert "not judged here" in page
    assert "on a Mac: type this" in page
