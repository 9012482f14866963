"""Weights of 1 to 7 bits from a recipe: run where they can be stored, refused by layer and width where they cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from haversack.base.budget import Budget
from haversack.base.plan import WEIGHT_BITS, LayerPlan, Plan, Step
from haversack.base.recipe import FORMAT, Recipe, write
from haversack.choose.options import QUANTIZERS

JOB = Path(__file__).with_name("four_bits_job.py")
PRECISIONS = {
    "0:conv2d#0": "w3a8",
    "3:conv2d#0": "w1a8",
    "5:conv2d#0": "int8",
    "7:conv2d#0": "w6a8",
    "11:linear#0": "w2a8",
}
LAYERS = {key: LayerPlan(one, weights=QUANTIZERS[WEIGHT_BITS[one]]) for key, one in PRECISIONS.items()}

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture
def packed(environment, tmp_path):
    """Target -> exit code and report of the recipe for it."""

    def pack(target):
        plan = Plan(target, LAYERS, (Step("fold_norm"), Step("gptq")), Step("mse"), (target,))
        write(Recipe(FORMAT, str(JOB), "", Budget(size=40_000), (plan,)), tmp_path / "asked.toml")
        words = ["pack", tmp_path / "asked.toml", "--allow", "slower-than-float", "--out", tmp_path / "out"]
        line = [sys.executable, "-m", "haversack.cli", *map(str, words)]
        done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
        assert (tmp_path / "out" / "report.json").exists(), done.stderr
        return done.returncode, json.loads((tmp_path / "out" / "report.json").read_text())

    return pack


def test_where_they_can_be_stored_the_bits_are_the_references(packed):
    code, report = packed("onnxruntime")
    (one,) = (one for one in report["candidates"] if one["artifact"])
    assert code == 0
    assert one["parity"]["reference_differing"] == 0 < one["parity"]["reference_compared"]
    assert {layer["key"]: layer["bits"] for layer in one["layers"]} == {
        key: 1.6 if precision == "w2a8" else WEIGHT_BITS[precision] for key, precision in PRECISIONS.items()
    }
    assert not {finding["kind"] for finding in one["findings"]} & {"fallback", "float-op", "not-exact"}
    assert one["after"]["notes"][-1] == "gptq: usual settings", "what was done to the weights is told"


def test_where_they_cannot_every_layer_is_told_with_the_bits_that_it_can_have(packed):
    code, report = packed("litert")
    (one,) = report["candidates"]
    assert (code, one["artifact"]) == (4, None)
    for told in (
        "0: litert cannot have weights of 3 bits in this conv2d; it can have 8",
        "3: litert cannot have weights of 1 bit in this conv2d; it can have 4, 8",
        "7: litert cannot have weights of 6 bits in this conv2d; it can have 4, 8",
        "11: litert cannot have weights of 2 bits in this linear; it can have 4, 8",
    ):
        assert told in one["reason"]
