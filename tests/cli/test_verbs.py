"""The other verbs as they are typed: parts, report, resolve, verify, doctor; in words and as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from haversack.cli import COMMANDS, main


def told(capfd, *words: str) -> tuple[int, str]:
    code = main([*words])
    return code, capfd.readouterr().out


def test_parts_in_words(capfd):
    code, text = told(capfd, "parts")
    assert code == 0
    for line in ("target:", "metric:", "quantizer:", "preparation step:", "operation:", "  onnxruntime ", "  top1 "):
        assert line in text


def test_parts_of_one_shelf_as_json(capfd):
    code, text = told(capfd, "parts", "metric", "--json")
    assert code == 0
    found = json.loads(text)
    assert list(found) == ["metric"]
    assert found["metric"]["top1"].startswith("Fraction of samples")


def test_report_in_words_and_as_json(capfd, packed):
    code, text = told(capfd, "report", str(packed.out))
    assert code == 0
    assert "onnxruntime" in text
    code, text = told(capfd, "report", str(packed.out), "--json")
    assert code == 0
    assert json.loads(text) == json.loads((packed.out / "report.json").read_text())


def test_report_writes_the_same_page_anew(capfd, packed):
    page = packed.out / "report.html"
    before = page.read_text()
    page.write_text("spoiled")
    code, text = told(capfd, "report", str(packed.out), "--page")
    assert code == 0
    assert str(page) in text
    assert page.read_text() == before


def test_resolve_with_a_budget_that_a_measured_file_meets(capfd, packed):
    code, text = told(capfd, "resolve", str(packed.out), "--budget", "size=1MB")
    assert code == 0
    assert "measured:" in text
    for figure in ("size:", "latency:", "memory:", "quality:", "drop:", "against float:"):
        assert figure in text
    assert "forecast" not in text


def test_resolve_with_a_budget_that_nothing_meets(capfd, packed, tmp_path):
    plan = tmp_path / "plan.toml"
    code, text = told(capfd, "resolve", str(packed.out), "--budget", "size=1KB", "--write", str(plan))
    assert code == 3
    assert "no measured artefact meets size=1KB" in text
    assert "% over" in text
    assert not plan.exists()


def test_resolve_as_json(capfd, packed):
    code, text = told(capfd, "resolve", str(packed.out), "--budget", "size=1KB,drop=1pt", "--json")
    found = json.loads(text)
    assert code == found["exit_code"] == 3
    assert found["budget"] == {"size": 1000, "drop": 0.01}
    assert found["targets"]["onnxruntime"]["met"] is False
    assert found["targets"]["onnxruntime"]["measured"]["size"] > 1000


@pytest.mark.parametrize("words", [["resolve", "--budget", "size=1MB"], ["report"], ["parts"]])
def test_these_verbs_answer_without_torch(words, packed, environment):
    folder = [] if words == ["parts"] else [str(packed.out)]
    typed = [words[0], *folder, *words[1:]]
    script = f"import sys; from haversack.cli import main; main({typed}); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_verify_in_words_and_as_json(packed, capfd):
    code, text = told(capfd, "verify", str(packed.out))
    assert code == 0, text
    assert text.count("ok ") == 4
    for name in ("hashes", "read back", "golden vectors", "findings of the run"):
        assert name in text
    assert f"next: haversack bundle {packed.out} --out NAME-VERSION.haversack" in text
    code, text = told(capfd, "verify", str(packed.out), "--json")
    found = json.loads(text)
    assert code == 0
    assert found["ok"] is True
    names = ["hashes", "read back", "golden vectors", "findings of the run"]
    assert [check["check"] for check in found["checks"]] == names


@pytest.mark.parametrize(
    "device, code, said",
    [
        ("qemu:cortex-a76", 6, "make system-arm64"),
        ("qemu:cortex-b1", 2, "cortex-a76"),
        ("ssh:-oProxyCommand=id", 2, "is not [user@]host[:port]"),
        ("adb:$(id)", 2, "is no serial"),
        ("ssh:127.0.0.1:1", 6, "Connection refused"),
    ],
)
def test_verify_on_a_device_that_is_not_there(packed, capfd, monkeypatch, tmp_path, device, code, said):
    monkeypatch.setenv("HAVERSACK_SYSROOT", str(tmp_path / "none"))
    with_code = main(["verify", str(packed.out), "--device", device])
    told = capfd.readouterr()
    assert with_code == code
    assert said in told.out + told.err
    assert "Traceback" not in told.err


@pytest.mark.parametrize("there", [True, False])
def test_doctor_says_whether_arm64_can_be_emulated(capfd, monkeypatch, tmp_path, there):
    (tmp_path / "qemu-aarch64").write_text("#!/bin/sh\n")
    (tmp_path / "qemu-aarch64").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("HAVERSACK_SYSROOT", str(tmp_path))
    if there:
        (tmp_path / "stamp").write_text("1")
    code, text = told(capfd, "doctor")
    assert code == 0, "packing needs no emulation"
    line = next(line for line in text.splitlines() if line.startswith("ARM64 by emulation"))
    assert ("verify --device qemu:CPU" in line) is there
    assert ("make system-arm64" in line) is not there


def test_doctor_says_what_packing_needs(capfd):
    code, text = told(capfd, "doctor")
    assert code == 0, text
    for line in ("Python 3.", "processor:", "workers:", "core: ", "pack: ", "target onnxruntime: opened and ran"):
        assert line in text
    assert text.rstrip().endswith("everything that packing needs works")


@pytest.mark.parametrize("verb", sorted(COMMANDS))
def test_every_verb_has_help_with_its_line(verb, capfd):
    code, text = told(capfd, verb, "--help")
    assert code == 0
    assert COMMANDS[verb].split(":")[0].split(",")[0] in " ".join(text.split())


def test_a_reader_that_goes_away_is_no_error(packed, environment):
    command = f"{sys.executable} -m haversack.cli report {packed.out} --json | head -c 10"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, check=False)
    assert "Traceback" not in done.stderr
    assert len(done.stdout) == 10


def test_the_help_of_parts_names_the_shelves_that_there_are(capfd):
    found = json.loads(told(capfd, "parts", "--json")[1])
    text = " ".join(told(capfd, "parts", "--help")[1].replace("│", " ").split())
    listed = text.partition("Only the shelf of this noun (")[2].partition(")")[0]
    assert {noun.strip("' ") for noun in listed.split(",")} == set(found)
