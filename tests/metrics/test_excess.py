"""What is lost on other inputs beyond what is lost on clean ones: by hand, for every kind of metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.errors import JobError
from haversack.metrics import SHELF, from_callable
from haversack.metrics.contract import Metric


@dataclass(frozen=True)
class Median(Metric):
    """Median of the outputs, lower is better: neither mean nor sums."""

    direction: ClassVar[str] = "lower"

    def _rows(self, output, expected):
        return output

    def _values(self, rows):
        return np.median(rows[..., 0], axis=-1)


def column(*values, times=1):
    return np.repeat(np.array(values, np.float64), times)[:, None]


def right(share, count=400):
    """Return rows of right-or-wrong scores, so many of them right."""
    return (np.arange(count) < share * count).astype(np.float64)[:, None]


def test_top1_by_hand():
    excess = SHELF.build("top1").excess((right(0.9), right(0.88)), (right(0.8), right(0.6)))
    assert excess.value == pytest.approx((0.8 - 0.6) - (0.9 - 0.88))
    assert 0.1 < excess.low < excess.value < excess.high < 0.25
    assert excess.samples == 400


def test_the_same_loss_on_both_is_no_excess():
    excess = SHELF.build("top1").excess((right(0.9), right(0.8)), (right(0.9), right(0.8)))
    assert excess.value == 0
    assert excess.low < 0 < excess.high


def test_few_samples_establish_nothing():
    excess = SHELF.build("top1").excess((right(1, 10), right(1, 10)), (right(1, 10), right(0.7, 10)))
    assert excess.value == pytest.approx(0.3)
    assert excess.low < 0


@given(st.lists(st.tuples(*[st.integers(0, 1)] * 4), min_size=2, max_size=40))
def test_it_is_the_difference_of_the_drops(rows):
    a, b, c, d = (np.array(one, np.float64)[:, None] for one in zip(*rows, strict=True))
    metric = SHELF.build("top1")
    excess = metric.excess((a, b), (c, d))
    assert excess.value == pytest.approx(metric.drop(c, d).value - metric.drop(a, b).value)
    assert -2 <= excess.low <= excess.value <= excess.high <= 2


def test_pairing_takes_out_what_samples_share():
    """Samples differ by hundreds, and each loses 1 more than on clean inputs: the interval is narrow all the same."""
    base = np.random.default_rng(0).normal(0, 100, (50, 1))
    excess = Median().excess((base, base), (base + 1, base + 2))
    assert (excess.value, excess.low, excess.high) == pytest.approx((1, 1, 1))


def test_lower_is_better_turns_the_sign():
    excess = Median().excess((column(1, times=9), column(2, times=9)), (column(1, times=9), column(5, times=9)))
    assert excess.value == pytest.approx(3)


def test_against_float_the_baseline_never_moves_and_the_interval_is_narrower():
    clean, there = (right(1, 50), right(1, 50)), (right(1, 50), right(0.9, 50))
    agreement, top1 = (SHELF.build(name).excess(clean, there) for name in ("agreement", "top1"))
    assert agreement.value == top1.value == pytest.approx(0.1)
    assert top1.low < agreement.low


def whole(outputs, expected):
    return float((outputs[0].argmax(1) == expected).mean())


def kept(share, count=60):
    metric = from_callable(whole)
    labels = np.zeros(count, np.int64)
    scores = np.stack([right(share, count)[:, 0], np.full(count, 0.5)], axis=1)
    return metric, metric.rows((scores,), labels)


def test_a_metric_of_the_whole_set_is_paired_too():
    metric, sound = kept(0.9)
    _, worse = kept(0.6)
    excess = metric.excess((sound, sound), (sound, worse))
    assert excess.value == pytest.approx(0.3)
    assert 0.15 < excess.low < excess.value < excess.high < 0.45


def test_where_it_has_no_value_on_resamples_there_is_no_interval():
    def needs_all(outputs, expected):
        if len(set(expected.tolist())) < 40:
            raise ValueError("a label is missing")
        return float(outputs[0].mean())

    metric = from_callable(needs_all)
    rows = [metric.rows((np.full((40, 1), value),), np.arange(40)) for value in (4.0, 3.0, 4.0, 1.0)]
    excess = metric.excess(tuple(rows[:2]), tuple(rows[2:]))
    assert excess.value == pytest.approx(2)
    assert np.isnan([excess.low, excess.high]).all()


def test_scores_for_one_and_a_float_for_the_other_are_refused():
    metric, rows = kept(0.9)
    with pytest.raises(JobError, match="one float for one model and scores for the other"):
        metric.excess((rows, rows), (rows, right(0.5, 60)))


def test_a_users_scores_are_a_mean():
    metric = from_callable(lambda outputs, expected: outputs[0][:, 0])
    excess = metric.excess((column(1, 1), column(1, 1)), (column(1, 1), column(0, 1)))
    assert excess.value == pytest.approx(0.5)
