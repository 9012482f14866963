"""A static plan on ncnn beside ONNX Runtime: two sets of integers, each proven with its own rounding; and tampering."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from haversack.base.budget import Budget
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.base.recipe import FORMAT, Recipe, write
from haversack.cli import main
from haversack.flow.verify import verify
from haversack.targets.ncnn.blobs import Array, total
from haversack.targets.ncnn.read import beside, files

TINY_JOB = Path(__file__).with_name("tiny_job.py")
LAYERS = ("0:conv2d#0", "3:conv2d#0", "7:linear#0")
PREPARE = (Step("fold_norm"), Step("bias_correct"))
TARGETS = ("ncnn", "onnxruntime")


@pytest.fixture(scope="module")
def packed_both(tmp_path_factory):
    """The folder of a run of one int8 plan for both runtimes."""
    pytest.importorskip("ncnn")
    folder = tmp_path_factory.mktemp("ncnn")
    layers = dict.fromkeys(LAYERS, LayerPlan())
    plans = tuple(Plan(name, layers, PREPARE, Step("mse"), (name,)) for name in TARGETS)
    write(Recipe(FORMAT, str(TINY_JOB), "", Budget(size=30_000, drop=0.05), plans), folder / "asked.toml")
    words = ["pack", str(folder / "asked.toml"), "--allow", "slower-than-float", "--out", str(folder / "out")]
    assert main([*words, "--target", "ncnn", "--target", "onnxruntime"]) == 0
    return folder / "out"


@pytest.fixture
def report(packed_both):
    return json.loads((packed_both / "report.json").read_text())


@pytest.fixture
def run(packed_both, tmp_path):
    return Path(shutil.copytree(packed_both, tmp_path / "run"))


def candidate(report, target):
    return next(one for one in report["candidates"] if one["id"] == report["best"][target])


@pytest.mark.parametrize("target", TARGETS)
def test_no_value_differs_from_the_targets_own_reference(report, target):
    parity = candidate(report, target)["parity"]
    assert parity["reference_differing"] == 0
    assert parity["reference_compared"] == 64 * 4
    artifact = candidate(report, target)["artifact"]
    assert artifact["injected"] == artifact["read_back"] > 4900


def test_each_has_integers_of_its_own_which_one_finding_tells_and_nothing_fails(packed_both, report):
    paths = [packed_both / "best" / name / "encodings.safetensors" for name in TARGETS]
    assert len({sha256(path) for path in paths}) == 2
    (pair,) = [row for row in report["across"] if {row["first"], row["second"]} == set(TARGETS)]
    assert pair["differing"] > 0
    assert pair["relative_error"] < 0.05
    told = [one for name in TARGETS for one in candidate(report, name)["findings"] if one["kind"] == "runtimes-differ"]
    (finding,) = told
    assert finding["severity"] == "warning"
    assert finding["text"].startswith(f"{pair['differing']} of {pair['compared']} output values are not those of ")
    assert "since ncnn takes activations around 0 only (symmetric)" in finding["text"]


def test_an_untouched_run_is_right(run):
    answer = verify(run)
    assert answer.exit_code == 0, [str(fault) for check in answer.checks for fault in check.faults]
    assert any("bit for bit" in check.text and "ncnn" in str(check) for check in answer.checks)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tampered(run, layer, role, edit):
    """Change an array of the .bin file, and every hash that is kept of it."""
    path = run / "best" / "ncnn" / "model.param"
    found = files(path)
    old = found.arrays[layer][role]
    values = np.array(old.values)
    edit(values)
    arrays = {**found.arrays, layer: {**found.arrays[layer], role: Array(role, old.form, values)}}
    data = b"".join(total(found.lines, arrays))
    assert data != beside(path).read_bytes()
    told, record = run / "best" / "ncnn" / "artifact.json", run / "report.json"
    before = [sha256(beside(path)), sha256(told)]
    beside(path).write_bytes(data)
    told.write_text(told.read_text().replace(before[0], sha256(beside(path))))
    text = record.read_text()
    for old, new in zip(before, (sha256(beside(path)), sha256(told)), strict=True):
        assert old in text
        text = text.replace(old, new)
    record.write_text(text)
    return verify(run)


def flip(values):
    values[7] += 1 if values[7] < 100 else -1


TAMPERED = [
    ("3:conv2d#0", "weight", flip, "3:conv2d#0:weight"),
    ("0:conv2d#0:weight/scales", "data", lambda values: np.multiply(values, 2, out=values), "0:conv2d#0"),
    ("7:linear#0/settle", "scale", lambda values: np.multiply(values, 2, out=values), "7:linear#0"),
    ("3:conv2d#0", "bias", lambda values: np.add(values, 1, out=values), "3:conv2d#0"),
]


@pytest.mark.parametrize("layer, role, edit, where", TAMPERED, ids=[f"{one[0]} {one[1]}" for one in TAMPERED])
def test_a_changed_number_is_told_by_its_layer(run, layer, role, edit, where):
    answer = tampered(run, layer, role, edit)
    assert answer.exit_code == 5
    assert not [fault for check in answer.checks if check.name == "hashes" for fault in check.faults], "all were forged"
    faults = [fault for check in answer.checks if check.name == "read back" for fault in check.faults]
    assert where in {fault.where for fault in faults}
