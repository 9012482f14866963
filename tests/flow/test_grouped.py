"""4-bit weights in groups and 8-bit ones in one file, found by the search of pack under a limit on bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from haversack.base.recipe import read

JOB = Path(__file__).with_name("grouped_job.py")
FIRST, MIDDLE, LAST = "0:linear#0", "2:linear#0", "4:linear#0"
LIMIT = 64_000
"""Bytes: all layers in 8 bits have 85 kB, all in groups of 32 weights of 4 bits 50."""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def out(environment, tmp_path_factory):
    out = tmp_path_factory.mktemp("grouped") / "out"
    line = [sys.executable, "-m", "haversack.cli", "pack", str(JOB), "--allow", "slower-than-float", "--out", str(out)]
    line += ["--target", "onnxruntime", "--budget", f"size={LIMIT}B", "--without", "palette"]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def made(out):
    """Return the candidates that have a file, best first, each with its layers' precisions."""
    report = json.loads((out / "report.json").read_text())
    held = [one for one in report["candidates"] if one["artifact"]]
    return [(one, {layer["key"]: layer["precision"] for layer in one["layers"]}) for one in held]


def test_the_mixture_ships_and_errs_less_than_groups_in_every_layer(made):
    (first, mixed), (uniform, all_in_groups) = made
    assert set(all_in_groups.values()) == {"w4_grouped"}
    assert mixed[MIDDLE] == "w4_grouped"
    assert "w4_grouped" not in (mixed[FIRST], mixed[LAST])
    assert (first["verdict"], uniform["verdict"]) == ("chosen", "met")
    assert first["parity"]["relative_error"] < 0.8 * uniform["parity"]["relative_error"]


def test_its_size_is_what_was_forecast(made):
    size = sum(file["bytes"] for file in made[0][0]["artifact"]["files"])
    assert size <= LIMIT
    assert size == pytest.approx(made[0][0]["forecast"]["bytes"], rel=0.02)


def test_the_recipe_says_how_many_weights_share_a_scale(out):
    (plan,) = read(out / "recipe.toml").plans
    assert plan.layers[MIDDLE].kind in ("w4_grouped/32", "w4_grouped/128")
