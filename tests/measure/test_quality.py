from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.errors import EXIT_VERIFICATION, JobError
from haversack.measure.device import Opening
from haversack.measure.quality import NotFinite, score
from haversack.metrics.agreement import Agreement
from haversack.metrics.custom import from_callable
from haversack.metrics.top1 import Top1


def batches(sizes, group=1):
    """Evaluation sets whose sample n has the inputs n (group rows of it) and the expected value n."""
    start = 0
    for size in sizes:
        numbers = np.arange(start, start + size)
        rows = np.repeat(numbers, group).astype(np.float32)
        yield (rows[:, None], rows[:, None, None] * 2), numbers
        start += size


def identity(sample):
    return (sample[0],)


def one_hot(sample):
    return (np.eye(10, dtype=np.float32)[sample[0][:, 0].astype(int) % 10],)


sizes = st.lists(st.integers(0, 7), max_size=8)


@given(sizes, st.integers(1, 3))
def test_every_sample_counts_once_in_order_with_all_its_rows(sizes, group):
    seen = []

    def predict(sample):
        rows, double = (array.reshape(len(array), -1)[:, 0] for array in sample)
        assert (double == 2 * rows).all()
        seen.extend(rows.tolist())
        return (sample[0],)

    def first_rows(outputs, expected):
        return (outputs[0][::group, 0] == expected).astype(float)

    evaluation = [pair for pair in batches(sizes, group) if len(pair[1])]
    if evaluation:
        state = score(predict, evaluation, from_callable(first_rows, group=group))
        assert state.samples == sum(sizes)
        assert state.scores().tolist() == [1.0] * sum(sizes)
    assert seen == np.repeat(np.arange(sum(sizes)), group).tolist()


@pytest.mark.parametrize(
    "inputs", [(np.zeros((3, 1)),), (np.zeros((2, 1)), np.zeros((4, 1))), (np.float32(1) * np.ones(()),)]
)
def test_inputs_that_do_not_belong_to_their_expected_values_are_told(inputs):
    evaluation = [((np.zeros((2, 1)),), np.zeros(2, np.int64)), (inputs, np.zeros(2, np.int64))]
    with pytest.raises(JobError, match="do not belong to 2 expected values") as caught:
        score(lambda sample: (np.zeros((2, 3)),), evaluation, Top1())
    assert "after sample 2" in caught.value.where


def test_a_score_is_the_metric_s_with_its_samples_and_error():
    labels = np.arange(100) % 10
    labels[:20] = (labels[:20] + 1) % 10  # these are wrong
    evaluation = [((np.arange(n, n + 25, dtype=np.float32)[:, None],), labels[n : n + 25]) for n in (0, 25, 50, 75)]
    state = score(one_hot, evaluation, Top1())
    quality = state.quality()
    assert quality.value == pytest.approx(0.8)
    assert quality.samples == 100
    assert quality.standard_error == pytest.approx(np.sqrt(0.8 * 0.2 / 99))
    assert (quality.metric, quality.unit, quality.direction) == ("top1", "fraction", "higher")
    assert state.scores().tolist() == [0] * 20 + [1] * 80


def test_float_and_artefact_give_a_paired_drop():
    evaluation = [((np.arange(20, dtype=np.float32)[:, None],), np.arange(20) % 10)]

    def worse(sample):
        scores = one_hot(sample)[0]
        scores[sample[0][:, 0] < 4] = 0  # arg-max 0: samples 1, 2, 3 are wrong, 0 stays right
        return (scores,)

    floats, artefact = score(one_hot, evaluation, Top1()), score(worse, evaluation, Top1())
    assert floats.drop(artefact).value == pytest.approx(3 / 20)


def test_a_metric_against_float_gets_the_float_model_s_outputs():
    evaluation = [((np.arange(20, dtype=np.float32)[:, None],), np.full(20, -1))]  # never looked at

    def other(sample):
        return (np.roll(one_hot(sample)[0], (sample[0][:, 0] < 5).all(), axis=1),)

    assert score(one_hot, evaluation, Agreement(), float_predict=one_hot).value() == 1
    single = [((np.array([[float(n)]], np.float32),), np.array([0])) for n in range(20)]
    assert score(other, single, Agreement(), float_predict=one_hot).value() == 0.75
    with pytest.raises(ValueError, match="needs the float model"):
        score(one_hot, evaluation, Agreement())


def test_a_metric_of_groups_gets_whole_groups():
    def mean_of_pairs(outputs, expected):
        return (outputs[0][:, 0].reshape(-1, 2).mean(axis=1) == expected).astype(float)

    metric = from_callable(mean_of_pairs, group=2)
    assert score(identity, batches([5, 4], group=2), metric).value() == 1
    assert score(identity, batches([5, 4], group=2), metric).samples == 9


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_not_finite_is_told_by_name_before_any_metric_sees_it(bad):
    def predict(sample):
        second = np.zeros((len(sample[0]), 3), np.float32)
        second[1, 2] = bad
        return (sample[0], second)

    with pytest.raises(NotFinite, match="1 of its 12 values") as caught:
        score(predict, batches([4]), Top1(), names=("logits", "features"))
    assert caught.value.where == "features"
    assert caught.value.exit_code == EXIT_VERIFICATION
    with pytest.raises(NotFinite) as caught:
        score(predict, batches([4]), Top1())
    assert caught.value.where == "output 1"


def test_an_empty_set_is_told():
    with pytest.raises(JobError, match="the evaluation set is empty") as caught:
        score(one_hot, [], Top1())
    assert "evaluation()" in caught.value.next_step


def test_a_real_artefact_is_scored_by_the_same_metric(local_device, onnx_file):
    path, oracle = onnx_file(size=16, hidden=10)
    x = np.random.default_rng(0).standard_normal((30, 16)).astype(np.float32)
    evaluation = [((x[n : n + 7],), oracle(x[n : n + 7]).argmax(axis=1)) for n in range(0, 30, 7)]
    predict = local_device.predict(local_device.load(Opening(path, "openers:real")), ["x"])
    state = score(predict, evaluation, Top1())
    assert state.value() == 1
    assert state.samples == 30
