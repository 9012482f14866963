"""What is typed wrongly: exit code 2, the cause, the place, the nearest name, and nothing written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from haversack.base.progress import silent
from haversack.cli import main
from haversack.flow.workshop import Workshop

TINY_JOB = Path(__file__).parents[1] / "flow" / "tiny_job.py"
JOB = """
import numpy as np
import torch
metric = "top1"
def model():
    return torch.nn.Linear(3, 2).eval()
def calibration():
    yield (np.ones((4, 3), np.float32),)
def evaluation():
    yield (np.ones((4, 3), np.float32),), np.zeros(4, np.int64)
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").write_text(JOB)
    return tmp_path


def refused(capfd, folder, *words: str) -> str:
    """Type a command that is exit code 2 and writes nothing; return what it says."""
    before = sorted(path.name for path in folder.iterdir() if path.name != "__pycache__")
    code = main([*words])
    told = capfd.readouterr()
    assert code == 2, told.err
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == before
    assert "Traceback" not in told.err
    return told.err + told.out


@pytest.mark.parametrize(
    "words, said",
    [
        (["pack", "job.py", "--bugdet", "size=1MB"], "--budget"),
        (["pakc", "job.py"], "pack"),
        (["pack"], "a job file"),
        (["resolve", "out"], "--budget"),
        (["pack", "job.py", "--out"], "--out"),
    ],
)
def test_an_unknown_flag_or_verb_or_a_missing_argument(job, capfd, words, said):
    assert said in refused(capfd, job, *words)


@pytest.mark.parametrize(
    "words, wrong, right, after",
    [
        ("resolve out --budgt size=3MB", "--budgt", "--budget", "out --budget size=3MB"),
        ("resolve out --budgt=size=3MB", "--budgt", "--budget", "out --budget=size=3MB"),
        ("resolve --budgt size=3MB", "--budgt", "--budget", "--budget size=3MB"),
        ("resolve out --budget size=3MB --jsn", "--jsn", "--json", "out --budget size=3MB --json"),
        ("resolve out --bdget size=3MB --wrte x", "--wrte", "--write", "out --budget size=3MB --write x"),
        ("pack job.py --dryrun", "--dryrun", "--dry-run", "job.py --dry-run"),
    ],
)
def test_a_misspelt_option_is_told_with_the_right_one_and_the_whole_command(job, capfd, words, wrong, right, after):
    told = refused(capfd, job, *words.split())
    assert f"{wrong}: there is no such option; did you mean {right}?" in told
    assert f"\n  next: haversack {words.split()[0]} {after}\n" in told
    assert "requires an argument" not in told


def test_an_option_that_is_near_to_none_is_told_with_those_that_there_are(job, capfd):
    told = refused(capfd, job, "resolve", "out", "--latency", "3ms")
    assert "--latency: there is no such option; haversack resolve has --out, --budget, --write, --json" in told
    assert "\n  next: haversack resolve --help\n" in told


@pytest.mark.parametrize(
    "words, said, step",
    [
        ("pack", "pack: what is to be packed is missing: a job file, module:callable or a recipe.toml", "pack job.py"),
        ("pack --budget size=3MB", "pack: what is to be packed is missing", "pack job.py --budget size=3MB"),
        ("pack --dry-run", "pack: what is to be packed is missing", "pack job.py --dry-run"),
        ("resolve mine", "resolve: --budget is missing: the limits", "resolve mine --budget size=3MB"),
        ("resolve", "resolve: the folder of a run is missing", "resolve out --budget size=3MB"),
        ("resolve --budget=drop=1pt", "resolve: the folder of a run is missing", "resolve out --budget=drop=1pt"),
        ("verify", "verify: the folder of a run is missing", "verify out"),
        ("report --json", "report: the folder of a run is missing", "report out --json"),
        ("pack job.py --out", "--out: it has no value behind it", "pack --help    (says what it takes)"),
        ("resolve out --budget", "--budget: it has no value behind it", "resolve --help    (says what it takes)"),
    ],
)
def test_what_is_missing_is_told_in_words_with_the_command_as_it_may_be(job, capfd, words, said, step):
    told = refused(capfd, job, *words.split())
    assert said in told
    assert f"\n  next: haversack {step}\n" in told
    assert "parameter" not in told


