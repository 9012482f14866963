"""From a finished run to a bundle: the same bytes wherever it is made, checked where it arrives, refused when bad."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from haversack import report
from haversack.base import digest
from haversack.base.bundle import MANIFEST
from haversack.base.errors import BudgetMissed, Refused, UsageError, VerificationError
from haversack.cli import main
from haversack.flow import bundle as flow
from haversack.flow.provenance import bare
from haversack.flow.shipping import Wish
from haversack.tools.data import golden_file
from haversack.tools.trust.canonical import dumps, loads

NAME = "digits-1.3.0.haversack"


@pytest.fixture
def shipped(run, tmp_path):
    """A bundle of the run."""
    flow.bundle(run, tmp_path / NAME, Wish())
    return tmp_path / NAME


def edited(run, change):
    """Change what report.json tells."""
    path = run / "report.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def best_of(data):
    return next(one for one in data["candidates"] if one["id"] == data["best"]["onnxruntime"])


def content(folder: Path) -> dict[str, str]:
    return {path.name: digest.of_file(path) for path in sorted(folder.iterdir())}


def test_pack_keeps_what_a_bundle_needs_of_the_job(static):
    record = report.read(static)
    assert record.labels == ("across", "down", "rising", "falling")
    assert record.preprocess == ({"op": "scale", "input": 0, "factor": 1.0, "offset": 0.0},), "every setting is said"


def test_a_bundle_of_a_run(shipped, run):
    found = flow.inspect(shipped)
    assert (found.bundle.manifest.name, found.bundle.manifest.version) == ("digits", "1.3.0")
    assert found.bundle.manifest.metric == ("top1", "fraction")
    assert found.golden == {"onnxruntime": 4}
    (one,) = found.bundle.manifest.variants
    assert one.exact
    told = report.read(run).best_of("onnxruntime")
    assert one.quality["value"] == told.quality.value
    assert one.quality["median_ms"] == told.latency.median_ms
    assert found.bundle.labels == ("across", "down", "rising", "falling")
    assert digest.of_file(shipped / "onnxruntime.onnx") == told.artifact.sha256


def test_the_same_bytes_from_another_folder_on_another_day_by_somebody_else(shipped, run, tmp_path, environment):
    """The run's folder is copied, its clock is another, and a process with another home, zone and mask makes it."""
    there = tmp_path / "somewhere" / "else" / "entirely"
    shutil.copytree(run, there)
    for path in there.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    home = tmp_path / "home"
    home.mkdir()
    script = (
        f"import os, sys; os.umask(0o077); from haversack.cli import main; sys.exit(main(['bundle', {str(there)!r}, "
    )
    script += f"'--out', {str(home / NAME)!r}]))"
    others = {"HOME": str(home), "USER": "somebody", "LOGNAME": "somebody", "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    others |= {"LANG": "C", "SOURCE_DATE_EPOCH": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=home,
        env={**environment, **others},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert content(home / NAME) == content(shipped)


def test_nothing_personal_is_in_it(shipped, run):
    """No folder, user, host, time or command of the run stands in a text of the bundle."""
    text = "".join(path.read_text() for path in shipped.iterdir() if path.suffix in {".json", ".txt"})
    for word in (
        str(run),
        str(run.parent),
        str(Path.home()),
        "tests/",
        "/tmp",
        "haversack pack",
        "--out",
        os.uname().nodename,
    ):
        assert word not in text, word
    assert not re.search(r"20\d\d-\d\d-\d\d", text)
    found = flow.inspect(shipped).bundle.provenance
    assert found.job == "tiny_job.py"
    assert found.recipe["job"] == "tiny_job.py"
    assert found.environment["device"] == ""
    assert found.environment["os"] == "Linux x86_64" or len(found.environment["os"].split()) == 2
    assert found.hashes["best/onnxruntime/model.onnx"] == digest.of_file(run / "best/onnxruntime/model.onnx")
    assert found.allowed == ("slower-than-float",)


@pytest.mark.parametrize(
    "source, said",
    [
        ("job.py", "job.py"),
        ("/home/me/job.py:build", "job.py:build"),
        ("../w.safetensors@/home/me/job.py:Net", "w.safetensors@job.py:Net"),
        ("package.module:build", "package.module:build"),
    ],
)
def test_a_source_without_folders(source, said):
    assert bare(source) == said


def test_a_far_device_is_not_named(run, tmp_path):
    edited(
        run, lambda data: data["environment"].update(device="ssh:anna@lab.example.org:22", os="Linux 6.1.0-anna x86_64")
    )
    flow.bundle(run, tmp_path / NAME, Wish())
    text = (tmp_path / NAME / "provenance.json").read_text()
    assert "anna" not in text
    assert '"device":"ssh"' in text


def test_a_good_bundle_verifies(shipped):
    answer = flow.verify(shipped)
    assert answer.exit_code == 0, answer.lines()
    assert [(check.target, check.name) for check in answer.checks] == [
        ("bundle", "hashes"), ("bundle", "preprocessing"), ("onnxruntime", "golden vectors")
    ]  # fmt: skip
    assert answer.checks[2].text == "4 vectors in the runtime, bit for bit"
    step = f"next: haversack publish {shipped} --line digits --repository site --keys keys"
    assert answer.lines()[-1] == step


def told(shipped: Path, name: str, data: bytes):
    """Write a file of a bundle anew and let the manifest name it: what somebody does who signs what he spoiled."""
    (shipped / name).write_bytes(data)
    manifest = json.loads((shipped / MANIFEST).read_text())
    for file in manifest["files"]:
        if file["name"] == name:
            file |= {"bytes": len(data), "sha256": digest.of_bytes(data)}
    (shipped / MANIFEST).write_bytes(dumps(manifest))


def test_golden_outputs_that_the_runtime_does_not_give(shipped, tmp_path):
    vectors = golden_file.read(shipped / "onnxruntime.golden.npz")
    moved = [golden_file.Golden(one.inputs, {"scores": one.outputs["scores"] + np.float32(1e-6)}) for one in vectors]
    golden_file.write(moved, tmp_path / "moved.npz")
    told(shipped, "onnxruntime.golden.npz", (tmp_path / "moved.npz").read_bytes())
    answer = flow.verify(shipped)
    assert answer.exit_code == 5
    assert len(answer.faults) == 4
    assert "values differ" in answer.faults[0].cause
    assert str(shipped) in answer.lines()[-2]


def test_within_a_tolerance_where_bits_may_differ(shipped, tmp_path):
    manifest = json.loads((shipped / MANIFEST).read_text())
    manifest["variants"][0] |= {"exact": False, "tolerance": 0.01}
    (shipped / MANIFEST).write_bytes(dumps(manifest))
    test = golden_file.read(shipped / "onnxruntime.golden.npz")
    for factor, code in ((1.005, 0), (1.02, 5)):
        moved = [golden_file.Golden(one.inputs, {"scores": one.outputs["scores"] * np.float32(factor)}) for one in test]
        golden_file.write(moved, tmp_path / "moved.npz")
        told(shipped, "onnxruntime.golden.npz", (tmp_path / "moved.npz").read_bytes())
        answer = flow.verify(shipped)
        assert answer.exit_code == code, answer.lines()
    assert answer.checks[-1].faults


def test_a_model_that_its_runtime_does_not_open(shipped):
    data = (shipped / "onnxruntime.onnx").read_bytes().replace(b"QuantizeLinear", b"Quantize\x1b[2Jar")
    told(shipped, "onnxruntime.onnx", data)
    artifact = json.loads((shipped / "onnxruntime.json").read_text())
    artifact["files"][0]["sha256"] = digest.of_bytes(data)
    told(shipped, "onnxruntime.json", dumps(artifact))
    answer = flow.verify(shipped)
    assert answer.exit_code == 5
    assert "ONNX Runtime does not open it" in answer.faults[0].cause
    assert "\x1b" not in "".join(answer.lines()), "a stranger's words are escaped"


def test_session_options_that_no_run_gives_are_never_set(shipped):
    artifact = json.loads((shipped / "onnxruntime.json").read_text())
    artifact["session_options"] = {"session.disable_prepacking": "1"}
    told(shipped, "onnxruntime.json", dumps(artifact))
    answer = flow.verify(shipped)
    assert answer.exit_code == 5
    assert "onnxruntime never sets it" in answer.faults[0].cause


def test_a_runtime_that_is_not_here_is_skipped(shipped, monkeypatch):
    monkeypatch.setattr("haversack.measure.needs.here", lambda name: "" if name == "onnxruntime" else "1")
    answer = flow.verify(shipped)
    assert answer.exit_code == 0
    assert answer.checks[-1].skipped
    assert "not installed here: onnxruntime" in answer.checks[-1].text


def test_settings_of_preprocessing_that_are_none(shipped):
    told(shipped, "preprocess.json", dumps([{"op": "scale", "input": 0, "factr": 1.0}]))
    answer = flow.verify(shipped)
    assert answer.exit_code == 5
    assert "did you mean factor?" in answer.faults[0].cause


def test_a_spoiled_bundle_is_refused(shipped):
    (shipped / "labels.txt").write_text("a\n")
    for call in (flow.inspect, flow.verify, lambda folder: flow.diff(folder, folder)):
        with pytest.raises(Refused, match=r"labels\.txt"):
            call(shipped)


def test_what_changed_between_two_runs(shipped, run, tmp_path):
    other = flow.bundle(run, tmp_path / "digits-1.3.1.haversack", Wish())
    found = flow.diff(shipped, other.folder)
    assert not found.same
    assert [file.name for file in found.files if file.travels] == []
    assert found.layers == {"onnxruntime": ()}
    assert found.unchanged["onnxruntime"] > 3


# What is refused, and the command that helps


def test_every_fault_of_a_wish_is_told_at_once(run, tmp_path):
    (tmp_path / "labels.txt").write_bytes(b"\xff")
    wish = Wish(
        "Digits", "1.3", tmp_path / "labels.txt", (tmp_path / "nowhere",), ("onnxruntim", "litert"), ("mised", "noisy")
    )
    with pytest.raises(UsageError) as caught:
        flow.bundle(run, tmp_path / "here", wish)
    faults = [str(fault) for fault in caught.value.faults]
    assert [one.partition(":")[0] for one in faults] == [
        "--name", "--version", "--target", "--target", "--allow", "--allow", "--labels", "--licence"
    ]  # fmt: skip
    assert "did you mean onnxruntime?" in faults[2]
    assert "did you mean missed?" in faults[4]
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(
    "folder, wish, said",
    [
        ("digits", Wish(), "name it NAME-VERSION.haversack, as digits-1.3.0.haversack"),
        ("digits", Wish("digits"), "--version: --out digits tells none"),
        (NAME, Wish("letters"), "'letters', and --out says 'digits'"),
        (NAME, Wish(version="2.0.0"), "'2.0.0', and --out says '1.3.0'"),
    ],
)
def test_name_and_version(run, tmp_path, folder, wish, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        flow.bundle(run, tmp_path / folder, wish)


def test_flags_name_it_where_the_folder_does_not(run, tmp_path):
    found = flow.bundle(run, tmp_path / "out.d", Wish("digits", "1.3.0-rc.1"))
    assert (found.manifest.name, found.manifest.version) == ("digits", "1.3.0-rc.1")


def test_labels_that_are_not_as_many_as_classes(run, tmp_path):
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    with pytest.raises(UsageError, match="there are 2 labels"):
        flow.bundle(run, tmp_path / NAME, Wish(labels=tmp_path / "labels.txt"))
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\n")
    assert flow.bundle(run, tmp_path / NAME, Wish(labels=tmp_path / "labels.txt")).labels == ("a", "b", "c", "d")


def test_licences_travel_along(run, tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).write_text(f"the {name} licence\nand more\n")
    flow.bundle(run, tmp_path / NAME, Wish(licences=(tmp_path / "first", tmp_path / "second")))
    assert flow.inspect(tmp_path / NAME).licences == {
        "licence-2.txt": "the second licence", "licence.txt": "the first licence"
    }  # fmt: skip


def missed(data):
    limit = data["budget"][0]
    limit |= {"met": False, "got": limit["allowed"] + 500, "over": 500.0}


def test_a_missed_budget_is_not_shipped_unless_that_is_allowed(run, tmp_path):
    edited(run, missed)
    with pytest.raises(BudgetMissed) as caught:
        flow.bundle(run, tmp_path / NAME, Wish())
    assert caught.value.exit_code == 3
    assert "--allow missed" in caught.value.next_step
    assert "size" in str(caught.value)
    assert not (tmp_path / NAME).exists()
    found = flow.bundle(run, tmp_path / NAME, Wish(allow=("missed",)))
    assert "missed" in found.provenance.allowed


def wrong(data):
    best_of(data)["findings"].append({"kind": "not-exact", "severity": "error", "layer": "", "text": "8 of 512 differ"})


def test_what_the_run_found_wrong_is_not_shipped_unless_that_is_allowed(run, tmp_path):
    edited(run, lambda data: (wrong(data), missed(data)))
    with pytest.raises(VerificationError) as caught:
        flow.bundle(run, tmp_path / NAME, Wish())
    assert "not-exact" in str(caught.value)
    assert "--allow not-exact --allow missed" in caught.value.next_step
    with pytest.raises(VerificationError):
        flow.bundle(run, tmp_path / NAME, Wish(allow=("missed",)))
    found = flow.bundle(run, tmp_path / NAME, Wish(allow=("missed", "not-exact")))
    assert not found.manifest.variants[0].exact, "bits are no longer demanded"
    assert found.manifest.variants[0].tolerance == 0.01


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "encodings.safetensors", "artifact.json"])
def test_a_file_that_is_not_the_one_that_was_measured_is_never_shipped(run, best, tmp_path, name):
    data = bytearray((best / name).read_bytes())
    data[len(data) // 2] ^= 1
    (best / name).write_bytes(data)
    with pytest.raises(VerificationError, match="not what was measured") as caught:
        flow.bundle(run, tmp_path / NAME, Wish(allow=("missed", "not-exact", "weight-changed")))
    assert name in str(caught.value)
    assert f"haversack verify {run}" in caught.value.next_step


def test_a_runtime_that_the_run_lost_is_told(run, tmp_path):
    def lose(data):
        lost = json.loads(json.dumps(best_of(data)))
        data["candidates"].append(lost | {"id": "litert-x", "target": "litert", "artifact": None, "verdict": "failed"})

    edited(run, lose)
    with pytest.raises(UsageError, match="the run left no file for it") as caught:
        flow.bundle(run, tmp_path / NAME, Wish())
    assert f"haversack bundle {run} --out {tmp_path / NAME} --target onnxruntime" in str(caught.value)
    assert (
        flow.bundle(run, tmp_path / NAME, Wish(targets=("onnxruntime",))).manifest.variants[0].target == "onnxruntime"
    )


def test_files_that_do_not_run_here_have_no_place(run, tmp_path):
    def export(data):
        one = best_of(data)
        one |= {"target": "tensorrt"}
        data["best"] = {"tensorrt": one["id"]}

    edited(run, export)
    with pytest.raises(UsageError, match="no golden vectors prove it"):
        flow.bundle(run, tmp_path / NAME, Wish())


def test_a_run_that_kept_no_preprocessing_is_not_shipped_without_it(run, tmp_path):
    edited(run, lambda data: data.pop("preprocess"))
    with pytest.raises(UsageError, match="an earlier version packed it and kept none; the same command") as caught:
        flow.bundle(run, tmp_path / NAME, Wish())
    assert report.read(run).command in str(caught.value)


def test_operations_that_no_device_can_repeat_have_no_place(run, tmp_path):
    edited(run, lambda data: data["preprocess"].append({"op": "noise", "input": 0, "level": 0.1, "seed": 0}))
    with pytest.raises(UsageError, match="a device cannot do noise as it is done here"):
        flow.bundle(run, tmp_path / NAME, Wish())


def test_a_run_that_left_nothing(run, tmp_path):
    edited(run, lambda data: data.update(best={}))
    with pytest.raises(VerificationError, match="nothing to ship"):
        flow.bundle(run, tmp_path / NAME, Wish())


# As it is typed


def typed(capfd, *words):
    code = main([*map(str, words)])
    out, err = capfd.readouterr()
    return code, out, err


def test_the_commands(run, tmp_path, capfd):
    code, out, _ = typed(capfd, "bundle", run, "--out", tmp_path / NAME)
    assert code == 0
    assert f"next: haversack verify {tmp_path / NAME}" in out
    code, out, _ = typed(capfd, "inspect", tmp_path / NAME)
    assert code == 0
    assert "onnxruntime.onnx" in out
    code, out, _ = typed(capfd, "inspect", tmp_path / NAME, "--json")
    assert json.loads(out)["version"] == "1.3.0"
    code, out, _ = typed(capfd, "verify", tmp_path / NAME, "--json")
    assert code == 0
    assert json.loads(out)["ok"] is True
    code, out, _ = typed(capfd, "diff", tmp_path / NAME, tmp_path / NAME)
    assert code == 0
    assert "the same, byte for byte" in out
    code, out, _ = typed(capfd, "diff", tmp_path / NAME, tmp_path / NAME, "--json")
    assert json.loads(out)["same"] is True


def test_errors_of_the_commands_as_json(run, tmp_path, capfd):
    code, out, err = typed(capfd, "bundle", run, "--out", tmp_path / "digits", "--json")
    assert code == json.loads(out)["exit_code"] == 2
    assert "--version" in err
    code, out, _ = typed(capfd, "inspect", run, "--json")
    assert code == 2
    assert "no bundle" in json.loads(out)["error"]["cause"]
    code, _, err = typed(capfd, "bundle", run)
    assert code == 2
    assert f"haversack bundle {run} --out digits-1.3.0.haversack" in err
    code, _, err = typed(capfd, "diff", run)
    assert code == 2
    assert "digits-1.3.0.haversack" in err
    typed(capfd, "bundle", run, "--out", tmp_path / NAME)
    (tmp_path / NAME / "more.txt").write_text("")
    code, _, err = typed(capfd, "verify", tmp_path / NAME)
    assert code == 7
    assert "more.txt: the manifest does not name it" in err


def test_a_run_that_is_not_finished(tmp_path, capfd):
    (tmp_path / "out" / ".haversack").mkdir(parents=True)
    (tmp_path / "out" / ".haversack" / "job.json").write_text(
        '{"source": "job.py", "command": "haversack pack job.py"}'
    )
    code, _, err = typed(capfd, "bundle", tmp_path / "out", "--out", tmp_path / NAME)
    assert code == 2
    assert "not finished" in err


def test_a_manifest_of_today_is_read(shipped):
    from haversack.base.bundle import LARGEST_MANIFEST, Manifest

    data = (shipped / MANIFEST).read_bytes()
    assert dumps(loads(data, Manifest, where="x", limit=LARGEST_MANIFEST)) == data
