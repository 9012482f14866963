"""The packed tiny job with static int8, copies that a test may spoil; and the steps of a run on a small network."""

from __future__ import annotations

import shutil
from contextlib import ExitStack

import numpy as np
import pytest

from haversack import metrics, report
from haversack.base.job import Job
from haversack.base.progress import silent
from haversack.cli import main
from haversack.flow.data import Data
from haversack.flow.request import write_plan
from haversack.flow.steps import Steps
from haversack.flow.workshop import Workshop
from haversack.targets.contract import SHELF


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


@pytest.fixture
def steps_on(tmp_path):
    """A function that begins a run on a network of one image [3, 16, 16] and returns its steps."""
    with ExitStack() as stack:

        def begin(network, device, target="onnxruntime", *, allow=(), folder="run"):
            import torch

            images = np.random.default_rng(0).uniform(0, 1, (40, 3, 16, 16)).astype(np.float32)
            with torch.no_grad():
                labels = network(torch.from_numpy(images)).argmax(1).numpy()
            job = Job(
                name="small",
                source=str(tmp_path / "job.py"),
                model=lambda: network,
                calibration=lambda: ((images[start : start + 8],) for start in range(0, 16, 8)),
                evaluation=lambda: (((images[s : s + 8],), labels[s : s + 8]) for s in range(16, 40, 8)),
                metric="top1",
            )
            metric = metrics.resolve("top1")
            shop = stack.enter_context(Workshop(tmp_path / folder, "small", silent))
            targets = {target: SHELF.build(target)}
            return Steps(shop, job, Data(job, None, metric), metric, targets, device, allow)

        yield begin


@pytest.fixture
def searched(packed, tmp_path):
    """The folder of a finished search, to be spoiled."""
    shutil.copytree(packed.out, tmp_path / "searched")
    return tmp_path / "searched"
