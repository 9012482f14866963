"""One plan on three runtimes by the command line: the same integers, the same bits, one report; and one of any."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from haversack.base.budget import Budget
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.base.recipe import FORMAT, Recipe, read, write

TINY_JOB = Path(__file__).with_name("tiny_job.py")
THREE = ("onnxruntime", "litert", "executorch")
INTEGERS = (*THREE, "reference")
BUDGET = Budget(size=20_000, drop=0.05)
LAYERS = ("0:conv2d#0", "3:conv2d#0", "7:linear#0")
PREPARE = (Step("fold_norm"), Step("bias_correct"))

pytestmark = [
    pytest.mark.skipif(find_spec("executorch") is None, reason="executorch is not installed"),
    pytest.mark.timeout(1200),  # ExecuTorch takes a minute and more to write and time a file
]


@dataclass(frozen=True)
class Ran:
    """A finished run: its folder, exit code, and what it said."""

    out: Path
    code: int
    stdout: str
    stderr: str

    @property
    def report(self):
        return json.loads((self.out / "report.json").read_text())


def command(environment, *words):
    line = [sys.executable, "-m", "haversack.cli", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, env=environment, check=False)


def pack(environment, source, out, *words):
    done = command(environment, "pack", source, "--allow", "slower-than-float", "--out", out, *words)
    return Ran(out, done.returncode, done.stdout, done.stderr)


def named(targets):
    return [word for name in targets for word in ("--target", name)]


def recipe(path, targets):
    """Write a recipe with the static plan of all layers for each target: no search, so that the run is short."""
    layers = dict.fromkeys(LAYERS, LayerPlan())
    plans = tuple(Plan(name, layers, PREPARE, Step("mse"), tuple(targets)) for name in targets)
    write(Recipe(FORMAT, str(TINY_JOB), "", BUDGET, plans), path)
    return path


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def three(environment, tmp_path_factory):
    """The tiny job on three runtimes."""
    folder = tmp_path_factory.mktemp("three")
    ran = pack(environment, recipe(folder / "asked.toml", THREE), folder / "out", *named(THREE))
    assert ran.code == 0, ran.stderr
    return ran


@pytest.fixture(scope="module")
def browser(environment, tmp_path_factory):
    """The tiny job on any runtime of a browser."""
    folder = tmp_path_factory.mktemp("browser")
    asked = recipe(folder / "asked.toml", ("onnxruntime", "litert"))
    ran = pack(environment, asked, folder / "out", "--target", "any", "--platform", "browser")
    assert ran.code == 0, ran.stderr
    return ran


def test_each_runtime_has_its_best(three):
    best = three.report["best"]
    assert tuple(best) == THREE
    assert {name for name in best if best[name].startswith(f"{name}-")} == set(THREE)
    assert {path.name for path in (three.out / "best").iterdir()} == set(THREE)
    for name in THREE:
        there = {path.name for path in (three.out / "best" / name).iterdir()}
        assert {"artifact.json", "encodings.safetensors", "golden.npz"} < there
    assert three.report["why"] == ""


def test_every_two_are_compared_once_and_on_all_samples(three):
    rows = three.report["across"]
    names = [(row["first"], row["second"]) for row in rows]
    assert names == list(itertools.combinations((*INTEGERS, "float"), 2))
    assert {row["compared"] for row in rows} == {128 * 4}


@pytest.mark.parametrize("first, second", list(itertools.combinations(INTEGERS, 2)))
def test_the_static_plan_gives_the_same_bits_everywhere(three, first, second):
    row = next(row for row in three.report["across"] if (row["first"], row["second"]) == (first, second))
    assert (row["differing"], row["relative_error"]) == (0, 0.0)


def test_float_is_near_and_as_far_from_each(three):
    rows = [row for row in three.report["across"] if row["second"] == "float"]
    assert {row["first"] for row in rows} == set(INTEGERS)
    assert all(row["differing"] > 0 for row in rows)
    assert len({row["relative_error"] for row in rows}) == 1
    assert 0 < rows[0]["relative_error"] < 0.1


def test_one_set_of_encodings_for_all(three):
    files = [three.out / "best" / name / "encodings.safetensors" for name in THREE]
    assert len({sha256(path) for path in files}) == 1
    proofs = three.report["proofs"]
    assert {proofs[f"best/{name}/encodings.safetensors"] for name in THREE} == {sha256(files[0])}


def test_no_runtime_parts_and_the_pad_is_told_of_litert(three):
    best = {one["target"]: one for one in three.report["candidates"] if one["id"] in three.report["best"].values()}
    kinds = {name: {finding["kind"] for finding in best[name]["findings"]} for name in THREE}
    assert not any("runtimes-differ" in found for found in kinds.values())
    assert "detour" in kinds["litert"]
    assert "detour" not in kinds["onnxruntime"]
    told = [finding for finding in best["litert"]["findings"] if finding["kind"] == "detour"]
    assert [(one["layer"], one["severity"]) for one in told] == [("0:conv2d#0", "warning")]


def test_the_terminal_and_the_page_tell_it(three):
    line = f"the same bits from {', '.join(INTEGERS)}: all 512 values"
    assert line in three.stdout + three.stderr
    assert "Across runtimes" in (three.out / "report.html").read_text()


def test_verify_takes_all_three(three, environment):
    done = command(environment, "verify", three.out)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in THREE:
        assert name in done.stdout + done.stderr


def test_a_recipe_is_made_as_it_says_and_written_again(three):
    found = read(three.out / "recipe.toml")
    asked = read(three.out.parent / "asked.toml")
    assert [plan.target for plan in found.plans] == list(THREE)
    assert found.plans == asked.plans
    assert found.budget == asked.budget


def test_one_of_any_ships(browser):
    (target,) = browser.report["best"]
    assert target in {"onnxruntime", "litert"}
    assert [path.name for path in (browser.out / "best").iterdir()] == [target]
    assert [plan.target for plan in read(browser.out / "recipe.toml").plans] == [target]
    chosen = [one["target"] for one in browser.report["candidates"] if one["verdict"] == "chosen"]
    assert chosen == [target]


def test_what_the_browser_lacks_is_left_out_and_told(browser):
    why = browser.report["why"]
    (target,) = browser.report["best"]
    assert why.startswith(f"{target} ships (")
    assert "executorch was not tried: it does not run on browser." in why
    assert "as WebAssembly" in why
    assert why in browser.stdout + browser.stderr
    assert "executorch" not in {one["target"] for one in browser.report["candidates"]}
    assert not {"executorch"} & {row["first"] for row in browser.report["across"]}


def test_the_other_runtime_says_whose_file_ships(browser):
    (target,) = browser.report["best"]
    (other,) = {"onnxruntime", "litert"} - {target}
    reasons = {one["target"]: one["reason"] for one in browser.report["candidates"]}
    assert reasons[other] == f"met, but {target} ships instead"
    assert f"{other} " in browser.report["why"]


def test_verify_takes_the_one_that_ships(browser, environment):
    done = command(environment, "verify", browser.out)
    assert done.returncode == 0, done.stdout + done.stderr
