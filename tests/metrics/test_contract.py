"""The contract itself: what an author's inner method may get wrong is told, and what the state computes from rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from haversack.base.errors import Fault, JobError
from haversack.base.quality import Quality
from haversack.metrics.contract import Kind, MeanMetric, Metric, State, SumMetric


@dataclass(frozen=True)
class Error(MeanMetric):
    """Mean absolute error, as a third party would write it."""

    unit: ClassVar[str] = "metres"
    direction: ClassVar[str] = "lower"

    def _scores(self, output, expected):
        return np.abs(output[:, 0] - expected)


@dataclass(frozen=True)
class Ratio(SumMetric):
    """Sum of outputs over sum of expected values."""

    def _rows(self, output, expected):
        return np.stack([output[:, 0], expected], axis=1)

    def _of_sums(self, sums):
        return sums[..., 0] / sums[..., 1]


@dataclass(frozen=True)
class Median(Metric):
    """Median of the outputs: neither mean nor sums."""

    def _rows(self, output, expected):
        return output

    def _values(self, rows):
        return np.median(rows[..., 0], axis=-1)


@dataclass(frozen=True)
class Planted(Median):
    """Gives whatever rows the test wants."""

    given: object = None

    def _rows(self, output, expected):
        return self.given


@dataclass(frozen=True)
class Choosy(MeanMetric):
    """Takes labels, three dimensions, and no label 7."""

    kind: ClassVar[Kind] = "integer"
    ranks: ClassVar[tuple[int, ...]] = (3,)

    def _faults(self, output, expected) -> Sequence[Fault]:
        return [Fault("expected", "seven is not allowed")] if (expected == 7).any() else []

    def _scores(self, output, expected):
        return output[:, 0, 0]


COLUMN = hnp.arrays(np.float64, st.tuples(st.integers(2, 25), st.just(1)), elements=st.floats(1, 50))


def filled(metric, output, expected=None):
    state = metric.start()
    state.update((np.asarray(output, np.float64),), np.zeros(len(output)) if expected is None else np.asarray(expected))
    return state


def test_an_author_writes_one_method():
    state = filled(Error(), [[1.0], [2.0], [6.0]], [1.0, 1.0, 1.0])
    assert state.value() == 2
    assert state.scores().tolist() == [0, 1, 5]
    expected = Quality("test_contract", 2.0, "metres", "lower", 3, np.std([0, 1, 5], ddof=1) / math.sqrt(3))
    quality = state.quality()
    assert (quality.value, quality.unit, quality.direction, quality.samples) == (2.0, "metres", "lower", 3)
    assert quality.standard_error == pytest.approx(expected.standard_error)


def test_a_metric_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Error().output = 3


def test_the_name_is_the_files():
    assert Error().name.endswith("test_contract")


@given(COLUMN)
def test_sums_over_batches_are_sums_over_all(column):
    wanted = np.arange(1.0, 1 + len(column))
    state = filled(Ratio(), column, wanted)
    assert state.value() == pytest.approx(column.sum() / wanted.sum())
    assert state.scores() is None


@given(COLUMN)
def test_the_jackknife_of_a_ratio_leaves_each_sample_out_once(column):
    wanted = np.arange(1.0, 1 + len(column))
    left = [np.delete(column[:, 0], i).sum() / np.delete(wanted, i).sum() for i in range(len(column))]
    n = len(column)
    truth = math.sqrt((n - 1) / n * np.square(left - np.mean(left)).sum())
    assert filled(Ratio(), column, wanted).standard_error() == pytest.approx(truth, rel=1e-6, abs=1e-9)


def test_any_function_of_rows_has_a_bootstrapped_error():
    column = np.random.default_rng(0).normal(size=(400, 1))
    state = filled(Median(), column)
    assert state.value() == np.median(column)
    assert state.standard_error() == pytest.approx(math.sqrt(math.pi / 2 / 400), rel=0.25)


def test_the_drop_of_any_function_of_rows():
    column = np.random.default_rng(0).normal(size=(60, 1))
    drop = filled(Median(), column).drop(filled(Median(), column - 2))
    assert drop.value == pytest.approx(2)
    assert drop.low == pytest.approx(2)
    assert drop.high == pytest.approx(2)


@pytest.mark.parametrize(
    "rows, words",
    [
        (np.zeros((2, 1)), r"gave rows \(2, 1\) for 3 samples"),
        (np.zeros(3), r"gave rows \(3,\) for 3 samples"),
        (np.zeros((3, 1, 1)), r"gave rows \(3, 1, 1\)"),
        (np.array([[0.0], [np.nan], [0.0]]), "returned NaN or an infinity for sample 1 of a batch"),
        (np.array([[0.0], [0.0], [np.inf]]), "returned NaN or an infinity for sample 2 of a batch"),
    ],
)
def test_rows_that_an_author_gets_wrong_are_told(rows, words):
    with pytest.raises(JobError, match=words):
        filled(Planted(given=rows), np.zeros((3, 1)))


def test_a_value_that_is_not_finite_is_told_with_the_number_of_samples():
    state = filled(Ratio(), [[1.0], [2.0]], [0.0, 0.0])
    with pytest.raises(JobError, match="returned inf") as caught:
        state.value()
    assert caught.value.tried == "it was computed over 2 samples"
    assert caught.value.exit_code == 2


def test_a_parts_own_checks_come_after_the_interfaces():
    good = np.zeros((2, 1, 1))
    with pytest.raises(JobError, match="seven is not allowed"):
        Choosy()((good,), np.array([7, 1]))
    with pytest.raises(JobError) as caught:
        Choosy()((np.zeros((2, 1)),), np.array([7.0, 1.0]))
    causes = [fault.cause for fault in caught.value.faults]
    assert len(causes) == 2
    assert "takes 3 dimensions" in causes[1]
    assert "takes integer values" in causes[0]


def test_a_failed_batch_leaves_the_state_as_it_was():
    state = filled(Error(), [[1.0]], [0.0])
    with pytest.raises(JobError):
        state.update((np.array([[np.nan]]),), np.array([0.0]))
    assert state.samples == 1
    assert state.value() == 1


def test_names_stand_in_errors_and_numbers_where_there_is_none():
    for names, label in ((("logits",), "logits"), ((), "output 0")):
        with pytest.raises(JobError, match=f"{label}: 1 row for 2"):
            Error().start(names).update((np.zeros((1, 1)),), np.zeros(2))


def test_a_number_without_a_batch_is_refused():
    with pytest.raises(JobError, match="0 rows for 1 expected value"):
        Error()((np.array(1.0),), np.zeros(1))


def test_integers_are_real_expected_values_and_booleans_are_not():
    assert Error()((np.array([[1.0]]),), np.array([3])) == 2
    with pytest.raises(JobError, match="dtype bool, but .* takes real values"):
        Error()((np.array([[1.0]]),), np.array([True]))


def test_rows_are_the_same_however_often_they_are_asked_for():
    state = filled(Error(), [[1.0], [2.0]], [0.0, 0.0])
    state.update((np.array([[3.0]]),), np.array([0.0]))
    first = state.rows()
    assert first.tolist() == [[1], [2], [3]]
    assert state.rows() is first
    state.update((np.array([[4.0]]),), np.array([0.0]))
    assert state.rows().tolist() == [[1], [2], [3], [4]]


def test_states_of_other_settings_are_not_compared():
    first, second = filled(Error(), [[1.0]]), State(Error(output=1))
    second.update((np.zeros(1), np.array([[1.0]])), np.zeros(1))
    with pytest.raises(ValueError, match="not of the same samples"):
        first.drop(second)


def test_only_rows_are_kept():
    state = Error().start()
    for _ in range(50):
        state.update((np.zeros((4, 10_000)),), np.zeros(4))
    assert state.samples == 200
    assert state.rows().nbytes == 200 * 8
