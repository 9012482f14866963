from __future__ import annotations

import numpy as np
import pytest

from haversack.measure.device import Opening
from haversack.measure.findings import of_outputs, of_speed
from haversack.measure.noise import differ


def compared(ratio, sigma, pairs=60):
    draw = np.random.default_rng(0)
    b = draw.uniform(1, 2, pairs)
    return differ(b * ratio * np.exp(draw.normal(0, sigma, pairs)), b)


def kinds(findings):
    return [finding.kind for finding in findings]


@pytest.mark.parametrize(
    ("ratio", "sigma", "expected"),
    [
        (2.0, 0.05, ["slower-than-float"]),
        (1.1, 0.02, ["slower-than-float"]),
        (0.5, 0.05, []),
        (1.0, 0.01, []),  # as fast, and the measurement can tell
        (1.02, 0.5, ["noisy"]),
        (0.9, 1.0, ["noisy"]),
    ],
)
def test_speed_is_judged_beyond_the_noise_only(ratio, sigma, expected):
    assert kinds(of_speed(compared(ratio, sigma))) == expected


def test_slower_says_how_much_and_how_sure():
    (finding,) = of_speed(compared(2.77, 0.03))
    assert finding.text.startswith("its time against float's is \u00d72.7")
    assert finding.text.count("\u00d7") == 1
    assert "60 pairs" in finding.text
    assert finding.severity == "error"


def test_too_few_pairs_are_noisy():
    assert kinds(of_speed(compared(3.0, 0.01, pairs=4))) == ["noisy"]


def test_equal_finite_outputs_have_no_finding():
    outputs = {"a": np.ones((2, 3), np.float32), "b": np.array([1, 2])}
    assert of_outputs(outputs, {name: array.copy() for name, array in outputs.items()}) == ()


def test_values_that_are_not_finite_are_counted_by_output():
    bad = {"good": np.ones(2), "bad": np.array([1, np.nan, np.inf, 2], np.float32)}
    (finding,) = of_outputs(bad, bad)
    assert finding.kind == "not-finite"
    assert "output bad: 2 of its 4 values" in finding.text


@pytest.mark.parametrize(
    "second",
    [
        {"y": np.array([1.0, np.nextafter(2.0, 3.0)])},  # the last bit
        {"y": np.array([1.0, 2.0, 3.0])},
        {"y": np.array([1.0, 2.0], np.float32)},
        {"z": np.array([1.0, 2.0])},
        {},
    ],
)
def test_two_runs_that_differ_in_anything_are_nondeterministic(second):
    (finding,) = of_outputs({"y": np.array([1.0, 2.0])}, second)
    assert finding.kind == "nondeterministic"
    assert "y" in finding.text


def test_negative_zero_is_another_bit_pattern_and_nan_equals_itself():
    assert kinds(of_outputs({"y": np.array([0.0])}, {"y": np.array([-0.0])})) == ["nondeterministic"]
    assert kinds(of_outputs({"y": np.array([np.nan])}, {"y": np.array([np.nan])})) == ["not-finite"]


def test_a_real_artefact_is_deterministic_and_a_counter_is_not(local_device, onnx_file, planned_file):
    x = {"x": np.ones((4, 16), np.float32)}
    real = local_device.load(Opening(onnx_file()[0], "openers:real"))
    assert of_outputs(local_device.run(real, x), local_device.run(real, x)) == ()
    counter = local_device.load(Opening(planned_file(), "openers:planned"))
    (finding,) = of_outputs(local_device.run(counter, x), local_device.run(counter, x))
    assert finding.text.endswith("differ in calls")
