"""4-bit weights through the whole of pack: on three runtimes from a recipe, and found by a search for few bytes."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from haversack.base.budget import Budget
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.base.recipe import FORMAT, Recipe, read, write
from haversack.choose.options import CLIPPED
from haversack.flow.proposals import narrowed

JOB = Path(__file__).with_name("four_bits_job.py")
THREE = ("onnxruntime", "litert", "executorch")
STEM, DEEP = "0:conv2d#0", "5:conv2d#0"
NARROW = ("3:conv2d#0", "7:conv2d#0", "11:linear#0")
PREPARE = (Step("fold_norm"), Step("bias_correct"))
LAYERS = {STEM: LayerPlan(), DEEP: LayerPlan()} | dict.fromkeys(NARROW, LayerPlan("w4a8", "channel", CLIPPED))

pytestmark = pytest.mark.timeout(1200)


def pack(environment, source, out, *words):
    line = [sys.executable, "-m", "haversack.cli", "pack", source, "--allow", "slower-than-float", "--out", out, *words]
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True, env=environment, check=False)
    assert (out / "report.json").exists(), done.stderr
    return done.returncode, json.loads((out / "report.json").read_text())


def best(report, target):
    return next(one for one in report["candidates"] if one["id"] == report["best"][target])


@pytest.fixture(scope="module")
def three(environment, tmp_path_factory):
    """The job on three runtimes from a recipe."""
    if find_spec("executorch") is None:
        pytest.skip("executorch is not installed")
    folder = tmp_path_factory.mktemp("three")
    plans = tuple(Plan(name, LAYERS, PREPARE, Step("mse"), THREE) for name in THREE)
    write(Recipe(FORMAT, str(JOB), "", Budget(size=40_000, drop=0.05), plans), folder / "asked.toml")
    words = [word for name in THREE for word in ("--target", name)]
    code, report = pack(environment, folder / "asked.toml", folder / "out", *words)
    assert code == 0
    return folder / "out", report


def test_no_value_differs_between_any_two(three):
    rows = {(row["first"], row["second"]): row for row in three[1]["across"]}
    pairs = list(itertools.combinations((*THREE, "reference"), 2))
    assert [rows[pair]["differing"] for pair in pairs] == [0] * 6
    assert {rows[pair]["compared"] for pair in pairs} == {64 * 4}


@pytest.mark.parametrize("target", THREE)
def test_the_report_says_which_layers_have_four_bits(three, target):
    one = best(three[1], target)
    bits = {layer["key"]: (layer["bits"], layer["precision"], layer["granularity"]) for layer in one["layers"]}
    assert {key: bits[key] for key in NARROW} == dict.fromkeys(NARROW, (4, "w4a8", "channel"))
    assert {bits[key][0] for key in (STEM, DEEP)} == {8}
    assert not {finding["kind"] for finding in one["findings"]} & {"fallback", "float-op", "runtimes-differ"}


def test_the_recipe_that_is_left_says_it_again(three):
    plans = read(three[0] / "recipe.toml").plans
    assert [plan.target for plan in plans] == list(THREE)
    assert all({key: plan.layers[key] for key in NARROW} == {key: LAYERS[key] for key in NARROW} for plan in plans)


WITHOUT = ("--without", "palette")
"""Palettes of 16 values are as small as weights of 4 bits."""


@pytest.fixture(scope="module")
def small(environment, tmp_path_factory):
    """The job under a limit on bytes that 8-bit weights alone are over."""
    out = tmp_path_factory.mktemp("small") / "out"
    return pack(environment, JOB, out, "--target", "onnxruntime", "--budget", "size=5.5KB", *WITHOUT)[1]


def test_the_search_tries_four_bits_where_eight_are_hopeless(small):
    reasons = {one["reason"] for one in small["candidates"] if not one["artifact"]}
    assert any("forecast size" in reason for reason in reasons)
    precisions = [{layer["precision"] for layer in one["layers"]} for one in small["candidates"] if one["artifact"]]
    assert precisions
    assert all("w4a8" in found for found in precisions)


def test_what_it_ships_has_the_bits_of_the_reference(small):
    parity = best(small, "onnxruntime")["parity"]
    assert parity["reference_differing"] == 0
    assert parity["reference_compared"] > 0


def test_a_static_plan_is_narrowed_where_layers_may_be():
    plan = Plan("t", {STEM: LayerPlan("int8", "tensor"), NARROW[0]: LayerPlan("int8", "tensor")}, origin="as it was")
    (made,) = narrowed(plan, {NARROW[0]: {2, 4}, "elsewhere:conv2d#0": {4}})
    assert made.layers == {STEM: LayerPlan("int8", "tensor"), NARROW[0]: LayerPlan("w4a8", "tensor", CLIPPED)}
    assert made.origin == "as it was, 1 layer with 4-bit weights"
    assert narrowed(plan, {NARROW[0]: {2, 3}}) == []
    assert narrowed(Plan("t", {NARROW[0]: LayerPlan("int8_weights")}), {NARROW[0]: {4}}) == []
    (signs,) = narrowed(plan, {NARROW[0]: {1}}, 1)
    assert signs.layers[NARROW[0]] == LayerPlan("w1a8", "tensor", Step("mse"))
