"""A user's callable as a metric: told apart by what it returns, and every fault told with the user's own line."""

from __future__ import annotations

import functools
import importlib.util
import math
import textwrap

import numpy as np
import pytest

from haversack import metrics
from haversack.base.errors import JobError
from haversack.metrics import from_callable, resolve

OUTPUTS = (np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], np.float32),)
LABELS = np.array([1, 0, 0, 1])


def per_sample(outputs, expected):
    return outputs[0].argmax(axis=1) == expected


def whole(outputs, expected):
    return float((outputs[0].argmax(axis=1) == expected).mean())


@pytest.fixture
def job(tmp_path):
    """Write a job file's text and import it."""

    def write(text):
        path = tmp_path / "job.py"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        spec = importlib.util.spec_from_file_location("planted_job", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return write


@pytest.mark.parametrize("function", [per_sample, whole])
def test_both_kinds_give_the_same_value(function):
    state = resolve(function).start()
    state.update((OUTPUTS[0][:3],), LABELS[:3])
    state.update((OUTPUTS[0][3:],), LABELS[3:])
    assert state.samples == 4
    assert state.value() == 0.75
    assert state.quality().metric == function.__name__


def test_scores_are_kept_only_where_there_are_any():
    one, other = resolve(per_sample).start(), resolve(whole).start()
    one.update(OUTPUTS, LABELS)
    other.update(OUTPUTS, LABELS)
    assert one.scores().tolist() == [1, 1, 0, 1]
    assert other.scores() is None


def test_a_metric_of_the_whole_set_is_not_the_mean_of_its_batches():
    def spread(outputs, expected):
        return float(np.ptp(outputs[0]))

    state = resolve(spread).start()
    state.update((np.array([[1.0], [2.0]]),), np.zeros(2))
    state.update((np.array([[10.0], [11.0]]),), np.zeros(2))
    assert state.value() == 10


def test_the_whole_sets_standard_error_is_near_that_of_the_scores():
    draw = np.random.default_rng(0)
    outputs, labels = (draw.normal(size=(200, 2)),), draw.integers(0, 2, 200)
    one, other = resolve(per_sample).start(), resolve(whole).start()
    one.update(outputs, labels)
    other.update(outputs, labels)
    assert other.standard_error() == pytest.approx(one.standard_error(), rel=0.25)


def test_the_whole_sets_drop_has_an_interval():
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 100)
    right = np.eye(2)[labels]
    wrong = right.copy()
    wrong[:20] = wrong[:20, ::-1]
    good, bad = resolve(whole).start(), resolve(whole).start()
    good.update((right,), labels)
    bad.update((wrong,), labels)
    drop = good.drop(bad)
    assert drop.value == pytest.approx(0.2)
    assert 0.1 < drop.low < 0.2 < drop.high < 0.3
    assert good.drop(bad) == drop


def test_a_resample_on_which_it_is_not_defined_does_not_count():
    def needs_both_classes(outputs, expected):
        if len(np.unique(expected)) < 2:
            raise ValueError("one class only")
        return float(expected.mean())

    state = resolve(needs_both_classes).start()
    state.update((np.zeros((3, 1)),), np.array([0, 0, 1]))
    assert 0 < state.standard_error() < 1


def test_pairs_of_rows_travel_together():
    def distance(outputs, expected):
        first, second = outputs[0][0::2], outputs[0][1::2]
        return float(np.abs(first - second).max())

    state = from_callable(distance, group=2, direction="lower").start()
    state.update((np.array([[1.0], [2.0], [30.0], [31.0]]),), np.zeros(2))
    assert state.value() == 1
    assert state.standard_error() == 0


def test_direction_and_unit_are_the_callers():
    metric = from_callable(per_sample, direction="lower", unit="mm")
    state, other = metric.start(), metric.start()
    state.update(OUTPUTS, LABELS)
    other.update(OUTPUTS, 1 - LABELS)
    assert (state.quality().direction, state.quality().unit) == ("lower", "mm")
    assert state.drop(other).value == pytest.approx(-0.5)


RAISES = """
    import numpy as np

    def inner(scores):
        return scores.reshape(7, 7)

    def metric(outputs, expected):
        return inner(outputs[0])
"""


def test_a_metric_that_raises_is_told_with_the_users_deepest_line(job):
    module = job(RAISES)
    with pytest.raises(JobError) as caught:
        resolve(module.metric).start().update(OUTPUTS, LABELS)
    error = caught.value
    assert error.where == f"{module.__file__}:5"
    assert error.cause.startswith("metric() raised ValueError: cannot reshape")
    assert "outputs of shape (4, 2) and expected of shape (4,)" in error.tried
    assert "take outputs[0]" in error.next_step
    assert isinstance(error.__cause__, ValueError)