@pytest.mark.parametrize(
    "words, said",
    [
        (["--budget", "sise=5MB"], ["--budget", "sise", "did you mean size?"]),
        (["--budget", "size=5MB,size=6MB"], ["size", "given twice"]),
        (["--budget", "size=5parsec,latency=3"], ["size", "parsec", "latency", "unit"]),
        (["--budget", "size"], ["has no value"]),
        (["--budget", "size=0MB"], ["no limit that anything can meet"]),
        (["--target", "onxruntime"], ["onxruntime", "did you mean onnxruntime?", "haversack parts"]),
        (["--target", "reference"], ["there is no target named 'reference'"]),
        (["--allow", "slower-then-float"], ["--allow", "did you mean slower-than-float?"]),
        (["--plan", "absent.toml"], ["absent.toml", "plan cannot be read"]),
    ],
)
def test_a_word_that_is_not_known_is_told_with_the_nearest_one(job, capfd, words, said):
    told = refused(capfd, job, "pack", "job.py", "--out", "out", *words)
    for one in said:
        assert one in told


@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["a run", "a dry run"])
@pytest.mark.parametrize(
    "words, said",
    [
        (["--effort", "hi"], "--effort: there is no effort 'hi'; did you mean high?"),
        (["--device", "sssh:x"], "--device: there is no device 'sssh:x'"),
        (["--device", "ssh:-x"], "'-x' is not [user@]host[:port]"),
        (["--device", "qemu:cortex-a76"], "qemu:cortex-a76 is emulated"),
        (["--target", "litert:wrong=3"], "litert:wrong: there is no such setting"),
        (["--platform", "andriod"], "did you mean android?"),
        (["--allow", "noisi"], "did you mean noisy?"),
        (["--budget", "sise=5MB"], "did you mean size?"),
        (["--plan", "absent.toml"], "absent.toml: the plan cannot be read"),
        (["--plan", "."], "the plan cannot be read: is a directory"),
    ],
)
def test_what_needs_nothing_of_the_job_is_told_before_it_runs(job, capfd, words, said, more):
    (job / "job.py").write_text("raise OSError('the job file ran')\n")
    told = refused(capfd, job, "pack", "job.py", *words, *more)
    assert said in told
    assert "the job file ran" not in told
    assert "the job file ran" in refused(capfd, job, "pack", "job.py", *more)


@pytest.mark.parametrize("name", ["absent.toml", "folder.toml"])
def test_a_recipe_that_cannot_be_opened_is_told_with_its_path(job, capfd, name):
    (job / "folder.toml").mkdir()
    assert name in refused(capfd, job, "pack", name, "--effort", "high")


def test_all_faults_of_a_budget_are_told_at_once(job, capfd):
    told = refused(capfd, job, "pack", "job.py", "--budget", "sise=1MB,latency=3,drop=1parsec")
    assert [line.split(":")[0].strip(" -") for line in told.splitlines() if line.startswith("  - ")] == [
        "sise", "latency", "drop",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text, said",
    [
        ("this is = not [toml", ["not TOML", "line 1"]),
        ("format = 99\n", ["format 99"]),
        (
            'format = 1\njob = "job.py"\nmodel_digest = ""\n[budget]\nsise = 3\n',
            ["sise", "did you mean size?", "plans"],
        ),
    ],
)
def test_a_recipe_that_cannot_be_read(job, capfd, text, said):
    (job / "recipe.toml").write_text(text)
    told = refused(capfd, job, "pack", "recipe.toml", "--out", "out")
    assert "recipe.toml" in told
    for one in said:
        assert one in told


def test_a_recipe_that_is_not_there(job, capfd):
    assert "absent.toml" in refused(capfd, job, "pack", "absent.toml", "--out", "out")


def test_a_plan_with_unknown_fields(job, capfd):
    (job / "plan.toml").write_text('target = "onnxruntime"\nlayer = 3\n')
    told = refused(capfd, job, "pack", "job.py", "--plan", "plan.toml", "--out", "out")
    assert "plan.toml" in told
    assert "did you mean layers?" in told


def test_a_plan_for_a_target_that_was_not_chosen_is_no_silent_search(job, capfd):
    (job / "plan.toml").write_text('target = "elsewhere"\n')
    told = refused(capfd, job, "pack", "job.py", "--plan", "plan.toml", "--out", "out")
    assert "the plan is for 'elsewhere'" in told
    assert "--target elsewhere" in told


