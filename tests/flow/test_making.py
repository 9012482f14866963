"""Halves, qualities and the findings of a plan that fails, on tiny values."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from haversack import metrics
from haversack.base.plan import LayerPlan, Plan
from haversack.flow.clock import Clock
from haversack.flow.making import CHOOSE, REPORT, Baseline, Maker, is_static, quality_of


@pytest.mark.parametrize("count", [2, 3, 10, 11])
def test_the_halves_are_disjoint_and_together_everything(count):
    rows = np.arange(count)
    assert sorted([*rows[CHOOSE], *rows[REPORT]]) == list(range(count))
    assert len(rows[CHOOSE]) - len(rows[REPORT]) == count % 2


def test_a_quality_is_the_metrics_of_these_rows():
    rows = np.array([[1.0], [0.0], [1.0], [1.0]])
    found = quality_of(metrics.resolve("top1"), rows)
    assert (found.metric, found.value, found.samples) == ("top1", 0.75, 4)
    assert (found.unit, found.direction) == ("fraction", "higher")
    assert found.standard_error == pytest.approx(0.25)


def test_a_quality_of_one_sample_has_no_standard_error():
    found = quality_of(metrics.resolve("top1"), np.array([[1.0]]))
    assert found.value == 1.0
    assert math.isnan(found.standard_error)


def maker(rows):
    """A maker of which only the metric and the baseline are looked at."""
    nothing = dict.fromkeys(
        (
            "model",
            "data",
            "target",
            "floats",
            "device",
            "squeeze",
            "folder",
            "exact_samples",
            "sink",
        )
    )
    return Maker(metric=metrics.resolve("top1"), baseline=Baseline(rows, lambda sample: sample), **nothing)


def test_each_half_is_scored_against_the_same_samples_of_the_float_model():
    floats = np.array([1, 1, 1, 0, 1, 1, 1, 0], float)[:, None]
    artefact = np.array([1, 0, 0, 0, 1, 0, 1, 0], float)[:, None]  # even: 3 of 4 right; odd: none of 2 that were right
    chosen, drop = maker(floats).scored(artefact, CHOOSE)
    assert (chosen.value, chosen.samples) == (0.75, 4)
    assert (drop.value, drop.samples) == (0.25, 4)
    reported, drop = maker(floats).scored(artefact, REPORT)
    assert (reported.value, reported.samples) == (0.0, 4)
    assert drop.value == 0.5
    assert drop.low <= drop.value <= drop.high


def test_nothing_is_lost_by_the_same_answers():
    rows = np.array([1, 0, 1, 1], float)[:, None]
    for half in (CHOOSE, REPORT):
        assert maker(rows).scored(rows, half)[1].value == 0.0


@pytest.mark.parametrize(
    "precisions, static",
    [
        ((), False),
        (("int8",), True),
        (("float16", "int8"), True),
        (("int8_dynamic", "int8_weights"), False),
        (("float16",), False),
    ],
)
def test_a_static_plan_has_a_layer_that_runs_in_integers(precisions, static):
    layers = {f"{index}:linear#0": LayerPlan(name) for index, name in enumerate(precisions)}
    assert is_static(Plan("onnxruntime", layers)) is static


def test_a_clock_adds_up_by_stage_even_when_a_stage_fails(monkeypatch):
    times = iter([0.0, 2.0, 10.0, 13.0, 20.0, 25.0])
    monkeypatch.setattr("haversack.flow.clock.time", SimpleNamespace(monotonic=lambda: next(times)))
    clock = Clock()
    for stage in ("lower", "measure"):
        with clock.of(stage):
            pass
    with pytest.raises(ZeroDivisionError), clock.of("lower"):
        raise ZeroDivisionError
    assert clock.seconds == {"lower": 7.0, "measure": 3.0}
