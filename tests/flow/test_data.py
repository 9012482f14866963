"""The job's data as the model takes them: preprocessed, checked, kept while small, streamed anew when large."""

from __future__ import annotations

import numpy as np
import pytest

from haversack import metrics
from haversack.base.errors import JobError
from haversack.base.graph import TensorSpec
from haversack.base.job import Job
from haversack.base.model import Port
from haversack.flow import data as data_module
from haversack.flow.data import Data

PORTS = (Port("x", TensorSpec(("batch", 3), "float32")),)


def job(calibration=None, evaluation=None, **fields):
    ones = np.ones((4, 3), np.float32)
    return Job(
        "job",
        model=lambda: None,
        calibration=lambda: iter(calibration if calibration is not None else [(ones,), (2 * ones,)]),
        evaluation=lambda: iter(evaluation if evaluation is not None else [((ones,), np.zeros(4, np.int64))]),
        metric="top1",
        **fields,
    )


def made(ports=PORTS, **fields):
    return Data(job(**fields), ports, metrics.resolve("top1"))


def test_samples_are_counted():
    assert made().counts() == (8, 4)
    assert made().first()[0].shape == (4, 3)


def test_preprocessing_is_applied_to_both_sets():
    found = made(preprocess=({"op": "scale", "factor": 2.0, "offset": 1.0},))
    assert next(iter(found.calibration()))[0].max() == 3.0
    ((inputs, expected),) = found.evaluation()
    assert inputs[0].max() == 3.0
    assert expected.shape == (4,)
    assert found.prepared_job().preprocess == ()
    assert next(iter(found.prepared_job().calibration()))[0].max() == 3.0


@pytest.mark.parametrize("kept", [1 << 30, 0])
def test_small_data_are_read_once_and_large_ones_for_every_pass(monkeypatch, kept):
    monkeypatch.setattr(data_module, "KEPT_BYTES", kept)
    reads = []

    def calibration():
        reads.append(1)
        yield (np.ones((4, 3), np.float32),)
        yield (np.full((4, 3), 2, np.float32),)

    found = Data(Job("j", lambda: None, calibration, list, "top1"), PORTS, metrics.resolve("top1"))
    passes = [[float(sample[0][0, 0]) for sample in found.calibration()] for _ in range(3)]
    assert passes == [[1.0, 2.0]] * 3
    assert len(reads) == (1 if kept else 4), "large ones once more, to be counted"


def test_the_digest_is_the_content_as_the_model_takes_it():
    same = made().digest()
    assert made().digest() == same
    assert made(preprocess=({"op": "scale", "factor": 2.0, "offset": 0.0},)).digest() != same
    other = [((np.ones((4, 3), np.float32),), np.array([0, 0, 0, 1]))]
    assert made(evaluation=other).digest() != same
    # What preprocessing makes equal is equal.
    halves = [(np.full((4, 3), 0.5, np.float32),), (np.ones((4, 3), np.float32),)]
    halved = [((np.full((4, 3), 0.5, np.float32),), np.zeros(4, np.int64))]
    scaled = made(calibration=halves, evaluation=halved, preprocess=({"op": "scale", "factor": 2.0, "offset": 0.0},))
    assert scaled.digest() == same


@pytest.mark.parametrize(
    "fields, where",
    [
        ({"calibration": []}, "calibration()"),
        ({"calibration": [(np.ones((4, 5), np.float32),)]}, "calibration()"),
        ({"calibration": [(np.ones((4, 3), np.int64),)]}, "calibration()"),
        ({"calibration": [(np.full((4, 3), np.nan, np.float32),)]}, "calibration()"),
        ({"evaluation": []}, "evaluation()"),
        ({"evaluation": [((np.ones((4, 3), np.float32),), np.zeros(3, np.int64))]}, "evaluation()"),
    ],
)
def test_data_that_do_not_fit_are_told_with_their_place(fields, where):
    with pytest.raises(JobError) as caught:
        made(**fields).counts()
    assert where in str(caught.value)


def test_no_first_batch():
    with pytest.raises(JobError, match="calibration"):
        made(calibration=[]).first()


def test_what_is_expected_changes_once_the_model_is_known():
    found = made(ports=None, calibration=[(np.ones((4, 5), np.float32),)])
    assert found.first()[0].shape == (4, 5)
    with pytest.raises(JobError, match="batch 0"):
        found.expect(PORTS)