def test_a_foreign_folder_is_refused_and_stays_as_it_is(job, capfd):
    (job / "mine").mkdir()
    (job / "mine" / "thesis.txt").write_text("years of work")
    told = refused(capfd, job, "pack", "job.py", "--out", "mine")
    assert "not a folder that haversack made" in told
    assert "--out" in told
    assert [path.name for path in (job / "mine").iterdir()] == ["thesis.txt"]
    assert (job / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_file_as_the_output_folder(job, capfd):
    (job / "file").write_text("x")
    assert "file" in refused(capfd, job, "pack", "job.py", "--out", "file")
    assert (job / "file").read_text() == "x"


def test_the_folder_of_another_job_is_refused(job, capfd, packed):
    before = (packed.out / "recipe.toml").read_bytes()
    told = refused(capfd, job, "pack", "job.py", "--out", str(packed.out))
    assert "another job" in told
    assert "tiny_job.py" in told
    assert (packed.out / "recipe.toml").read_bytes() == before


@pytest.mark.parametrize("verb", ["report", "verify"])
def test_a_folder_without_a_report(job, capfd, verb):
    told = refused(capfd, job, verb, str(job / "nowhere"))
    assert "there is no report" in told
    assert "haversack pack" in told


@pytest.mark.parametrize("words", [["report", "out"], ["verify", "out"], ["resolve", "out", "--budget", "size=1MB"]])
def test_the_folder_of_an_unfinished_run(job, capfd, words):
    command = "haversack pack job.py --budget size=2MB --allow slower-than-float --out out"
    with Workshop(job / "out", "job.py", silent, command) as shop:
        shop.remember("load", "x", [1], lambda: 1, save=lambda _: ({}, {}), load=lambda *_: 1)
        at_work = refused(capfd, job, *words)
    told = refused(capfd, job, *words)
    assert f"the run in it is not finished: process {os.getpid()} is at work there" in at_work
    assert "next: wait until it ends" in at_work
    assert "the run in it is not finished: it was stopped" in told
    assert f"next: {command}    (goes on" in told


def test_a_report_that_is_cut_off(job, capfd, packed):
    text = (packed.out / "report.json").read_text()
    (job / "report.json").write_text(text[: len(text) // 2])
    told = refused(capfd, job, "report", str(job))
    assert "not JSON" in told
    assert "report.json:" in told


def test_an_unknown_shelf(job, capfd):
    told = refused(capfd, job, "parts", "metrics")
    assert "did you mean metric?" in told
    assert "quantizer, palette, target" in told


def test_any_beside_a_name_is_refused_and_not_dropped(capfd, job):
    told = refused(capfd, job, "pack", "job.py", "--target", "any", "--target", "coreml")
    assert "coreml is named beside it" in told
    assert "--target any alone, or the names alone: --target coreml" in told


def test_help_shows_defaults_that_say_something(capfd):
    assert main(["pack", "--help"]) == 0
    told = " ".join(capfd.readouterr().out.replace("│", " ").split())  # wherever its lines are broken
    assert "[default: local]" in told
    assert "noise:level=0.2" in told
    assert not any(empty in told for empty in ('[default: ""]', "[default: ()]", "[default: False]"))


def test_help_names_every_verb(capfd):
    assert main(["--help"]) == 0
    told = capfd.readouterr().out
    for verb in ("pack", "resolve", "verify", "report", "parts", "doctor"):
        assert f"  {verb}" in told or f" {verb} " in told


def test_version(capfd):
    from haversack import __version__

    assert main(["--version"]) == 0
    assert __version__ in capfd.readouterr().out


@pytest.mark.parametrize(
    "words", [["pack", str(TINY_JOB), "--budget", "siz=3MB"], ["parts", "--jsn"], ["verify", "nowhere"]]
)
def test_an_error_with_json_is_an_object_on_standard_output(words, capsys):
    code = main([*words, "--json"])
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told["exit_code"] == code == 2
    assert told["error"]["cause"] in said.err
    assert told["error"]["next"]


def test_words_that_are_left_over_are_told_as_typed(capsys):
    assert main(["parts", "metric", "top1"]) == 2
    assert "the command does not take 'top1'" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["a run", "a dry run"])
@pytest.mark.parametrize("budget", ["", ","])
def test_a_budget_that_limits_nothing_is_refused(more, budget, capsys):
    assert main(["pack", str(TINY_JOB), "--budget", budget, *more]) == 2
    assert "--budget: it limits nothing" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["a run", "a dry run"])
def test_a_file_in_place_of_the_output_folder_is_refused(more, tmp_path, capsys):
    (tmp_path / "afile").write_text("mine")
    assert main(["pack", str(TINY_JOB), "--out", str(tmp_path / "afile"), *more]) == 2
    assert "it exists and is not a folder that haversack made" in capsys.readouterr().err
    assert (tmp_path / "afile").read_text() == "mine"
