"""A model that one runtime cannot take: left out of ``any``, refused where it is named, in the dry run alike."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from haversack import report
from haversack.cli import main

pytestmark = pytest.mark.skipif(find_spec("ncnn") is None, reason="ncnn is not installed")
JOB = """
import numpy as np
import torch
from torch import nn
metric = "top1"
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(16, 8)
        self.head = nn.Linear(8, 4)
    def forward(self, x):
        return self.head(self.rows(x).mean(1))
def model():
    torch.manual_seed(0)
    return Net().eval()
def tokens(seed, count):
    return np.random.default_rng(seed).integers(0, 16, (count, 6))
def calibration():
    yield (tokens(1, 16),)
def evaluation():
    x = tokens(2, 32)
    with torch.no_grad():
        y = model()(torch.from_numpy(x)).argmax(1).numpy()
    yield (x,), y
"""


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "job.py"
    path.write_text(JOB)
    return str(path)


def test_any_goes_on_without_the_runtime_and_says_why(job, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["pack", job, "--target", "any", "--budget", "drop=90pt", "--allow", "slower-than-float", "--out", str(out)]
    assert main([*words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "  ncnn (left out) cannot take:" in said
    assert "no embedding here" in said
    assert "coreml is left out: its files are written but do not run here" in said
    assert main(words) == 0
    said = capsys.readouterr()
    assert "ncnn is left out: it cannot take this model" in said.err
    assert "ncnn was not tried: it cannot take this model" in report.read(out).why


def test_a_named_runtime_that_refuses_is_exit_code_4_in_the_dry_run_too(job, tmp_path, capsys):
    words = ["pack", job, "--target", "ncnn", "--out", str(tmp_path / "out")]
    assert main([*words, "--dry-run"]) == 4
    assert "ncnn cannot take:" in capsys.readouterr().out
    assert main(words) == 4
    assert "ncnn cannot take this model" in capsys.readouterr().err


def test_an_error_is_an_object_where_json_was_asked_for(job, tmp_path, capsys):
    assert main(["pack", job, "--target", "ncnn", "--out", str(tmp_path / "out"), "--json"]) == 4
    told = json.loads(capsys.readouterr().out)
    assert told["exit_code"] == 4
    assert told["error"]["kind"] == "ConversionError"
    assert told["error"]["faults"]


def test_the_dry_run_with_json_ends_with_the_same_code(job, tmp_path, capsys):
    assert main(["pack", job, "--target", "ncnn", "--dry-run", "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["refusals"]["ncnn"]
