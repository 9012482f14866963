"""``haversack pack`` as it is typed: what it prints and where, what it leaves, exit codes 0, 3 and its forecasts."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import time
import tomllib

import pytest

from haversack import report
from haversack.cli import main


def test_a_met_budget_is_exit_code_0(packed):
    assert packed.code == 0, packed.stderr


def test_json_alone_is_on_standard_output_though_libraries_and_the_job_print_there(packed):
    record = json.loads(packed.stdout)
    assert record["format"] == 1
    assert record["best"]["onnxruntime"] in {one["id"] for one in record["candidates"]}
    assert "noise of a native library" in packed.stderr
    assert "noise of a job" in packed.stderr


def test_json_is_what_report_json_holds(packed):
    assert json.loads(packed.stdout) == json.loads((packed.out / "report.json").read_text())


def test_the_folder_holds_what_the_design_promises(packed):
    best = packed.out / "best" / "onnxruntime"
    for path in ("report.html", "report.json", "recipe.toml", "events.jsonl"):
        assert (packed.out / path).stat().st_size > 0, path
    assert {path.name for path in best.iterdir()} == {
        "model.onnx", "encodings.safetensors", "golden.npz", "artifact.json",
    }  # fmt: skip


def test_what_ships_is_within_its_budget_by_its_own_bytes(packed):
    record = report.read(packed.out)
    size = (packed.out / "best" / "onnxruntime" / "model.onnx").stat().st_size
    assert size <= 20_000
    assert record.best_of("onnxruntime").artifact.bytes == size
    assert all(limit.met for limit in record.budget)


def test_every_candidate_has_a_verdict_and_a_reason(packed):
    record = report.read(packed.out)
    assert len(record.candidates) >= 2
    assert all(one.verdict != "open" and one.reason for one in record.candidates)
    assert sum(one.verdict == "chosen" for one in record.candidates) == 1


def test_the_recipe_names_the_job_and_the_plan_that_ships(packed):
    recipe = tomllib.loads((packed.out / "recipe.toml").read_text())
    assert recipe["job"].endswith("tiny_job.py")
    assert recipe["budget"] == {"size": 20_000, "drop": 0.05}
    assert [plan["target"] for plan in recipe["plans"]] == ["onnxruntime"]


def test_events_are_json_lines_in_order_of_time(packed):
    events = [json.loads(line) for line in (packed.out / "events.jsonl").read_text().splitlines()]
    stages = {event["stage"] for event in events}
    assert {"load", "profile", "compress", "lower", "verify", "measure", "choose"} <= stages
    times = [event["time"] for event in events]
    assert times == sorted(times)
    assert any("forecast_seconds" in event["data"] for event in events)


def test_half_of_the_evaluation_set_chose_and_the_other_half_is_reported(packed):
    record = report.read(packed.out)
    assert (record.samples.calibration, record.samples.choosing, record.samples.reported) == (32, 64, 64)
    assert record.baseline.samples == 64


def test_dry_run_forecasts_and_writes_nothing(tmp_path, capfd, packed, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    command = [*packed.command(out)[3:], "--dry-run"]
    assert main(command) == 0
    told = capfd.readouterr().out
    assert "MACs a sample" in told
    assert "takes every layer" in told
    assert "forecast: about" in told
    assert "top1 100.0 % on the first 64 samples" in told
    assert list(tmp_path.iterdir()) == []


def test_dry_run_says_what_is_known_of_the_budget(tmp_path, capfd, packed):
    words = ["pack", packed.command(tmp_path)[4], "--dry-run", "--budget"]
    assert main([*words, "size=500B,latency=0.5x,drop=1pt"]) == 3
    told = capfd.readouterr().out
    assert told.splitlines()[-1].startswith("next: loosen the limit that cannot be met")
    assert main([*words, "size=500B", "--json"]) == 3
    assert json.loads(capfd.readouterr().out)["beyond"] == ["onnxruntime"]
    assert main([*words, "size=500B", "--target", "any"]) == 3
    capfd.readouterr()
    assert "budget: size at most 500 bytes: cannot be met: weights alone take at least " in told
    assert "budget: latency at most ×0.50: known when it is measured" in told
    assert main([*words, "size=20KB"]) == 0
    told = capfd.readouterr().out
    assert "budget: size at most 20.0 kB: weights alone take at least " in told
    assert "cannot be met" not in told
    assert "next: " not in told


def test_dry_run_as_json(tmp_path, capfd, packed):
    assert main([*packed.command(tmp_path / "out")[3:], "--dry-run", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["forecast_seconds"] > 0
    assert told["refusals"] == {"onnxruntime": []}
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def on_a_terminal(packed, environment) -> str:
    """What the same command shows on a terminal when all of it is there already."""
    main_end, other_end = pty.openpty()
    process = subprocess.Popen(
        packed.command(packed.out),
        stdout=subprocess.PIPE,
        stderr=other_end,
        env={**environment, "TERM": "xterm-256color"},
    )
    os.close(other_end)
    shown = b""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            piece = os.read(main_end, 4096)
        except OSError:  # what Linux says when the other end is closed
            break
        shown += piece
    printed = process.communicate()[0].decode()
    os.close(main_end)
    assert process.returncode == 0, shown.decode(errors="replace")
    return shown.decode(errors="replace") + "\n" + printed


def test_on_a_terminal_progress_is_live(on_a_terminal):
    assert "\x1b[" in on_a_terminal
    assert "measure" in on_a_terminal or "choose" in on_a_terminal


def test_a_second_run_takes_everything_from_the_first(on_a_terminal, packed):
    events = [json.loads(line) for line in (packed.out / "events.jsonl").read_text().splitlines()]
    last = max(index for index, event in enumerate(events) if event["text"] == "export")
    again = events[last:]
    made = [event["text"] for event in again if event["kind"] == "done" and event["text"].startswith("candidate")]
    assert made == []
    assert sum(event["kind"] == "reused" for event in again) >= 5


def test_the_result_is_told_in_words(on_a_terminal):
    assert "Every budget is met on onnxruntime." in on_a_terminal
    assert "next: haversack verify" in on_a_terminal
    assert re.search(r"report: .*report\.html", on_a_terminal)


@pytest.fixture(scope="module")
def replayed(packed, tmp_path_factory, environment):
    """The recipe of the run, packed again in a copy of its folder: under an impossible budget, then a loose one."""
    copy = tmp_path_factory.mktemp("replayed") / "copy"
    shutil.copytree(packed.out, copy)
    found = {}
    for budget in ("size=1KB,drop=5pt", "size=30KB,drop=50pt"):
        words = [
            str(packed.out / "recipe.toml"),
            "--budget",
            budget,
            "--allow",
            "slower-than-float",
            "--out",
            str(copy),
        ]
        command = [sys.executable, "-m", "haversack.cli", "pack", *words]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        found[budget[5:8]] = done, report.read(copy), (copy / report.read(copy).best_of("onnxruntime").artifact.path)
    return found


def test_an_impossible_budget_is_exit_code_3_with_the_best_effort(replayed):
    done, record, path = replayed["1KB"]
    assert done.returncode == 3, done.stderr
    assert record.best_of("onnxruntime").verdict == "missed"
    assert record.limits_of("onnxruntime")[0].over > 0
    assert path.is_file()
    assert "missed" in done.stdout


def test_a_loose_budget_after_an_impossible_one_is_met(replayed):
    done, record, _ = replayed["30K"]
    assert done.returncode == 0, done.stderr + done.stdout
    assert record.best_of("onnxruntime").verdict == "chosen"


def test_a_recipe_makes_just_its_plan_and_the_same_bytes(replayed, packed):
    _, record, _ = replayed["30K"]
    first = report.read(packed.out).best_of("onnxruntime")
    assert [one.id for one in record.candidates] == [first.id]
    assert record.candidates[0].artifact.sha256 == first.artifact.sha256


def test_elsewhere_than_on_a_terminal_progress_is_plain_lines(replayed, packed):
    done, *_ = replayed["1KB"]
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr
    assert "(as before)" in done.stderr
    assert not re.search(r"\[.* (left|more)\]", done.stderr.splitlines()[-1]), "the end has no time left"
    assert "forecast: about" not in done.stderr, "the forecast is that of a run from scratch"
