"""Files for runtimes that are not here: written, read back, judged by size alone, and never called measured."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from haversack import metrics, report
from haversack.base.budget import Budget, parse
from haversack.base.candidate import Artifact, ArtifactFile, Candidate
from haversack.base.encodings import Encodings
from haversack.base.finding import Finding
from haversack.base.plan import LayerPlan, Plan
from haversack.choose.verdict import checks, judged, loss
from haversack.cli import main
from haversack.flow import exports
from haversack.flow.early import limits
from haversack.flow.exports import Export, exported, judgeable, where_to_run
from haversack.report import text
from haversack.targets.contract import SHELF

TINY_JOB = Path(__file__).with_name("tiny_job.py")
TARGETS = ("coreml", "tensorrt")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The folder of a finished run for both targets, with limits that nothing here can be held against."""
    folder = tmp_path_factory.mktemp("exports") / "out"
    named = [word for name in TARGETS for word in ("--target", name)]
    budget = ("--budget", "size=20KB,drop=1pt,latency=0.5x")
    assert main(["pack", str(TINY_JOB), *named, *budget, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def record(out):
    return report.read(out)


def spoiled(out, tmp_path, name, edit):
    """Copy a run, edit one of its files, and return verify's exit code."""
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    path = copy / name
    path.write_bytes(edit(path.read_bytes()))
    return main(["verify", str(copy)])


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_said_to_be_measured(record, target):
    best = record.best_of(target)
    assert best.exported
    assert (best.quality, best.latency, best.memory, best.parity) == (None, None, None, None)
    assert best.artifact.injected == best.artifact.read_back > 4800
    (finding,) = [one for one in best.findings if one.kind == "export-only"]
    assert finding.severity == "note"
    assert finding.text.startswith("not run here; on a ")
    assert "The reference, not this file, has on this host" in finding.text
    assert [(limit.limit, limit.judged, limit.met) for limit in record.limits_of(target)] == [
        ("size", True, True),
        ("latency_ratio", False, False),
        ("drop", False, False),
    ]


def test_what_lies_in_the_folder(out):
    assert {path.name for path in (out / "best" / "coreml").iterdir()} == {
        "model.mlpackage",
        "encodings.safetensors",
        "artifact.json",
    }
    assert {path.name for path in (out / "best" / "tensorrt").iterdir()} == {
        "model.onnx",
        "encodings.safetensors",
        "artifact.json",
    }
    proofs = json.loads((out / "report.json").read_text())["proofs"]
    assert not any("golden" in path for path in proofs)
    assert len(proofs) == 4


def test_the_page_and_the_headline_say_it(out, record):
    page = (out / "report.html").read_text()
    assert page.count("Not run here") >= 2 * len(TARGETS)
    assert page.count("not judged here") == 2 * len(TARGETS)
    assert "not measured" not in page
    assert "only sizes are judged of what does not run here (coreml and tensorrt)" in page.lower()
    (line,) = [one for one in text.lines(record) if one.startswith("coreml: ")]
    assert line.endswith("not run here  met")


def test_each_side_of_contrary_demands_has_its_plan(record):
    plans = {name: record.best_of(name).plan for name in TARGETS}
    assert {layer.precision for layer in plans["tensorrt"].layers.values()} == {"int8"}
    assert {layer.precision for layer in plans["coreml"].layers.values()} == {"int8_weights"}
    assert [plan.constrained_by for plan in plans.values()] == [("coreml",), ("tensorrt",)]


def test_verify_reads_back_and_skips_what_cannot_be_run(out, capsys):
    assert main(["verify", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for target in TARGETS:
        mine = [line.split(None, 1)[0] for line in lines if f" {target}: " in line]
        assert mine == ["ok", "ok", "skip", "ok"]


WEIGHTS = "best/coreml/model.mlpackage/Data/com.apple.CoreML/weights/weight.bin"


@pytest.mark.parametrize(
    "name", [WEIGHTS, "best/coreml/model.mlpackage/Manifest.json", "best/coreml/encodings.safetensors"]
)
def test_a_spoiled_file_is_noticed(out, tmp_path, capsys, name):
    assert spoiled(out, tmp_path, name, lambda data: data[:-1] + bytes([data[-1] ^ 1])) == 5
    assert f"{name.removeprefix('best/coreml/')}: its sha256 is" in capsys.readouterr().out


def test_codes_that_the_report_was_made_to_agree_with_are_noticed_by_reading_back(out, tmp_path, capsys):
    """Somebody who changes a code, its hash in the report and its hash beside it still meets the encodings."""
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    file = copy / WEIGHTS
    data = bytearray(file.read_bytes())
    old = hashlib.sha256(data).hexdigest()
    data[128 + 3] = (data[128 + 3] + 1) % 100  # the first blob: codes of the first layer
    file.write_bytes(data)
    for told in (copy / "report.json", copy / "best" / "coreml" / "artifact.json"):
        before = hashlib.sha256(told.read_bytes()).hexdigest()
        told.write_text(told.read_text().replace(old, hashlib.sha256(data).hexdigest()))
        after = hashlib.sha256(told.read_bytes()).hexdigest()
        page = copy / "report.json"
        page.write_text(page.read_text().replace(before, after))
    assert main(["verify", str(copy)]) == 5
    assert "integers differ" in capsys.readouterr().out


def test_a_budget_that_its_size_misses_is_missed(tmp_path):
    small = ["--budget", "size=1KB", "--out", str(tmp_path / "out")]
    assert main(["pack", str(TINY_JOB), "--target", "tensorrt", *small]) == 3
    record = report.read(tmp_path / "out")
    assert [limit.missed for limit in record.limits_of("tensorrt")] == [True]


# --- the pieces --------------------------------------------------------------------------------------------------


def candidate(size=1000, **extra):
    artifact = Artifact("coreml", (ArtifactFile("model", size, size // 2, "0" * 64),), (), (), "1")
    return Candidate(
        Plan("coreml"), artifact, None, None, None, None, None, (Finding("export-only", "not run here"),), extra=extra
    )


@pytest.mark.parametrize("limits, kept", [("size=1KB,drop=1pt", "size=1KB"), ("download=2KB,latency=1ms", None)])
def test_only_sizes_are_judgeable(limits, kept):
    budget = parse(limits)
    found = judgeable(budget)
    assert found == (parse(kept) if kept else Budget(download=2000))
    whole = {check.limit for check in checks(candidate(), budget)}
    assert whole == set(found.limits())


def test_an_export_is_ranked_by_the_reference_and_reasons_say_so():
    good, bad = candidate(reference_error=0.01), candidate(reference_error=0.2)
    assert (loss(good), loss(candidate())) == (0.01, float("inf"))
    found = judged([bad, good], parse("size=1KB,drop=1pt"))
    assert [one.extra["reference_error"] for one in found] == [0.01, 0.2]
    assert found[0].verdict == "chosen"
    assert "only its size is judged" in found[0].reason
    assert "the reference errs by 0.2000" in found[1].reason
    assert judged([replace(good, findings=())], parse("drop=1pt"))[0].verdict == "missed"


@pytest.mark.parametrize("name", TARGETS)
def test_where_to_run_names_the_main_file(name):
    said = where_to_run(SHELF.build(name), "model.any/inside/file")
    assert said.startswith("not run here; on a ")
    assert "model.any" in said
    assert "inside" not in said
    assert "{" not in said
    assert where_to_run(SHELF.build("onnxruntime"), "model.onnx") == "not run here"


@pytest.fixture
def rows(model):
    images = np.random.default_rng(0).normal(size=(150, 4)).astype(np.float32)
    metric = metrics.resolve("top1")
    from haversack.tools.graph.execute import Executor

    predict = Executor(model).run
    labels = predict((images,))[0].argmax(1)
    batches = [((images[at : at + 50],), labels[at : at + 50]) for at in range(0, 150, 50)]
    data = SimpleNamespace(evaluation=lambda: iter(batches))
    scored = SimpleNamespace(rows=np.ones((150, 1)), predict=predict)
    return SimpleNamespace(data=data, metric=metric, scored=scored)


@pytest.fixture(scope="module")
def model():
    import torch
    from torch import nn

    from haversack.tools.graph import canonical

    torch.manual_seed(3)
    net = nn.Linear(4, 3).eval()
    dims = ({0: torch.export.Dim.AUTO},)
    return canonical.to_model(torch.export.export(net, (torch.zeros(2, 4),), dynamic_shapes=dims), "tiny")


def made(model, encodings):
    artifact = Artifact("tensorrt", (ArtifactFile("model.onnx", 10, 5, "0" * 64),), (), (), "1")
    squeezed = SimpleNamespace(model=model, encodings=encodings)
    return Export(Plan("tensorrt", {"a:linear#0": LayerPlan()}), artifact, squeezed, [Finding("noisy", "it was")], {})


def test_the_float_file_says_nothing_of_the_reference(model, rows):
    found = exported(made(model, Encodings.none()), SHELF.build("tensorrt"), rows.data, rows.metric, rows.scored)
    assert "reference" not in found.findings[-1].text
    assert [one.kind for one in found.findings] == ["noisy", "export-only"]
    assert found.extra == {"reference_error": 0.0}
    assert found.exported


def test_the_reference_is_scored_on_whole_batches_with_the_same_numbers(model, rows):
    from haversack.tools.numerics import affine

    (node,) = [one for one in model.graph.nodes if one.weight]
    values = model.weights[node.weight]
    coarse = affine.symmetric(np.abs(values).max(1), 8, 0)  # codes of -1, 0 and 1 only
    key = f"{node.key}:weight"
    encodings = Encodings({key: coarse}, {key: affine.quantize(values, coarse)})
    found = exported(made(model, encodings), SHELF.build("tensorrt"), rows.data, rows.metric, rows.scored)
    text = found.findings[-1].text
    assert "on 100 samples" in text  # two whole batches of 50 hold 64
    rounded = affine.dequantize(encodings.integers[key], coarse)
    batches = np.concatenate([inputs[0] for inputs, _ in list(rows.data.evaluation())[:2]])
    exact = batches @ values.T + model.weights[node.bias]
    off = batches @ (rounded - values).T
    assert found.extra["reference_error"] == pytest.approx(np.linalg.norm(off) / np.linalg.norm(exact), rel=1e-4)
    assert found.extra["reference_error"] > 0.05


@pytest.mark.parametrize("wanted, error", [([[3.0, 4.0]], 0.2), ([[0.0, 0.0]], 5.0)])
def test_relative_error_of_all_outputs(wanted, error):
    one = np.array(wanted, np.float32)
    other = one * np.float32(1.2) if one.any() else np.array([[3.0, 4.0]], np.float32)
    assert exports._relative([(other,)], [(one,)]) == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize(
    "runs, said", [(True, "known when it is measured"), (False, "not judged: no file is run here")]
)
def test_a_dry_run_says_what_nothing_here_will_judge(model, runs, said):
    lines = limits(
        model,
        parse("size=1KB,drop=1pt,download=1KB"),
        lambda _: {"onnxruntime": Plan("onnxruntime", {})},
        "fraction",
        runs=runs,
    )
    assert lines[0].startswith("size at most 1.0 kB: weights alone take at least")
    assert lines[1].endswith("known when it is measured")
    assert next(line for line in lines if line.startswith("drop")).endswith(said)
