"""Free lengths and files that have none: told before lowering, in the job's words, and what becomes of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from haversack import load, metrics
from haversack.base.errors import JobError
from haversack.cli import main
from haversack.flow import lengths
from haversack.flow.data import Data
from haversack.targets.contract import SHELF, Lengths

FIXED = ("litert", "coreml")
BOUNDED = (*FIXED, "executorch")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "words_job.py"
    shutil.copy(Path(__file__).with_name("words_job.py"), path)
    return load.open_job(str(path))


@pytest.fixture(scope="module")
def model(job):
    return load.export(job)


def targets(names, wanted=()):
    return {name: SHELF.build(name).sized(wanted) for name in names}


def refused(job, model, names, wanted=()):
    data = Data(replace(job, lengths=wanted), model.inputs, metrics.resolve("top1"))
    lengths.refuse(replace(job, lengths=wanted), model, data, targets(names, wanted))


def test_free_lengths_have_the_names_of_the_job(model):
    assert model.free_lengths == ("words",)
    assert targets(["litert"])["litert"].lengths_of(model) == Lengths((16, 32, 64, 128), 128)
    assert targets(["onnxruntime"])["onnxruntime"].lengths_of(model) == Lengths()


@pytest.mark.parametrize("name", BOUNDED)
def test_data_that_are_too_long_are_told_before_lowering(job, model, name, monkeypatch):
    monkeypatch.setenv("LONGEST", "200")
    with pytest.raises(JobError) as caught:
        refused(job, model, [name])
    assert caught.value.exit_code == 2
    (fault,) = caught.value.faults
    assert fault.where == "calibration(), batch 1"
    assert fault.cause == f"words of ids is 200, and files of {name} take at most 128"
    assert "200) into the job file" in caught.value.next_step or "(200,) into the job file" in caught.value.next_step
    assert "cut the data to 128" in caught.value.next_step
    refused(job, model, [name], (32, 200))
    refused(job, model, ["onnxruntime"])


def test_every_target_and_set_is_told_at_once(job, model):
    with pytest.raises(JobError) as caught:
        refused(job, model, BOUNDED, (8,))
    assert [fault.where for fault in caught.value.faults] == ["calibration(), batch 1", "evaluation(), batch 1"] * 3
    assert "lengths = (8, 24)" in caught.value.next_step


def test_lengths_without_a_free_dimension_are_told(job, model):
    fixed = replace(model, inputs=tuple(replace(p, spec=replace(p.spec, shape=("batch", 24))) for p in model.inputs))
    with pytest.raises(JobError, match="no free dimension but the batch"):
        refused(job, fixed, ["litert"], (24,))
    refused(job, fixed, ["litert"])


@pytest.mark.parametrize("name", FIXED)
def test_the_job_s_lengths_are_those_of_the_file(model, name):
    assert targets([name], (24, 48))[name].lengths_of(model).longest == 48
    assert "48 in the file" in lengths.words(targets([name], (24, 48)), model)[name]


def test_words_say_what_becomes_of_them(model):
    said = lengths.words(targets(["onnxruntime", "litert", "executorch"]), model)
    assert said == {
        "litert": "words: fixed to 16, 32, 64 or 128 in the file, what is shorter is filled up",
        "executorch": "words: at most 128, memory is planned for that",
    }


def test_the_artefact_has_the_job_s_names_and_lengths(job, tmp_path):
    source = tmp_path / "words.py"
    source.write_text(Path(job.source).read_text() + "\nlengths = (32, 12)\n")
    out = tmp_path / "out"
    # One point of a drop is much for 16 samples: what counts here is the file.
    assert main(["pack", str(source), "--target", "litert", "--budget", "drop=50pt", "--out", str(out)]) in (0, 3, 5)
    told = json.loads((out / "best" / "litert" / "artifact.json").read_text())
    assert told["lengths"] == [12, 32]
    assert [port["spec"]["shape"] for port in told["inputs"]] == [[1, "words"], [1, "words"]]
    record = json.loads((out / "report.json").read_text())
    shipped = next(one for one in record["candidates"] if one["id"] == record["best"]["litert"])
    assert shipped["artifact"]["lengths"] == [12, 32]
    assert [f["text"] for f in shipped["findings"] if f["kind"] == "fixed-lengths"] == [
        "words: fixed to 12 or 32 in the file, what is shorter is filled up"
    ]
    assert "Lengths in the file" in (out / "report.html").read_text()


def test_a_dry_run_says_it(job, capsys):
    assert main(["pack", job.source, "--target", "litert", "--dry-run"]) == 0
    assert "words: fixed to 16, 32, 64 or 128" in capsys.readouterr().out
