"""On degraded inputs: what page, terminal and report.json say of it, and that they are silent where none was asked."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace

import pytest

from haversack.report import files, lines, render
from haversack.report.degraded import DegradedRecord

ONNX = "onnxruntime"
BLUR = DegradedRecord(
    ONNX,
    "blur(sigma=1.5)",
    {"op": "blur", "input": 0, "sigma": 1.5, "axis": -1},
    186,
    value=0.8495,
    clean_value=0.8844,
    float_value=0.8817,
    float_clean_value=0.8871,
    drop=0.0322,
    drop_low=0.012,
    drop_high=0.0591,
    clean_drop=0.0027,
    excess=0.0295,
    excess_low=0.0054,
    excess_high=0.0591,
    less_robust=True,
)
NOISE = replace(BLUR, degradation="noise(level=0.1)", value=0.8871, excess_low=-0.01, less_robust=False)
LOST = DegradedRecord(
    ONNX, "missing_frames(fraction=0.5)", {"op": "missing_frames"}, 186, clean_value=0.8844, cause="it died <here>"
)


def section(record):
    _, _, found = render(record).partition('<h2 id="degraded">')
    return html.unescape(found.partition("</section>")[0])


def cells(text):
    return re.findall(r'data-label="(.*?)">(?:<span>)?(.*?)(?:<span class="sub">(.*?)</span>)?(?:</span>)?</td>', text)


def test_changes_are_those_by_the_degradation_alone():
    assert BLUR.change == pytest.approx(-0.0349)
    assert BLUR.float_change == pytest.approx(-0.0054)
    assert LOST.change is None
    assert LOST.float_change is None


def test_the_page_shows_both_and_what_compression_costs_there(record):
    found = section(replace(record, degraded=(BLUR, NOISE)))
    rows = found.split("<tr")[2:]
    assert cells(rows[0]) == [
        ("Float", "88.2 %", "−0.54 pt"),
        ("The file", "85.0 %", "−3.49 pt"),
        ("Drop", "3.22 pt", "1.20 to 5.91 pt"),
        ("Drop, clean", "0.27 pt", ""),
        ("Excess", "2.95 pt", "0.54 to 5.91 pt"),
    ]
    assert ("The file", "88.7 %", "+0.27 pt") in cells(rows[1])
    assert ["less robust" in row for row in rows] == [True, False]


def test_what_was_not_scored_says_why_and_shows_dashes(record):
    found = section(replace(record, degraded=(LOST,)))
    assert "not scored: it died <here>" in found
    assert [value for _, value, _ in cells(found)] == ["—"] * 5
    assert "it died <here>" not in render(replace(record, degraded=(LOST,))), "it is escaped"


def test_against_float_there_is_no_column_of_float_and_it_is_said_why(record):
    against = replace(BLUR, against_float=True, float_value=None, float_clean_value=None)
    found = section(replace(record, degraded=(against,)))
    assert "perfect by definition" in found
    assert [label for label, *_ in cells(found)] == ["The file", "Drop", "Drop, clean", "Excess"]
    assert "perfect by definition" not in section(replace(record, degraded=(BLUR,)))


def test_targets_stand_in_the_order_of_the_run(many):
    degraded = tuple(replace(BLUR, target=target) for target in reversed(many.targets))
    found = section(replace(many, degraded=degraded))
    assert re.findall(r'colspan="6">(\w+)<', found) == list(many.targets)
    assert found.count("<tbody>") == found.count("</tbody>") == 2


def test_one_line_a_target_on_the_terminal(many):
    degraded = tuple(replace(one, target=target) for target in many.targets for one in (BLUR, NOISE, LOST))
    told = [line for line in lines(replace(many, degraded=degraded)) if "degraded inputs" in line]
    assert told == [
        f"{target}: degraded inputs: blur(sigma=1.5) −3.49 pt (float −0.54 pt), noise(level=0.1) +0.27 pt"
        " (float −0.54 pt), missing_frames(fraction=0.5) not scored"
        for target in many.targets
    ]


def test_nothing_is_said_where_none_was_asked_for(record):
    assert "degraded inputs" not in render(record)
    assert not [line for line in lines(record) if "degraded" in line]


def test_it_comes_back_from_the_file_and_an_older_file_has_none(record, tmp_path):
    told = replace(record, degraded=(BLUR, LOST))
    files.write(told, tmp_path)
    assert files.read(tmp_path).degraded == told.degraded
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["degraded"][0]["excess_low"] == 0.0054
    del data["degraded"]
    (tmp_path / "report.json").write_text(json.dumps(data))
    assert files.read(tmp_path).degraded == ()
