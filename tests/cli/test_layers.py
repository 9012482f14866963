"""Layers that are fixed and parts that are forbidden, by a real run: obeyed, kept in the recipe, named after a miss."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from haversack import report
from haversack.base.plan import Plan
from haversack.cli import main
from haversack.flow.choice import read as read_choice
from haversack.flow.request import write_plan

FOUR_BITS_JOB = Path(__file__).parents[1] / "flow" / "four_bits_job.py"
FEW = ("w4a8", *(f"w{bits}a8" for bits in (1, 2, 3, 5, 6, 7)), "palette")
"""What is smaller than int8."""
SAID = [
    "--layer",
    "0=float16",
    "--layer",
    "*:linear#*=int8_weights",
    *(word for name in FEW for word in ("--without", name)),
    "--degraded",
    "noise:level=0.1",
]
MORE = ["--effort", "fast", "--allow", "slower-than-float"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a job whose widest layer has twice the channels, so that 4 bits of it are worth something."""
    made = tmp_path_factory.mktemp("layers")
    text = FOUR_BITS_JOB.read_text().replace("64", "128").replace("data(3, 128)", "data(3, 64)")
    (made / "job.py").write_text(text)
    return made


@pytest.fixture(scope="module")
def missed(folder):
    """The folder of a run whose budget only 4 bits could meet, which it forbids; with the exit code."""
    out = folder / "out"
    code = main(["pack", str(folder / "job.py"), "--budget", "size=23KB,drop=20pt", "--out", str(out), *SAID, *MORE])
    return out, code


def held(plan):
    return {key: layer.precision for key, layer in plan.layers.items()}


def test_every_candidate_obeys(missed):
    out, code = missed
    assert code == 3
    candidates = read_choice(out).candidates
    assert len(candidates) >= 3
    for one in candidates:
        assert held(one.plan)["0:conv2d#0"] == "float16", one.plan.origin
        assert held(one.plan)["11:linear#0"] == "int8_weights", one.plan.origin
        assert "w4a8" not in held(one.plan).values()


def test_the_next_step_names_what_was_forbidden_and_is_forecast_to_meet_it(missed):
    out, _ = missed
    told = report.read(out).next_step
    assert re.search(r"; w4a8, which --without forbids, is forecast to reach size=23KB\)$", told), told


def test_resolve_keeps_to_it_and_names_it_too(missed, capsys):
    out, _ = missed
    assert main(["resolve", str(out), "--budget", "size=23.1KB"]) == 3
    told = capsys.readouterr().out
    assert "no plan that the run was allowed is forecast to meet it either; " in told
    assert " --without w1a8 " in told.splitlines()[-1]
    assert "w4a8" not in told.splitlines()[-1]
    assert "w4a8, which --without forbids, is forecast to reach size=23.1KB" in told
    assert main(["resolve", str(out), "--budget", "size=90KB", "--write", str(out.parent / "plan.toml")]) == 0
    assert (
        "--layer '0=float16' --layer '*:linear#*=int8_weights' --without w4a8 --without w1a8"
        in capsys.readouterr().out.replace("--layer 0=float16", "--layer '0=float16'")
    )


def test_the_recipe_keeps_what_was_said(missed):
    out, _ = missed
    found = tomllib.loads((out / "recipe.toml").read_text())
    assert found["format"] == 2
    assert found["layers"] == ["0=float16", "*:linear#*=int8_weights"]
    assert found["without"] == list(FEW)
    assert found["degraded"] == [{"op": "noise", "level": 0.1}]


@pytest.fixture(scope="module")
def replayed(missed):
    """The recipe packed again, with nothing else said but the budget."""
    out, _ = missed
    again = out.parent / "again"
    code = main(["pack", str(out / "recipe.toml"), "--budget", "size=90KB,drop=20pt", "--out", str(again), *MORE])
    return again, code


def test_a_replay_does_the_same_on_degraded_inputs_too(replayed, missed):
    again, code = replayed
    assert code == 0
    first, second = (report.read(out) for out in (missed[0], again))
    assert second.best_of("onnxruntime").artifact.sha256 == first.best_of("onnxruntime").artifact.sha256
    assert [one.degradation for one in second.degraded] == [one.degradation for one in first.degraded]
    assert len(second.degraded) == 1
    kept = [tomllib.loads((out / "recipe.toml").read_text()) for out in (missed[0], again)]
    assert all(kept[0][name] == kept[1][name] for name in ("layers", "without", "degraded", "plans"))


def refused(capfd, *command):
    assert main(["pack", *map(str, command)]) == 2
    told = capfd.readouterr().err
    assert "Traceback" not in told
    return told


def test_a_recipe_is_not_changed_in_silence_by_what_is_said_beside_it(missed, capfd):
    told = refused(capfd, missed[0] / "recipe.toml", "--layer", "0=float32", "--out", missed[0].parent / "other")
    assert "- 0: the plan has it in float16, and --layer wants float32" in told
    assert "a recipe or a plan is made just as it is" in told
    assert not (missed[0].parent / "other").exists()


def test_a_plan_is_held_against_the_rules_in_a_dry_run_too(folder, capfd):
    write_plan(Plan("onnxruntime", {}), folder / "float.toml")
    told = refused(capfd, folder / "job.py", "--plan", folder / "float.toml", "--layer", "3=int8", "--dry-run")
    assert "- 3: the plan has it in float32, and --layer wants int8" in told


def test_all_that_is_wrong_with_globs_is_told_before_anything_is_made(folder, capfd):
    rules = ("0=int8", "[02]=float16", "13=int8", "3=w4_grouped")
    out = folder / "none"
    told = refused(capfd, folder / "job.py", "--out", out, *(word for rule in rules for word in ("--layer", rule)))
    lines = [line.strip() for line in told.splitlines() if line.startswith("  - ")]
    assert lines[0].startswith("- 13=int8: it names no layer; the nearest are ")
    assert lines[1] == "- 0: 0=int8 and [02]=float16 contradict each other"
    assert lines[2].startswith("- 3: onnxruntime cannot have it in w4_grouped; it can be float32, float16, int8")
    assert len(lines) == 3
    assert not out.exists()


def test_a_dry_run_says_what_a_forbidden_precision_could_meet(folder, capfd):
    barred = [word for name in FEW for word in ("--without", name)]
    command = ["pack", str(folder / "job.py"), "--dry-run", *barred, "--budget", "size=14KB"]
    assert main(command) == 3
    told = capfd.readouterr().out
    assert re.search(
        r"size at most 14.0 kB: cannot be met: weights alone take at least 20\.\d kB in .*; w1a8, which "
        r"--without forbids, would bring them down to \d\.\d kB",
        told,
    )
    assert "may be too much" not in told, "there is room for the structure"
    assert main([*command[:3], "--budget", "size=14KB"]) == 0
    assert "forbids" not in capfd.readouterr().out


def test_a_runtime_that_cannot_have_a_layer_so_is_left_out_where_any_may_ship(folder, capfd):
    command = ["pack", str(folder / "job.py"), "--dry-run", "--json", "--target", "any", "--layer", "3=float16"]
    assert main(command) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["left_out"]["executorch"].startswith("layers cannot be as asked in it: 3: executorch cannot have it in")
    assert "onnxruntime" not in told["left_out"]
