"""A recipe finds its job from wherever it is read, and says where the job is from wherever it was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.base.budget import Budget
from haversack.base.errors import JobError
from haversack.base.plan import Plan
from haversack.base.recipe import FORMAT, Recipe, write
from haversack.flow.outputs import _beside
from haversack.flow.request import Request, opened

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
