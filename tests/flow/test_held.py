"""Rows held back from calibration: nothing that fits sees them, and what judges sees nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from haversack import metrics
from haversack.base.graph import TensorSpec
from haversack.base.job import Job
from haversack.base.model import Port
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.base.progress import silent
from haversack.compress.prepare import equalize, stages
from haversack.flow import data as data_module
from haversack.flow import profiling
from haversack.flow import race as racing
from haversack.flow import steps as stepping
from haversack.flow.data import Data
from haversack.flow.race import race
from haversack.flow.steps import Steps
from haversack.flow.workshop import Workshop
from haversack.measure.local import LocalDevice
from haversack.targets.contract import SHELF as TARGETS
from haversack.tools.data.stock import DIVIDED, HELD

WIDTH = 6


def numbers(samples):
    """Return the numbers of rows, which their first values are."""
    return [round(float(value) * 100) for sample in samples for value in sample[0].reshape(len(sample[0]), -1)[:, 0]]


def job(rows, batch=32, scored=8):
    values = np.random.default_rng(0).normal(size=(rows, WIDTH)).astype(np.float32)
    values[:, 0] = np.arange(rows) / 100

    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, 5)).eval()

    return Job(
        name="held",
        source="job.py",
        model=model,
        calibration=lambda: ((values[start : start + batch],) for start in range(0, rows, batch)),
        evaluation=lambda: iter([((np.ones((scored, WIDTH), np.float32),), np.zeros(scored, np.int64))]),
        metric="top1",
    )


def data(rows, batch=32, *, fixed=False, scored=8):
    port = Port("x", TensorSpec((batch if fixed else "batch", WIDTH), "float32"))
    return Data(job(rows, batch, scored), (port,), metrics.resolve("top1"))


@pytest.mark.parametrize("rows, batch", [(DIVIDED, 32), (DIVIDED, 1), (100, 7), (1000, 1000)])
def test_rows_are_held_back_evenly_and_calibrate_nothing(rows, batch):
    found = data(rows, batch)
    held, left = numbers(found.held()), numbers(found.calibration())
    assert held == [(2 * index + 1) * rows // (2 * HELD) for index in range(HELD)]
    assert left == [row for row in range(rows) if row not in held]
    assert found.counts() == (rows - HELD, 8)
    assert numbers(found.whole()) == list(range(rows))
    assert not found.shared


@pytest.mark.parametrize("rows", [1, 15, DIVIDED - 1])
def test_too_few_serve_both(rows):
    found = data(rows)
    assert found.shared
    assert numbers(found.held()) == numbers(found.calibration()) == list(range(rows))
    assert found.counts() == (rows, 8)


@pytest.mark.parametrize(
    "batch, samples, held", [(16, 5, 1), (16, 4, 0), (4, 20, 4), (1, 79, 0), (64, 5, 1), (64, 4, 0)]
)
def test_batches_that_cannot_be_cut_are_held_back_whole(batch, samples, held):
    found = data(batch * samples, batch, fixed=True)
    assert found.shared == (held == 0)
    if held:
        assert [len(sample[0]) for sample in found.held()] == [batch] * held
        assert len(numbers(found.calibration())) == batch * (samples - held)
        assert not set(numbers(found.held())) & set(numbers(found.calibration()))


def test_streamed_data_are_divided_alike(monkeypatch):
    near = data(200)
    monkeypatch.setattr(data_module, "KEPT_BYTES", 0)
    far = data(200)
    assert near.digest() == far.digest()
    for ours, theirs in ((near.calibration, far.calibration), (near.held, far.held)):
        for one, other in zip(ours(), theirs(), strict=True):
            np.testing.assert_array_equal(one[0], other[0])
    assert far.kept_calibration() is None


def test_what_travels_is_what_calibrates():
    found = data(100)
    kept = found.kept_calibration()
    assert kept is not None
    assert numbers(kept) == numbers(found.calibration())


def test_another_model_that_cannot_cut_batches_divides_anew():
    found = data(100, 20, scored=20)
    assert found.counts() == (84, 20)
    other = found.beside(found.job)
    other.expect((Port("x", TensorSpec((20, WIDTH), "float32")),))
    assert other.counts() == (80, 20)
    assert len(numbers(other.held())) == 20
    assert found.counts() == (84, 20)


@pytest.fixture
def begin(tmp_path):
    with Workshop(tmp_path / "out", "job", silent) as shop, LocalDevice() as device:
        target, metric = {"onnxruntime": TARGETS.build("onnxruntime")}, metrics.resolve("top1")
        yield lambda rows: Steps(shop, job(rows), Data(job(rows), None, metric), metric, target, device)


@pytest.fixture
def given(monkeypatch):
    """Return stage -> the numbers of all rows that it was given."""
    found: dict[str, set[int]] = {}

    def note(stage, samples):
        for sample in samples:
            found.setdefault(stage, set()).update(numbers([sample]))
            yield sample

    plain, tried, simulated = stepping.ranges, profiling.sensitivity, racing.rebatch
    monkeypatch.setattr(stepping, "ranges", lambda model, rows, sink: plain(model, note("ranges", rows), sink))
    monkeypatch.setattr(
        profiling,
        "sensitivity",
        lambda model, made, held, sink, **settings: tried(model, made, note("sensitivity", held), sink, **settings),
    )
    monkeypatch.setattr(racing, "rebatch", lambda model, rows, size: simulated(model, note("race", rows), size))
    for module, stage in ((stages, "rounding"), (equalize, "equalize")):
        inner = module.rebatch
        monkeypatch.setattr(
            module,
            "rebatch",
            lambda model, rows, size, inner=inner, stage=stage: inner(model, note(stage, rows), size),
        )
    return found


def run(steps):
    """Take the profile, hold a race, and round."""
    layers = {node.key: LayerPlan("int8") for node in steps.model.graph.nodes if node.weight}
    names = ("fold_norm", "equalize", "gptq", "bias_correct")
    plans = [
        Plan("onnxruntime", layers, tuple(map(Step, names)), Step(part), ("onnxruntime",), part)
        for part in ("mse", "minmax")
    ]
    assert steps.profile.sensitivity
    raced = race(steps, plans)
    steps.squeeze(raced.order[0])
    return raced


def test_no_stage_that_fits_is_given_a_row_that_judges(begin, given):
    steps = begin(200)
    assert run(steps).rows == HELD
    held, left = set(numbers(steps.data.held())), set(numbers(steps.data.calibration()))
    assert set(given) == {"ranges", "rounding", "equalize", "sensitivity", "race"}
    assert given["race"] == held
    assert given["sensitivity"] == held
    assert given["ranges"] == left
    assert given["rounding"] < left
    assert given["equalize"] < left
    assert not held & left


def test_with_few_rows_all_judge_and_fit_and_that_is_told(begin, given, monkeypatch):
    steps, told = begin(DIVIDED - 1), []
    monkeypatch.setattr(steps.shop, "tell", told.append)
    run(steps)
    assert given["ranges"] == set(range(DIVIDED - 1))
    assert given["race"] < given["ranges"]
    assert [one.text for one in told if one.kind == "note" and one.stage == "profile"] == [profiling.SHARED]
