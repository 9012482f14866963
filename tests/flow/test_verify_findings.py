"""What verify makes of what it finds: exit codes, tolerances, and the findings that the run itself left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from haversack import report
from haversack.base.errors import Fault
from haversack.base.finding import KINDS
from haversack.flow.verify import FLOAT_TOLERANCE, Answer, Check, _near, verify
from haversack.report import headline, wording
from haversack.report.files import to_json
from haversack.report.record import FindingRecord
from haversack.tools.data.comparison import differing


def where(answer: Answer) -> str:
    return "\n".join(answer.lines())


def test_the_worst_of_the_checks_is_the_exit_code(tmp_path):
    fine = Check("t", "a", "fine")
    wrong = Check("t", "b", "bad", (Fault("x", "is wrong"),))
    refused = Check("t", "c", "bad", (Fault("y", "is a pickle"),), refused=True)
    assert Answer(tmp_path, (fine,), tmp_path, "again").exit_code == 0
    assert Answer(tmp_path, (fine, wrong), tmp_path, "again").exit_code == 5
    assert Answer(tmp_path, (wrong, refused, fine), tmp_path, "again").exit_code == 7
    lines = Answer(tmp_path, (wrong,), tmp_path, "again").lines()
    assert lines[0] == "wrong  t: b: bad"
    assert lines[1].strip() == "- x: is wrong"


@pytest.mark.parametrize(
    "change, exact, faults",
    [
        (0.0, True, 0),
        (1e-7, True, 1),
        (FLOAT_TOLERANCE / 2, False, 0),
        (FLOAT_TOLERANCE * 2, False, 1),
        (np.nan, False, 1),
    ],
)
def test_tolerance_is_for_float_layers_alone_and_of_the_largest_value(change, exact, faults):
    wanted = np.array([[1.0, -0.25, 0.0]], np.float32)
    found = wanted.copy()
    found[0, 1] += np.float32(change)
    assert len(list(differing(0, {"y": wanted}, {"y": found}, None if exact else _near))) == faults


def test_outputs_of_another_name_shape_or_dtype():
    one = np.ones((1, 2), np.float32)
    found = {"b": one[0], "c": one.astype(np.float64), "d": one}
    faults = differing(3, {"a": one, "b": one, "c": one}, found, _near)
    assert [fault.cause for fault in faults] == [
        "the file does not give it",
        "float32 [2] instead of float32 [1, 2]",
        "float64 [1, 2] instead of float32 [1, 2]",
        "nothing is expected of it",
    ]


def found(run, kind, *, allowed=(), verdict="failed", met=True):
    """Let report.json say that what ships has a finding."""
    record = report.read(run)
    told = FindingRecord(kind, KINDS[kind][0], "1:relu#0:out", "planted")
    candidates = tuple(replace(one, findings=(told,), verdict=verdict) for one in record.candidates)
    budget = tuple(replace(limit, met=met) for limit in record.budget)
    record = replace(record, candidates=candidates, allowed=allowed, budget=budget)
    (run / "report.json").write_text(to_json(record))
    return verify(run)


def test_a_run_that_failed_is_not_called_right(run):
    answer = found(run, "not-exact")
    assert answer.exit_code == 5
    assert [fault.where for fault in answer.faults] == ["1:relu#0:out"]
    assert "wrong  onnxruntime: findings of the run: it found 1 error that fails it" in where(answer)
    assert "not-exact: planted" in where(answer)


@pytest.mark.parametrize(
    "kind, settings, code",
    [
        ("not-exact", {"allowed": ("not-exact",), "verdict": "chosen"}, 0),
        ("not-established", {"verdict": "chosen"}, 0),
        ("slower-than-float", {}, 5),
        ("slower-than-float", {"met": False}, 0),
        ("slower-than-float", {"allowed": ("slower-than-float",)}, 0),
    ],
)
def test_what_was_allowed_or_is_no_error_is_no_fault(run, kind, settings, code):
    assert found(run, kind, **settings).exit_code == code


def test_a_verdict_without_a_finding_is_told_with_its_reason(run):
    record = report.read(run)
    candidates = tuple(replace(one, findings=(), verdict="failed", reason="planted") for one in record.candidates)
    (run / "report.json").write_text(to_json(replace(record, candidates=candidates)))
    answer = verify(run)
    assert answer.exit_code == 5
    assert "the run failed it: planted" in where(answer)


def test_what_is_excused_is_said_and_why(run):
    limits = report.read(run).budget
    answer = found(run, "slower-than-float", met=False)
    why = "; ".join(headline.miss(replace(limit, met=False)) for limit in limits)
    assert answer.exit_code == 0
    assert answer.checks[3].text == (
        f"it found no error that fails it: slower-than-float is excused by the missed budget: {why}"
    )
    assert f", allowed {wording.amount(limits[0].allowed, limits[0].unit)}" in why
    allowed = found(run, "slower-than-float", met=False, allowed=("slower-than-float",))
    assert allowed.checks[3].text == "it found no error that fails it: slower-than-float was allowed"
    assert found(run, "not-established", verdict="chosen").checks[3].text == "it found no error"
