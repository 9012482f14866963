"""The lines a terminal shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from haversack.base.finding import Finding
from haversack.report import build, lines


def test_a_met_run(record):
    told = lines(record)
    assert told[0] == "Every budget is met on onnxruntime."
    assert told[1] == (
        "onnxruntime: 5.02 MB  ×0.49 (11.8 ms)  top1 88.4 % (float 88.7 %)  drop 0.27 pt [−0.34 to 1.10 pt]  "
        "agreement 98.1 %  met"
    )
    assert told[-1] == "next: haversack bundle out/"


def test_findings_gravest_first(values):
    first = values["candidates"][0]
    grave = Finding("weight-changed", "1 of 1,281,000 integers", "_fc:linear#0")
    made = build(**{**values, "candidates": (replace(first, findings=(*first.findings, grave)),)})
    found = [line for line in lines(made) if line.partition(":")[0] in {"error", "warning", "note"}]
    assert found == [
        "error: onnxruntime: weight-changed at _fc:linear#0: 1 of 1,281,000 integers",
        *(line for line in lines(made) if line.startswith("warning")),
        *(line for line in lines(made) if line.startswith("note")),
    ]
    assert len(found) == 4


def test_an_allowed_finding_says_so(values):
    first = replace(values["candidates"][0], findings=(Finding("float-op", "2 layers in float"),))
    told = lines(build(**{**values, "candidates": (first,), "allowed": ("float-op",)}))
    assert "error (allowed): onnxruntime: float-op: 2 layers in float" in told


def test_a_missed_run(many):
    told = lines(many)
    assert told[1].startswith("onnxruntime: 5.80 MB  ×0.52")
    assert told[1].endswith("missed")
    assert told[2].startswith("litert: 4.70 MB")


def test_what_was_not_measured_is_said(hollow):
    assert lines(hollow)[1:] == (
        "onnxruntime: 5.02 MB  not timed  not scored  missed",
        "litert: failed (the runtime crashed while it opened the file)",
    )


def test_a_failure_without_reason(hollow):
    silent = replace(hollow, candidates=tuple(replace(one, reason="") for one in hollow.candidates))
    assert lines(silent)[2] == "litert: failed"


def test_without_class_scores_the_error_is_told(record):
    best = record.candidates[0]
    regression = replace(best, parity=replace(best.parity, agreement=None))
    told = lines(replace(record, candidates=(regression, *record.candidates[1:])))
    assert "relative error 0.0712" in told[1]
    assert "agreement" not in told[1]


def test_no_interval_no_brackets(record):
    best = record.candidates[0]
    bare = replace(best, quality=replace(best.quality, drop_low=None, drop_high=None))
    assert "drop 0.27 pt  " in lines(replace(record, candidates=(bare,)))[1]


@pytest.mark.parametrize("fixture", ["record", "hollow", "many"])
def test_every_line_is_one_line(request, fixture):
    told = lines(request.getfixturevalue(fixture))
    assert all(line.strip() == line and "\n" not in line for line in told)
    assert len(told) >= 1 + len(request.getfixturevalue(fixture).targets)


def test_candidates_that_failed_are_told_though_another_ships(record):
    failed = [one for one in record.candidates if one.verdict == "failed"]
    told = [line for line in lines(record) if "candidates failed" in line]
    assert failed
    assert told == [line for line in told if line.startswith(f"{len(failed)} of {len(record.candidates)} candidates")]
    assert len(told) == 1
