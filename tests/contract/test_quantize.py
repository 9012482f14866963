"""What holds for every quantizer on the shelf."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from haversack.base.errors import JobError, UsageError
from haversack.base.profile import TensorStatistics
from haversack.compress.quantize.contract import SHELF, Quantizer, full_scales

PARTS = SHELF.names()
few = settings(max_examples=40)
weights_of_channels = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.sampled_from([1, 4, 9, 18])),
    elements=st.floats(-100, 100, width=32, allow_subnormal=False),
)


def seen(values, bins=512):
    values = np.asarray(values, np.float64)
    low, high = float(values.min()), float(values.max())
    high_edge = high if high > low else low + max(abs(low), 1.0) * 2.0**-20
    counts = np.histogram(values, bins, (low, high_edge))[0].astype(np.int64)
    return TensorStatistics(low, high, counts, low, high_edge, 1)


def test_the_shelf_has_what_the_recipes_name():
    assert {"minmax", "percentile", "mse", "coarse", "power_of_two"} <= set(PARTS)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_a_frozen_record_with_defaults_and_a_catalogue_line(name):
    part = SHELF.build(name)
    assert isinstance(part, Quantizer)
    assert part == SHELF.build(name, {field.name: getattr(part, field.name) for field in fields(part)})
    assert SHELF.catalogue()[name].endswith(".")
    with pytest.raises((FrozenInstanceError, AttributeError)):
        part.other = 1
    with pytest.raises(UsageError):
        SHELF.build(name, {"no_such_setting": 1})


@pytest.mark.parametrize("name", PARTS)
@few
@given(st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=60), st.sampled_from([2, 4, 8]))
def test_a_range_holds_zero_and_stays_within_what_was_seen(name, values, bits):
    part = SHELF.build(name)
    low, high = part.activation_range(seen(values), bits)
    least, most = min(*values, 0.0), max(*values, 0.0)
    assert least <= low <= 0 <= high <= most
    if not part.clips:
        assert (low, high) == (least, most)


@pytest.mark.parametrize("name", PARTS)
@few
@given(weights_of_channels, st.sampled_from([2, 3, 4, 8]))
def test_scales_are_positive_one_a_channel(name, weights, bits):
    scales = SHELF.build(name).weight_scales(weights, bits)
    assert scales.dtype == np.float32
    assert scales.shape == (len(weights),)
    assert (np.isfinite(scales) & (scales > 0)).all()


@pytest.mark.parametrize("name", PARTS)
@few
@given(weights_of_channels, st.integers(-6, 6))
def test_scales_scale_with_the_weights(name, weights, power):
    part = SHELF.build(name)
    factor = np.float32(2.0**power)
    alive = np.abs(weights).max(axis=1) > 1e-3
    both = part.weight_scales(weights)[alive], part.weight_scales(weights * factor)[alive]
    np.testing.assert_allclose(both[1], both[0] * factor, rtol=1e-6)


@pytest.mark.parametrize("name", PARTS)
@few
@given(weights_of_channels)
def test_a_channels_scale_depends_on_that_channel_alone(name, weights):
    part = SHELF.build(name)
    alone = np.concatenate([part.weight_scales(row[None]) for row in weights])
    alive = np.abs(weights).max(axis=1) > 1e-30
    np.testing.assert_array_equal(part.weight_scales(weights)[alive], alone[alive])


@pytest.mark.parametrize("name", PARTS)
def test_channels_of_zeros_get_the_finest_scale_of_the_others(name):
    part = SHELF.build(name)
    weights = np.array([[0, 0, 0], [1, 2, 3], [0, 0, 0], [10, 20, 30]], np.float32)
    scales = part.weight_scales(weights)
    assert scales[0] == scales[2] == scales[1] < scales[3]
    np.testing.assert_array_equal(part.weight_scales(np.zeros((2, 3), np.float32)), [1, 1])


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(name, bad):
    part = SHELF.build(name)
    with pytest.raises(JobError, match="NaN or an infinity"):
        part.weight_scales(np.array([[1.0, bad]], np.float32))
    with pytest.raises(JobError, match="NaN or an infinity"):
        part.activation_range(TensorStatistics(0.0, bad, np.ones(4, np.int64), 0.0, 1.0, 1))


@pytest.mark.parametrize("name", PARTS)
def test_a_constant_and_a_zero_activation(name):
    part = SHELF.build(name)
    assert part.activation_range(seen([0.0, 0.0])) == (0.0, 0.0)
    low, high = part.activation_range(seen([3.0] * 5))
    assert low == 0.0
    assert high == pytest.approx(3.0, rel=0.01)


@pytest.mark.parametrize("name", PARTS)
@few
@given(weights_of_channels, st.sampled_from([2, 4, 8]))
def test_a_part_that_shifts_gives_powers_of_two(name, weights, bits):
    part = SHELF.build(name)
    assert part.shifts == (name == "power_of_two")
    if part.shifts:
        assert (np.frexp(part.weight_scales(weights, bits))[0] == 0.5).all()


@dataclass(frozen=True)
class _Greedy(Quantizer):
    """A planted fault: it covers more than was seen, and gives a scale of 0."""

    def _activation(self, statistics, bits):
        return statistics.minimum - 1, statistics.maximum

    def _weights(self, weights, bits, taps):
        return np.zeros(len(weights), np.float32)


@dataclass(frozen=True)
class _Clipper(_Greedy):
    """A planted fault: it says that it does not clip."""

    def _activation(self, statistics, bits):
        return statistics.minimum / 2, statistics.maximum

    def _weights(self, weights, bits, taps):
        return full_scales(weights, bits)


@dataclass(frozen=True)
class _Shifty(Quantizer):
    """A planted fault: it says that it shifts, and does not."""

    shifts = True

    def _activation(self, statistics, bits):
        return statistics.minimum, statistics.maximum

    def _weights(self, weights, bits, taps):
        return full_scales(weights, bits)


def test_the_contract_catches_a_bad_part():
    with pytest.raises(AssertionError, match="no power of two"):
        _Shifty().weight_scales(np.ones((2, 2), np.float32))
    with pytest.raises(AssertionError, match="leaves the values seen"):
        _Greedy().activation_range(seen([-1.0, 1.0]))
    with pytest.raises(AssertionError, match="gives a scale that is none"):
        _Greedy().weight_scales(np.ones((2, 2), np.float32))
    with pytest.raises(AssertionError, match="says that it does not clip"):
        _Clipper().activation_range(seen([-1.0, 1.0]))
    assert _Clipper().weight_scales(np.ones((1, 2), np.float32))[0] == np.float32(1 / 127)
