"""A metric that returns one float for the whole set goes all the way through ``pack``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from haversack import report
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.cli import main
from haversack.flow.request import write_plan

TINY_JOB = Path(__file__).with_name("tiny_job.py").read_text(encoding="utf-8")
LAYERS = {key: LayerPlan("int8") for key in ("0:conv2d#0", "3:conv2d#0", "7:linear#0")}
MACRO = """
def metric(outputs, expected):
    chosen = outputs[0].argmax(axis=1)
    found = [(chosen[expected == label] == label).mean() for label in np.unique(expected)]
    return float(np.mean(found))
"""
ONE_HALF = """
def metric(outputs, expected):
    if len(expected) == 64 and expected[0] == 1:
        return float("nan")
    return float((outputs[0].argmax(axis=1) == expected).mean())
"""


def packed_with(tmp_path, metric, *more):
    (tmp_path / "job.py").write_text(TINY_JOB.replace('metric = "top1"\n', metric), encoding="utf-8")
    write_plan(Plan("onnxruntime", LAYERS, prepare=(Step("fold_norm"),), origin="all int8"), tmp_path / "plan.toml")
    words = ["--plan", str(tmp_path / "plan.toml"), "--budget", "drop=10pt", "--allow", "slower-than-float", *more]
    return main(["pack", str(tmp_path / "job.py"), "--out", str(tmp_path / "out"), *words])


def test_one_float_for_the_whole_set_is_scored_with_its_error_and_its_interval(tmp_path, capfd):
    code = packed_with(tmp_path, MACRO)
    assert code == 0, capfd.readouterr().err
    record = report.read(tmp_path / "out")
    best = record.best_of("onnxruntime")
    assert (record.baseline.metric, record.baseline.samples) == ("metric", 64)
    assert 0.5 < record.baseline.value <= 1
    assert best.quality.samples == 64
    drop = record.baseline.value - best.quality.value
    assert best.quality.drop == pytest.approx(drop)
    assert best.quality.drop_low <= drop <= best.quality.drop_high
    # Once more, from the ledger: the rows that were kept give the same numbers.
    assert packed_with(tmp_path, MACRO) == 0
    again = report.read(tmp_path / "out")
    assert (again.baseline, again.best_of("onnxruntime").quality) == (record.baseline, best.quality)
    events = [json.loads(line) for line in (tmp_path / "out" / "events.jsonl").read_text().splitlines()]
    assert any(one["kind"] == "reused" and one["text"] == "baseline of the float model" for one in events)


def test_a_half_without_a_value_is_told_before_anything_is_made(tmp_path, capfd):
    assert packed_with(tmp_path, ONE_HALF) == 2
    told = capfd.readouterr().err
    assert "nan on the half of the evaluation set that is reported" in told
    assert "next:" in told
