"""The examples' own parts: training that goes on where it was killed, and job files that open."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from haversack import load

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
JOBS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem not in {"training", "ship_digits"})


class Killed(Exception):
    """Stands for a signal in the middle of an epoch."""


@pytest.fixture(scope="module")
def fit():
    spec = importlib.util.spec_from_file_location("training", EXAMPLES / "training.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fit


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))


def data():
    inputs = torch.randn(96, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    return inputs, (inputs.mean((1, 2, 3)) > 0).long()


def test_it_learns(fit, tmp_path):
    inputs, targets = data()
    trained = network()
    fit(trained, inputs, targets, tmp_path / "weights.safetensors", epochs=12, rate=3e-2, batch=16)
    loaded = network()
    loaded.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    right = (loaded.eval()(inputs).argmax(1) == targets).float().mean()
    assert right > 0.9
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(fit, tmp_path):
    inputs, targets = data()
    options = {"epochs": 3, "rate": 1e-2, "batch": 16}
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    fit(network(), inputs, targets, whole, **options, change=lambda x: x + torch.randn_like(x))
    batches = 0

    def change(x):
        nonlocal batches
        batches += 1
        if batches == 9:  # six batches an epoch: in the middle of the second
            raise Killed
        return x + torch.randn_like(x)

    with pytest.raises(Killed):
        fit(network(), inputs, targets, parts, **options, change=change)
    assert not parts.exists()
    fit(network(), inputs, targets, parts, **options, change=change)
    assert batches == 9 + 12, "the first epoch was not trained again"
    assert parts.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("name", JOBS)
def test_every_example_opens_as_a_job(name):
    job = load.open_job(str(EXAMPLES / f"{name}.py"))
    assert job.name == name
    assert job.metric
