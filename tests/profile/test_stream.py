"""What is streamed against the whole: histograms, and the quantizers that read them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.compress.quantize.minmax import MinMax
from haversack.compress.quantize.mse import MeanSquaredError
from haversack.compress.quantize.percentile import Percentile
from haversack.profile.ranges import BINS, COUNTED, Histogram

eighths = st.integers(-800, 800).map(lambda n: n / 8)
streams = st.lists(st.lists(eighths, min_size=1, max_size=30), min_size=1, max_size=6)


def streamed(batches):
    histogram = Histogram()
    for batch in batches:
        histogram.add(torch.tensor(batch, dtype=torch.float32))
    return histogram.statistics(len(batches))


@given(streams)
def test_every_bin_holds_what_numpy_counts_between_its_edges(batches):
    found = streamed(batches)
    values = np.concatenate([np.float64(batch) for batch in batches])
    edges = np.linspace(found.low, found.high, BINS + 1)
    width = (found.high - found.low) / BINS
    # A value on an edge may be rounded to either side of it: all others lie where NumPy says.
    clear = np.abs(values[:, None] - edges[None]).min(axis=1) > 1e-6 * width
    whole, _ = np.histogram(values, edges)
    off = np.abs(found.counts - whole).sum()
    assert off <= 2 * np.count_nonzero(~clear)
    assert found.counts.sum() == values.size


@given(streams, st.randoms(use_true_random=False))
def test_the_order_of_the_batches_moves_no_value_by_more_than_a_bin(batches, random):
    first = streamed(batches)
    mixed = list(batches)
    random.shuffle(mixed)
    second = streamed(mixed)
    assert (first.minimum, first.maximum) == (second.minimum, second.maximum)
    centers = []
    for found in (first, second):
        width = (found.high - found.low) / BINS
        centers.append(np.repeat(found.low + width * (np.arange(BINS) + 0.5), found.counts))
    widths = [(found.high - found.low) / BINS for found in (first, second)]
    assert np.abs(centers[0] - centers[1]).max() <= sum(widths) / 2 * 1.001


@given(streams, st.integers(-12, 12))
def test_values_times_a_power_of_two_have_the_same_counts(batches, power):
    # The span of a single value has a floor of its own, which does not scale: two values are there from the first on.
    batches = [[-1.0, 1.0], *batches]
    factor = 2.0**power
    plain, scaled = streamed(batches), streamed([[value * factor for value in batch] for batch in batches])
    np.testing.assert_array_equal(plain.counts, scaled.counts)
    assert (scaled.low, scaled.high) == (plain.low * factor, plain.high * factor)


@settings(max_examples=30)
@given(st.integers(1, 5), st.integers(1, 3))
def test_of_a_long_batch_the_part_that_is_counted_moves_on_with_every_call(calls, times):
    # 0 1 2 … again and again: a part at a fixed place would see one of these values only.
    stride = 2 * times + 1
    values = torch.arange(COUNTED * (stride - 1) + 1) % stride
    histogram = Histogram()
    for _ in range(calls):
        histogram.add(values)
    found = histogram.statistics(calls)
    seen = np.unique(np.floor(np.nonzero(found.counts)[0] * (found.high - found.low) / BINS + found.low + 0.5))
    assert len(seen) == min(calls, stride)
    assert (found.minimum, found.maximum) == (0, stride - 1)


def test_counts_of_what_grew_by_ten_orders_of_magnitude_are_still_all_there():
    batches = [[10.0**power, -(10.0**power)] for power in range(-5, 6)]
    found = streamed(batches)
    assert found.counts.sum() == 22
    assert found.low <= -1e5
    assert found.high >= 1e5
    # The bin of zero goes from -18 to 150: what lies outside of it stands alone.
    assert np.sort(found.counts)[-9:].tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 15]


# ---- the quantizers on what was streamed ----------------------------------------------------------------------------


@given(streams)
def test_minmax_does_not_depend_on_how_values_came(batches):
    values = np.concatenate([np.float64(batch) for batch in batches])
    low, high = MinMax().activation_range(streamed(batches))
    assert (low, high) == (min(values.min(), 0.0), max(values.max(), 0.0))
    assert MinMax().activation_range(streamed([values.tolist()])) == (low, high)


@settings(max_examples=60)
@given(streams, st.sampled_from([80.0, 95.0, 99.0, 100.0]))
def test_a_percentile_leaves_out_no_more_than_its_share_and_would_with_one_more_bin(batches, percentile):
    batches = [[-1.0, 1.0], *batches]
    found = streamed(batches)
    values = np.concatenate([np.float64(batch) for batch in batches])
    low, high = Percentile(percentile).activation_range(found)
    spare = int(values.size * (100 - percentile) / 100)
    width = (found.high - found.low) / BINS
    assert np.count_nonzero(values < low - width / 1e3) <= spare
    assert np.count_nonzero(values > high + width / 1e3) <= spare
    if low < 0:
        assert np.count_nonzero(values < low + 1.01 * width) > spare
    if high > 0:
        assert np.count_nonzero(values > high - 1.01 * width) > spare


@settings(max_examples=40)
@given(streams, st.sampled_from([Percentile(90.0), MeanSquaredError(ratios=9), MinMax()]), st.sampled_from([4, 8]))
def test_the_range_of_mirrored_values_is_the_mirrored_range(batches, part, bits):
    batches = [[-1.0, 1.0], *batches]
    plain = part.activation_range(streamed(batches), bits)
    mirrored = part.activation_range(streamed([[-value for value in batch] for batch in batches]), bits)
    width = 2 * max(abs(plain[0]), abs(plain[1]), 1.0) / BINS
    if isinstance(part, MeanSquaredError):  # two ranges may cost the same but for rounding: then either is best
        width += max(abs(plain[0]), abs(plain[1])) * 0.6 / 8
    assert -mirrored[1] == pytest.approx(plain[0], abs=8 * width)
    assert -mirrored[0] == pytest.approx(plain[1], abs=8 * width)


@settings(max_examples=40)
@given(streams, st.integers(-6, 6), st.sampled_from([Percentile(90.0), MeanSquaredError(ratios=9), MinMax()]))
def test_a_range_scales_with_its_values(batches, power, part):
    batches = [[-1.0, 1.0], *batches]
    factor = 2.0**power
    low, high = part.activation_range(streamed(batches))
    scaled = part.activation_range(streamed([[value * factor for value in batch] for batch in batches]))
    assert scaled == (low * factor, high * factor)
