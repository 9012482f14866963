"""The static int8 plan of the packed tiny job, made by ``pack --plan``; and copies of it that a test may spoil."""

from __future__ import annotations

import shutil

import pytest

from haversack import report
from haversack.cli import main
from haversack.flow.request import write_plan


@pytest.fixture(scope="session")
def static(packed, tmp_path_factory):
    """The folder of a run that made just the plan with all layers in integers."""
    folder = tmp_path_factory.mktemp("static")
    shutil.copytree(packed.out, folder / "run")
    plans = [one.plan for one in report.read(packed.out).candidates if one.artifact is not None]
    plan = next(one for one in plans if {layer.precision for layer in one.layers.values()} == {"int8"})
    write_plan(plan, folder / "plan.toml")
    command = packed.command(folder / "run", "--plan", str(folder / "plan.toml"))[3:]
    assert main(command) == 0
    return folder / "run"


@pytest.fixture
def run(static, tmp_path):
    """The folder of a finished run, to be spoiled."""
    shutil.copytree(static, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def best(run):
    return run / "best" / "onnxruntime"
