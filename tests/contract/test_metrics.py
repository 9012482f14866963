"""One suite over every metric on the shelf: what ``metrics/contract.py`` promises, each part keeps."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from haversack import metrics
from haversack.base.errors import JobError, UsageError

NAMES = metrics.SHELF.names()


def batch(part, samples, seed=0):
    """Return outputs and expected values that fit the part, from what its class says it takes."""
    draw = np.random.default_rng(seed)
    if part.ranks == (3,):
        return (draw.normal(size=(samples, 4, 7)).astype(np.float32),), draw.integers(0, 7, (samples, 4))
    if part.kind == "integer":
        return (draw.normal(size=(samples, 5)).astype(np.float32),), draw.integers(0, 5, samples)
    if 1 in part.ranks:
        scores = draw.normal(size=samples).astype(np.float32)
        return (scores,), scores + draw.normal(size=samples).astype(np.float32)
    wanted = draw.normal(size=(samples, 5)).astype(np.float32)
    return (wanted + draw.normal(size=wanted.shape).astype(np.float32) / 2,), wanted


@pytest.fixture(params=NAMES)
def part(request):
    return metrics.SHELF.build(request.param)


def test_the_shelf_has_the_metrics_of_the_design():
    assert {"top1", "agreement", "relative_error", "spearman", "perplexity", "kl"} <= set(NAMES)
    assert "custom" not in NAMES


def test_is_a_frozen_dataclass_with_a_name_and_a_catalogue_line(part):
    assert part.__dataclass_params__.frozen
    assert metrics.SHELF.catalogue()[part.name].endswith(".")
    assert metrics.SHELF.type_of(part.name) is type(part)


def test_says_what_it_is(part):
    assert part.direction in ("higher", "lower")
    assert part.against in ("expected", "float")
    assert part.unit
    assert part.span >= 0


def test_refuses_unknown_settings_and_values_of_the_wrong_type(part):
    with pytest.raises(UsageError, match="outptu: unknown name; did you mean output"):
        metrics.SHELF.build(part.name, {"outptu": 1})
    with pytest.raises(UsageError, match="output"):
        metrics.SHELF.build(part.name, {"output": "first"})


def test_batches_of_any_size_give_the_value_of_one_batch(part):
    outputs, expected = batch(part, 24)
    whole, pieces = part.start(), part.start()
    whole.update(outputs, expected)
    for start, stop in ((0, 1), (1, 8), (8, 24)):
        pieces.update((outputs[0][start:stop],), expected[start:stop])
    assert pieces.samples == whole.samples == 24
    assert pieces.value() == whole.value()
    assert pieces.standard_error() == whole.standard_error()
    assert part(outputs, expected) == whole.value()


def test_is_deterministic_and_leaves_its_arguments_alone(part):
    outputs, expected = batch(part, 16)
    copies = outputs[0].copy(), expected.copy()
    first, second = part.start(), part.start()
    first.update(outputs, expected)
    second.update(outputs, expected)
    assert first.quality() == second.quality()
    assert np.array_equal(outputs[0], copies[0])
    assert np.array_equal(expected, copies[1])


def test_quality_is_finite_and_names_the_metric(part):
    state = part.start()
    state.update(*batch(part, 32))
    quality = state.quality()
    assert (quality.metric, quality.unit, quality.direction) == (part.name, part.unit, part.direction)
    assert quality.samples == 32
    assert math.isfinite(quality.value)
    assert quality.standard_error > 0


def test_standard_error_shrinks_with_the_root_of_the_samples(part):
    small, large = part.start(), part.start()
    small.update(*batch(part, 50))
    large.update(*batch(part, 800, seed=1))
    assert 2 < small.standard_error() / large.standard_error() < 8


def test_one_sample_has_no_standard_error(part):
    state = part.start()
    state.update(*batch(part, 1))
    assert math.isnan(state.standard_error())


def test_an_empty_state_is_refused(part):
    with pytest.raises(JobError, match=f"metric {part.name} was given no samples"):
        part.start().value()


def test_a_drop_against_itself_is_zero_and_against_worse_is_positive(part):
    outputs, expected = batch(part, 64)
    good, same, bad = part.start(), part.start(), part.start()
    good.update(outputs, expected)
    same.update(outputs, expected)
    noise = 3 * np.random.default_rng(5).normal(size=outputs[0].shape).astype(np.float32)
    best = outputs if part.against == "expected" else (expected,)
    bad.update((best[0] + noise,), expected)
    assert good.drop(same).value == 0.0
    assert good.drop(same).low <= 0 <= good.drop(same).high
    drop = good.drop(bad)
    sign = 1 if part.direction == "higher" else -1
    assert drop.value == pytest.approx(sign * (good.value() - bad.value()))
    assert drop.low <= drop.value <= drop.high
    assert drop.samples == 64


def test_drops_of_other_samples_are_refused(part):
    first, second = part.start(), part.start()
    first.update(*batch(part, 8))
    second.update(*batch(part, 9))
    with pytest.raises(ValueError, match="not of the same samples"):
        first.drop(second)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_the_outputs_names_the_metric_the_output_and_its_shape(part, value):
    (output,), expected = batch(part, 8)
    output.reshape(-1)[3] = value
    state = part.start(names=("logits",))
    with pytest.raises(JobError) as caught:
        state.update((output,), expected)
    text = str(caught.value)
    assert f"metric {part.name}" in text
    assert "logits: 1 of its" in text
    assert str(output.shape) in text
    assert state.samples == 0


def test_lengths_that_differ_are_refused(part):
    (output,), expected = batch(part, 8)
    with pytest.raises(JobError, match="8 rows for 7 expected values"):
        part.start().update((output,), expected[:7])


def test_an_empty_batch_is_refused(part):
    (output,), expected = batch(part, 8)
    with pytest.raises(JobError, match="0 rows for 0 expected values"):
        part.start().update((output[:0],), expected[:0])


def test_every_fault_of_a_batch_is_told_at_once(part):
    (output,), expected = batch(part, 8)
    with pytest.raises(JobError) as caught:
        part.start().update((output.astype(np.int32),), expected[:7].astype("U3"))
    causes = " | ".join(str(fault) for fault in caught.value.faults)
    assert "no floating point type" in causes
    assert "8 rows for 7" in causes
    assert "dtype <U3" in causes


@pytest.mark.parametrize("outputs", [[np.zeros((2, 3))], np.zeros((2, 3)), ([0.0, 1.0],)])
def test_outputs_that_are_no_tuple_of_arrays_are_refused(part, outputs):
    with pytest.raises(JobError, match="tuple of NumPy arrays"):
        part.start().update(outputs, np.zeros(2, np.int64))


@pytest.mark.parametrize("expected", [[1, 2], None, np.float64(1)])
def test_expected_values_that_are_no_array_are_refused(part, expected):
    outputs, _ = batch(part, 2)
    with pytest.raises(JobError, match="not a NumPy array, batch first"):
        part.start().update(outputs, expected)


def test_a_missing_output_is_refused(part):
    chosen = dataclasses.replace(part, output=3)
    with pytest.raises(JobError, match="output 3 is scored, but the model has 1"):
        chosen.start().update(*batch(part, 4))


def test_another_output_can_be_scored(part):
    (output,), expected = batch(part, 12)
    chosen = dataclasses.replace(part, output=1)
    assert chosen((np.zeros(3), output), expected) == part((output,), expected)


def test_settings_make_another_digest(part):
    assert part.digest == metrics.SHELF.build(part.name).digest
    assert part.digest != dataclasses.replace(part, output=1).digest
