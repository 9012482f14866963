"""A recipe replayed on another model: packed, and said so in the progress, the summary, the report and the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack import report
from haversack.base.budget import Budget
from haversack.base.plan import Plan
from haversack.base.recipe import FORMAT, Recipe, write
from haversack.flow.foreign import foreign
from haversack.flow.pack import pack, preflight
from haversack.flow.request import Request

JOB = """
import numpy as np
import torch
metric = "top1"
def model():
    torch.manual_seed(SEED)
    return torch.nn.Linear(64, 64).eval()
def calibration():
    yield (np.ones((4, 64), np.float32),)
def evaluation():
    yield (np.ones((4, 64), np.float32),), np.zeros(4, np.int64)
"""
WORDS = "the recipe was made for another model (digest "


def request_of(source, out):
    return Request(str(source), "size=1MB", out=out, allow=("slower-than-float",))


def kinds(record):
    return [finding.kind for finding in record.best_of("onnxruntime").findings]


def test_a_retrained_model_is_packed_and_said_to_be_another(tmp_path):
    job, recipe = tmp_path / "job.py", tmp_path / "first" / "recipe.toml"
    job.write_text(JOB.replace("SEED", "0"))
    pack(request_of(job, tmp_path / "first"))
    events = []
    same = pack(request_of(recipe, tmp_path / "same"), events.append)
    assert "another-model" not in kinds(same.record)
    assert not [event for event in events if WORDS in event.text]

    job.write_text(JOB.replace("SEED", "1"))
    events = []
    other = pack(request_of(recipe, tmp_path / "other"), events.append)
    assert other.exit_code == 0
    assert kinds(other.record).count("another-model") == 1
    assert [event.kind for event in events if event.text.startswith(WORDS)] == ["note"]
    lines = [line for line in report.lines(report.read(tmp_path / "other")) if WORDS in line]
    assert len(lines) == 1
    assert lines[0].startswith("warning: onnxruntime: another-model: ")
    assert lines[0].endswith("retrained?")
    assert other.page.read_text().count(WORDS) == 1

    events = []
    preflight(request_of(recipe, tmp_path / "dry"), events.append)
    assert [event.kind for event in events if event.text.startswith(WORDS)] == ["note"], "a dry run tells it too"


@pytest.mark.parametrize(
    ("digest", "more", "found"),
    [("a" * 64, {}, True), ("b" * 64, {}, False), ("", {}, False), ("a" * 64, {"plan": Path("plan.toml")}, False)],
)
def test_only_another_models_digest_is_told(tmp_path, digest, more, found):
    path = tmp_path / "recipe.toml"
    write(Recipe(FORMAT, "job.py", digest, Budget(), (Plan("onnxruntime"),)), path)
    told = foreign(Request(str(path), **more), "b" * 64)
    assert (told is not None) is found
    if told is not None:
        assert (told.kind, told.severity, told.exit_code) == ("another-model", "warning", 0)
        assert f"(digest {'a' * 12}, this one has {'b' * 12})" in told.text


def test_a_job_is_nobody_elses():
    assert foreign(Request("job.py"), "b" * 64) is None