def test_how_data_are_batched_changes_neither_digest_nor_counts():
    rows, labels = np.arange(24, dtype=np.float32).reshape(8, 3), np.arange(8)

    def cut(size):
        parts = [slice(start, start + size) for start in range(0, 8, size)]
        return made(
            calibration=[(rows[part],) for part in parts], evaluation=[((rows[part],), labels[part]) for part in parts]
        )

    assert len({cut(size).digest() for size in (1, 3, 8)}) == 1
    assert {cut(size).counts() for size in (1, 3, 8)} == {(8, 8)}
    assert len(list(cut(3).evaluation())) == 3


def test_the_same_rows_in_the_other_set_are_other_data():
    zeros, ones = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    labels = np.zeros(2, np.int64)
    one = made(calibration=[(zeros,)], evaluation=[((ones,), labels)])
    other = made(calibration=[(ones,)], evaluation=[((zeros,), labels)])
    assert one.digest() != other.digest()


def test_one_sample_cannot_choose_and_be_reported():
    one = [((np.ones((1, 3), np.float32),), np.zeros(1, np.int64))]
    with pytest.raises(JobError, match="it gives 1 sample") as caught:
        made(evaluation=one).counts()
    assert caught.value.where == "evaluation()"
    assert made(evaluation=[*one, *one]).counts() == (8, 2)


def test_a_pass_that_was_left_early_spoils_no_later_one(monkeypatch):
    monkeypatch.setattr(data_module, "KEPT_BYTES", 0)
    found = made()
    next(iter(found.calibration()))
    next(iter(found.evaluation()))
    assert found.counts() == (8, 4)


def test_a_fault_in_a_late_batch_is_told_in_every_pass():
    good, bad = (np.ones((4, 3), np.float32),), (np.ones((4, 2), np.float32),)
    found = made(calibration=[good, bad])
    for _ in range(2):
        with pytest.raises(JobError, match="batch 1 cannot be used"):
            list(found.calibration())


@pytest.mark.parametrize(
    "inputs, said",
    [
        (np.ones((4, 3), np.float64), "x: float32 [batch, 3] in calibration(), float64 [4, 3] in evaluation()"),
        (np.ones((4, 5), np.float32), "x: float32 [batch, 3] in calibration(), float32 [4, 5] in evaluation()"),
    ],
    ids=["dtype", "shape"],
)
def test_sets_that_disagree_are_both_named_and_neither_is_blamed(inputs, said):
    job = Job(
        "j",
        model=lambda: None,
        calibration=lambda: [(np.ones((4, 3), np.float32),)],
        evaluation=lambda: [((inputs,), np.zeros(4, np.int64))],
        metric="top1",
        input_names=("x",),
    )
    with pytest.raises(JobError) as caught:
        Data(job, None, metrics.resolve("top1")).look()
    error = caught.value
    assert error.cause == "calibration() and evaluation() disagree"
    assert [str(fault) for fault in error.faults] == [said]
    assert "both" in error.next_step


def test_a_later_batch_that_differs_is_the_sets_own_fault():
    good, bad = ((np.ones((4, width), np.float32),) for width in (3, 5))
    job = Job(
        "j",
        model=lambda: None,
        calibration=lambda: [good],
        evaluation=lambda: [(good, np.zeros(4, np.int64)), (bad, np.zeros(4, np.int64))],
        metric="top1",
    )
    with pytest.raises(JobError) as caught:
        Data(job, None, metrics.resolve("top1")).look()
    assert (caught.value.cause, caught.value.where) == ("batch 1 cannot be used", "evaluation()")


def test_data_beside_another_model_are_kept_once_and_not_read_again():
    from dataclasses import replace

    reads = []

    def calibration():
        reads.append("calibration")
        yield (np.ones((4, 3), np.float32),)

    def evaluation():
        reads.append("evaluation")
        yield (np.ones((4, 3), np.float32),), np.zeros(4, np.int64)

    job = Job("a", lambda: None, calibration, evaluation, "top1")
    data = Data(job, None, metrics.resolve("top1"))
    first = data.look()
    read = list(reads)
    other = data.beside(replace(job, name="b", model=lambda: "other"))
    assert np.array_equal(other.look()[0], first[0])
    assert other.first()[0] is data.first()[0]
    assert reads == read, "what is kept is not read again"
    assert (data.job.name, other.job.name) == ("a", "b")
    assert other.prepared_job().model() == "other"