def test_a_fault_inside_a_library_is_told_with_the_users_line(job):
    module = job(
        """
        import json

        def metric(outputs, expected):
            return json.loads("{")
        """
    )
    with pytest.raises(JobError) as caught:
        resolve(module.metric).start().update(OUTPUTS, LABELS)
    assert caught.value.where == f"{module.__file__}:5"


@pytest.mark.parametrize(
    "function, words",
    [
        (lambda outputs, expected: np.full(4, np.nan), "returned NaN or an infinity for sample 0"),
        (lambda outputs, expected: np.zeros(3), r"returned shape \(3,\) for 4 samples"),
        (lambda outputs, expected: np.zeros((4, 2)), r"returned shape \(4, 2\) for 4 samples"),
        (lambda outputs, expected: None, "returned NoneType for 4 samples"),
        (lambda outputs, expected: [[1], [1, 2]], "returned list for 4 samples"),
        (lambda outputs, expected: "good", "returned str for 4 samples"),
        (lambda outputs, expected: outputs.argmax(), "raised AttributeError"),
        (lambda outputs, expected: outputs[0].__setitem__(0, 1), "read-only"),
        (lambda expected: 1.0, "raised TypeError"),
    ],
)
def test_what_it_may_not_return(function, words):
    with pytest.raises(JobError, match=words) as caught:
        resolve(function).start().update(OUTPUTS, LABELS)
    assert __file__ in caught.value.where or "raised TypeError" in words


def test_a_whole_set_value_of_nan_is_refused():
    state = resolve(lambda outputs, expected: math.nan).start()
    state.update(OUTPUTS, LABELS)
    with pytest.raises(JobError, match="metric <lambda> returned nan"):
        state.value()


def test_the_kind_may_not_change_on_the_way():
    def fickle(outputs, expected):
        return np.zeros(len(expected)) if len(expected) > 1 else 1.0

    state = resolve(fickle).start()
    state.update(OUTPUTS, LABELS)
    with pytest.raises(JobError, match=r"returned shape \(\) for 1 sample"):
        state.update((OUTPUTS[0][:1],), LABELS[:1])
    late = resolve(fickle).start()
    late.update((OUTPUTS[0][:1],), LABELS[:1])
    late.update(OUTPUTS, LABELS)
    with pytest.raises(JobError, match="returned ndarray for the whole set, and a number for a batch"):
        late.value()


def test_faults_of_the_batch_come_before_the_call():
    called = []
    state = resolve(lambda outputs, expected: called.append(1)).start(("a", "b"))
    with pytest.raises(JobError) as caught:
        state.update((OUTPUTS[0], np.full((4, 1), np.nan)), LABELS)
    assert "b: 4 of its 4 values" in str(caught.value)
    assert called == []


def test_an_empty_state_is_refused():
    with pytest.raises(JobError, match="was given no samples"):
        resolve(whole).start().value()


def test_a_comment_keeps_the_digest_and_code_changes_it(job):
    text = "def metric(outputs, expected):\n    return 1.0\n"
    first = resolve(job(text).metric).digest
    assert resolve(job("# why\n" + text).metric).digest == first
    assert resolve(job(text.replace("1.0", "2.0")).metric).digest != first


def test_a_callable_without_source_has_a_digest():
    assert resolve(max).digest != resolve(min).digest


def test_names_are_resolved_on_the_shelf_with_the_nearest_shown():
    assert resolve("top1") == metrics.SHELF.build("top1")
    with pytest.raises(Exception, match="no metric named 'top_1'; did you mean top1"):
        resolve("top_1")


def test_a_metric_with_settings_stands_for_itself():
    metric = metrics.SHELF.build("spearman", {"pairs": True})
    assert resolve(metric) is metric


def test_what_is_neither_name_nor_callable_is_refused():
    with pytest.raises(JobError, match="metric is a float") as caught:
        resolve(0.5)
    assert "top1" in caught.value.next_step


class Scorer:
    """A callable object with a setting, as a user may write one."""

    def __init__(self, margin):
        self.margin = margin

    def __call__(self, outputs, expected):
        scores = outputs[0][np.arange(len(expected)), expected]
        return [float(score > self.margin) for score in scores]


def test_an_object_may_be_a_metric_and_a_list_of_scores_will_do():
    state = resolve(Scorer(0.5)).start()
    state.update(OUTPUTS, LABELS)
    assert state.scores().tolist() == [1, 1, 0, 1]
    assert state.quality().metric == "Scorer"


def test_a_fault_of_an_object_is_told_by_its_name():
    with pytest.raises(JobError) as caught:
        resolve(Scorer("high")).start().update(OUTPUTS, LABELS)
    assert "metric Scorer raised UFuncTypeError" in caught.value.cause
    assert caught.value.where.startswith(__file__)


