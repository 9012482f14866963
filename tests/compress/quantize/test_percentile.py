from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.profile import TensorStatistics
from haversack.compress.quantize.contract import full_scales
from haversack.compress.quantize.minmax import MinMax
from haversack.compress.quantize.percentile import Percentile


def flat(low, high, bins=100, each=100):
    return TensorStatistics(low, high, np.full(bins, each, np.int64), low, high, 1)


@pytest.mark.parametrize("percentile, want", [(99.0, (-0.98, 0.98)), (90.0, (-0.8, 0.8)), (100.0, (-1.0, 1.0))])
def test_both_ends_give_up_their_share(percentile, want):
    assert Percentile(percentile).activation_range(flat(-1.0, 1.0)) == pytest.approx(want)


def test_a_one_sided_activation_keeps_its_zero():
    assert Percentile(99.0).activation_range(flat(0.0, 6.0)) == pytest.approx((0.0, 5.94))
    assert Percentile(99.0).activation_range(flat(-6.0, -1.0)) == pytest.approx((-5.95, 0.0))
    assert Percentile(99.0).activation_range(flat(2.0, 4.0)) == pytest.approx((0.0, 3.98))


@given(st.lists(st.integers(0, 50), min_size=4, max_size=40).filter(any), st.floats(50.5, 100.0))
def test_no_more_than_its_share_saturates(counts, percentile):
    counts = np.array(counts, np.int64)
    statistics = TensorStatistics(-1.0, 3.0, counts, -1.0, 3.0, 1)
    low, high = Percentile(percentile).activation_range(statistics)
    edges = np.linspace(-1.0, 3.0, len(counts) + 1)
    spare = counts.sum() * (100 - percentile) / 100
    assert counts[edges[1:] <= low + 1e-9].sum() <= (spare + 1e-6 if low < 0 else counts.sum())
    assert counts[edges[:-1] >= high - 1e-9].sum() <= spare + 1e-6


def test_weights_clip_by_channel_and_never_to_nothing():
    weights = np.array([[0.0] * 9 + [5.0], np.arange(10.0)], np.float32)
    scales = Percentile(weights=80.0).weight_scales(weights)
    assert scales[0] == pytest.approx(5 / 127)
    assert scales[1] == pytest.approx(np.percentile(np.arange(10), 80) / 127)
    np.testing.assert_array_equal(Percentile().weight_scales(weights), full_scales(weights, 8))
    np.testing.assert_array_equal(MinMax().weight_scales(weights), full_scales(weights, 8))


@pytest.mark.parametrize("settings", [{"percentile": 50.0}, {"percentile": 100.1}, {"weights": 0.0}])
def test_settings_that_mean_nothing(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Percentile(**settings)
