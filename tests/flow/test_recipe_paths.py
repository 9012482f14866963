"""A recipe finds its job from wherever it is read, and says where the job is from wherever it was written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from haversack.base.budget import Budget
from haversack.base.errors import JobError, UsageError
from haversack.base.plan import Plan
from haversack.base.recipe import FORMAT, Architecture, Recipe, read, write
from haversack.flow.foreign import foreign
from haversack.flow.outputs import _beside
from haversack.flow.request import Request, architectures, opened, read_plan

JOB = """
metric = "top1"
def model(): ...
def calibration(): yield ()
def evaluation(): yield (), ()
"""


def recipe(path: Path, job: str) -> str:
    write(Recipe(FORMAT, job, "digest", Budget(size=10), (Plan("onnxruntime"),)), path)
    return str(path)


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("source", ["job.py", "./job.py", "ABSOLUTE"])
def test_what_is_written_is_found_again(here, source):
    source = source.replace("ABSOLUTE", str(here / "job.py"))
    path = recipe(Path("out/recipe.toml"), _beside(source, Path("out")))
    job, budget, fixed = opened(Request(path))
    assert Path(job.source).samefile(here / "job.py")
    assert budget == Budget(size=10)
    assert list(fixed) == ["onnxruntime"]


def test_it_is_found_from_another_folder(here, monkeypatch):
    path = here / recipe(Path("out/recipe.toml"), _beside("job.py", Path("out")))
    elsewhere = here / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    job, _, _ = opened(Request(str(path)))
    assert Path(job.source).samefile(here / "job.py")


def test_the_same_job_is_named_alike_by_file_and_by_recipe(here):
    path = recipe(Path("out/recipe.toml"), _beside("job.py", Path("out")))
    assert opened(Request(path))[0].source == opened(Request("job.py"))[0].source == "job.py"


@pytest.mark.parametrize("source", ["package.module:build", "weights.safetensors@package.module:Net", "job.py:build"])
def test_what_is_no_file_stays_as_it_was_typed(here, source):
    assert _beside(source, Path("out")) == source


def test_a_budget_of_ones_own_goes_before_the_recipes(here):
    path = recipe(Path("out/recipe.toml"), "../job.py")
    assert opened(Request(path, budget="drop=2pt"))[1] == Budget(drop=0.02)


def test_a_job_that_has_gone_is_told_by_its_name(here):
    path = recipe(Path("out/recipe.toml"), "../gone.py")
    with pytest.raises(JobError, match="gone.py"):
        opened(Request(path))


def test_a_recipe_of_several_architectures_names_them_and_one_of_a_single_model_does_not(here):
    alone = Recipe(FORMAT, "../job.py", "digest", Budget(size=10), (Plan("onnxruntime"),))
    write(alone, Path("out/alone.toml"))
    assert "architectures" not in Path("out/alone.toml").read_text()
    assert read(Path("out/alone.toml")) == alone
    assert architectures(Request("out/alone.toml")) == {}
    several = replace(alone, model_digest="", architectures={"onnxruntime": Architecture("w8", "its digest")})
    write(several, Path("out/several.toml"))
    assert read(Path("out/several.toml")) == several
    assert architectures(Request("out/several.toml")) == {"onnxruntime": "w8"}


def test_a_recipe_of_several_is_foreign_by_the_digest_of_its_target(here):
    several = Recipe(
        FORMAT, "../job.py", "", Budget(), (), architectures={"onnxruntime": Architecture("w8", "its digest")}
    )
    write(several, Path("out/several.toml"))
    request = Request("out/several.toml")
    assert foreign(request, "its digest", "onnxruntime") is None
    assert foreign(request, "another", "onnxruntime").kind == "another-model"
    assert foreign(request, "another", "litert") is None, "it names none for that target"


@pytest.mark.parametrize("text", ["architecture = 3\n", "architecture = ['w8']\n"])
def test_a_plan_file_whose_architecture_is_no_name_is_refused(here, text):
    Path("plan.toml").write_text(text + 'target = "onnxruntime"\n')
    with pytest.raises(UsageError, match="not a name"):
        read_plan(Path("plan.toml"))