def test_settings_make_another_digest():
    digests = {
        from_callable(per_sample).digest,
        from_callable(per_sample, direction="lower").digest,
        from_callable(per_sample, unit="mm").digest,
        from_callable(per_sample, group=2).digest,
        from_callable(whole).digest,
    }
    assert len(digests) == 5
    assert from_callable(per_sample).digest in digests


def test_an_objects_code_is_in_the_digest(job):
    text = "class Metric:\n    def __call__(self, outputs, expected):\n        return 1.0\n\nmetric = Metric()\n"
    first = resolve(job(text).metric).digest
    assert resolve(job("# why\n" + text).metric).digest == first
    assert resolve(job(text.replace("1.0", "2.0")).metric).digest != first


def test_a_partial_counts_with_its_arguments():
    def scaled(outputs, expected, factor):
        return factor * outputs[0][:, 0]

    one, two = (resolve(functools.partial(scaled, factor=factor)) for factor in (1, 2))
    assert one.digest != two.digest
    assert two(OUTPUTS, LABELS) == 2 * one(OUTPUTS, LABELS) == 0.5
    assert one.name == "scaled"


def seen(outputs, expected):
    return float(sum(np.sum(output, dtype=np.float64) for output in outputs) + np.sum(expected, dtype=np.float64))


def test_rows_of_the_whole_set_give_back_what_was_scored_bit_for_bit():
    draw = np.random.default_rng(3)
    given = []

    def keeps(outputs, expected):
        given.append((outputs, expected))
        return 0.5

    outputs = (draw.normal(size=(4, 2, 3)).astype(np.float32), draw.normal(size=4), draw.normal(size=(4, 0)))
    expected = draw.integers(-(2**40), 2**40, size=(4, 2))
    metric = resolve(keeps)
    rows = metric.rows(outputs[:2], expected)
    metric.values(rows[None, ::2])
    for found, wanted in zip((*given[-1][0], given[-1][1]), (*outputs[:2], expected), strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted[::2])


def test_value_error_and_drop_of_the_whole_set_follow_from_rows_alone():
    draw = np.random.default_rng(0)
    outputs, labels = (draw.normal(size=(60, 2)),), draw.integers(0, 2, 60)
    metric = resolve(whole)
    state, other = metric.start(), metric.start()
    state.update(outputs, labels)
    other.update((outputs[0][:, ::-1],), labels)
    assert metric.values(state.rows()[None]) == [state.value()]
    assert metric.standard_error(state.rows()) == state.standard_error() > 0
    assert metric.drop(state.rows(), other.rows()) == state.drop(other)


@pytest.mark.parametrize("expected", [np.array(["a", "b"]), np.array([2**60, 1])])
def test_what_cannot_be_kept_exactly_is_refused(expected):
    with pytest.raises(JobError, match="cannot be computed from these arrays") as caught:
        resolve(lambda outputs, expected: 1.0).start().update((np.zeros((2, 2)),), expected)
    assert "be kept" in str(caught.value)


def test_batches_of_other_shapes_cannot_be_one_set():
    state = resolve(seen).start()
    state.update((np.zeros((2, 4)),), np.zeros(2))
    for output in (np.zeros((2, 5)), np.zeros((2, 2, 2)), np.zeros((2, 4), np.float32)):
        with pytest.raises(JobError, match="batches differ in shape or dtype"):
            state.update((output,), np.zeros(2))
    assert state.samples == 2


def test_outputs_too_large_to_keep_are_refused(monkeypatch):
    monkeypatch.setattr(metrics.custom, "WHOLE_BYTES", 1000)
    state = resolve(seen).start()
    state.update((np.zeros((2, 20)),), np.zeros(2))
    with pytest.raises(JobError, match="whose outputs take more than"):
        state.update((np.zeros((4, 20)),), np.zeros(4))


@pytest.mark.parametrize("name", ["mse", "mean_abs_error", "valLoss", "word_WER", "rmse2"])
def test_a_bare_callable_whose_name_says_that_less_is_better_is_refused(name):
    def function(outputs, expected):
        return float(np.abs(outputs[0] - expected).mean())

    function.__name__ = name
    with pytest.raises(JobError) as caught:
        resolve(function)
    assert caught.value.where == f"metric {name}"
    assert "more is better" in caught.value.cause
    assert f"from_callable({name}, " in caught.value.next_step
    assert resolve(from_callable(function, direction="lower")).direction == "lower"
    assert resolve(from_callable(function, direction="higher")).direction == "higher"


@pytest.mark.parametrize("name", ["accuracy", "lossless", "terror", "flower", "iou", "<lambda>"])
def test_other_names_are_taken_as_they_are(name):
    def function(outputs, expected):
        return 0.5

    function.__name__ = name
    assert resolve(function).direction == "higher"
