"""Real models through the whole main job, with few samples: the ground that every change must hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("HAVERSACK_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    """EfficientNet-Lite0 with ImageNet weights, packed on 60 pictures: its folder, its report, what was told."""
    if not (DATA / "imagenet-sample" / "labels.csv").exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI needs the pictures in {DATA}/imagenet-sample (set HAVERSACK_DATA)")
        pytest.skip(f"no pictures in {DATA}/imagenet-sample (set HAVERSACK_DATA)")
    out = tmp_path_factory.mktemp("lite0") / "out"
    # Whether int8 is faster than float depends on the processor (VNNI); what it computes does not.
    wishes = ["--budget", "size=5.2MB,drop=5pt", "--allow", "slower-than-float", "--out", str(out)]
    command = [sys.executable, "-m", "haversack.cli", "pack", str(ROOT / "examples" / "efficientnet_lite0.py"), *wishes]
    environment = {**os.environ, "HAVERSACK_IMAGES": "60", "HAVERSACK_DATA": str(DATA)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=280)
    assert (out / "report.json").exists(), done.stderr
    return out, json.loads((out / "report.json").read_text(encoding="utf-8")), done


def shipped(report):
    return next(one for one in report["candidates"] if one["id"] == report["best"]["onnxruntime"])


@pytest.mark.timeout(300)
def test_the_budget_is_met_by_an_int8_file(lite0):
    _, report, done = lite0
    best = shipped(report)
    assert done.returncode == 0, done.stdout + done.stderr
    assert best["verdict"] == "chosen"
    assert best["artifact"]["bytes"] <= 5_050_000
    assert {layer["bits"] for layer in best["layers"]} == {8}


def test_its_logits_are_the_references_bit_for_bit(lite0):
    _, report, _ = lite0
    parity = shipped(report)["parity"]
    assert parity["reference_compared"] >= 40_000
    assert parity["reference_differing"] == 0


def test_it_stays_near_float(lite0):
    _, report, _ = lite0
    parity = shipped(report)["parity"]
    assert parity["relative_error"] <= 0.12  # 15 pictures calibrate here; the bench says what 128 reach
    assert parity["agreement"] >= 0.9


def test_every_scale_and_integer_was_read_back(lite0):
    _, report, _ = lite0
    artifact = shipped(report)["artifact"]
    assert artifact["read_back"] == artifact["injected"] > 4_600_000


def test_nothing_stands_still_in_float(lite0):
    _, report, _ = lite0
    kinds = {finding["kind"] for finding in shipped(report)["findings"]}
    assert not kinds & {"float-op", "scale-changed", "weight-changed", "not-exact"}


def test_what_it_left_verifies(lite0):
    out, _, _ = lite0
    done = subprocess.run(
        [sys.executable, "-m", "haversack.cli", "verify", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
