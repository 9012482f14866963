"""What a job's iterables give is checked: one planted fault a row, all faults of the first bad batch at once."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.errors import JobError, UsageError
from haversack.base.graph import TensorSpec
from haversack.base.model import Port
from haversack.tools.data.samples import checked, checked_pairs

IMAGE = (Port("image", TensorSpec(("batch", 3, 4, 4), "float32")),)
TOKENS = (
    Port("ids", TensorSpec(("batch", "length"), "int64")),
    Port("mask", TensorSpec(("batch", "length"), "int64")),
)


def image(rows=2):
    return np.arange(rows * 48, dtype=np.float32).reshape(rows, 3, 4, 4)


def refusal(items, ports=IMAGE):
    with pytest.raises(JobError) as caught:
        list(checked(items, ports, what="calibration()"))
    return caught.value


def test_good_samples_pass_as_they_are():
    items = [(image(),), (image(1),)]
    got = list(checked(items, IMAGE, what="calibration()"))
    assert [sample[0] is item[0] for sample, item in zip(got, items, strict=True)] == [True, True]


def test_batches_are_checked_as_they_come():
    stream = checked(iter([(image(),), (image().astype(np.float64),)]), IMAGE, what="calibration()")
    assert next(stream)[0].shape == (2, 3, 4, 4)
    with pytest.raises(JobError, match=r"calibration\(\): batch 1 cannot be used"):
        next(stream)


def test_the_limit_counts_rows_and_asks_for_no_more():
    asked = []

    def items():
        for index in range(9):
            asked.append(index)
            yield (image(4),)

    got = list(checked(items(), IMAGE, what="calibration()", limit=6))
    assert [len(sample[0]) for sample in got] == [4, 2]
    assert asked == [0, 1]


class FakeTensor:
    """Stands for a tensor of torch, which is told by its module's name."""


FakeTensor.__module__ = "torch"


@pytest.mark.parametrize(
    "item, words",
    [
        (image(), ["inputs: an array, not a tuple of arrays: write (x,), with the comma"]),
        ([image()], ["a list", "write tuple(…)"]),
        ({"image": image()}, ["a dict", "in the order of the model's inputs"]),
        (FakeTensor(), ["a torch.FakeTensor", "write (tensor.numpy(),)"]),
        ((FakeTensor(),), ["image: a torch.FakeTensor, not a NumPy array: write tensor.numpy()"]),
        (([1.0, 2.0],), ["image: a list, not a NumPy array: write np.asarray(…)"]),
        ((), ["0 arrays, but the model has 1 (image)"]),
        ((image(), image()), ["2 arrays, but the model has 1 (image)"]),
        ((image().astype(np.float64),), ["image: dtype float64, expected float32: write .astype(np.float32)"]),
        ((image()[:, :2],), ["image: shape [2, 2, 4, 4], expected [batch, 3, 4, 4]"]),
        ((image()[0],), ["image: shape [3, 4, 4], expected [batch, 3, 4, 4]"]),
        ((image() * np.float32(np.nan),), ["image: 96 of 96 values are NaN or infinite"]),
        ((image(0),), ["image: shape [0, 3, 4, 4] holds no values"]),
        ((np.float32(3) + np.zeros((), np.float32),), ["a numpy.float32, not a NumPy array"]),
        ((np.array(3, np.float32),), ["a single number, but the batch comes first"]),
        ((np.array([None, 1]),), ["it holds Python objects"]),
    ],
)
def test_a_planted_fault_is_told_with_the_input_and_the_next_step(item, words):
    text = str(refusal([item]))
    assert "calibration(): batch 0 cannot be used" in text
    for word in words:
        assert word in text
    if "NaN" not in text:
        assert "yield (array, …) with image: float32 [batch, 3, 4, 4]" in text


def test_every_fault_of_the_batch_is_told_at_once():
    bad = np.full((2, 2, 4, 4), np.inf)
    error = refusal([(bad,)])
    assert [fault.where for fault in error.faults] == ["image"] * 3
    assert len({fault.cause for fault in error.faults}) == 3


def test_free_dimensions_must_agree_between_inputs():
    error = refusal([(np.zeros((2, 5), np.int64), np.zeros((3, 6), np.int64))], TOKENS)
    assert [str(fault) for fault in error.faults] == [
        "mask: batch is 3, but an input before it has 2",
        "mask: length is 6, but an input before it has 5",
    ]
    good = [(np.zeros((2, n), np.int64), np.ones((2, n), np.int64)) for n in (5, 6)]
    assert len(list(checked(good, TOKENS, what="calibration()"))) == 2


def test_raw_data_are_checked_without_ports():
    raw = [(np.zeros((1, 9, 9, 3), np.uint8), np.zeros((1, 2), np.float32))]
    assert len(list(checked(raw, None, what="calibration()"))) == 1
    assert "2 rows, but the inputs before it have 1" in str(refusal([(raw[0][0], np.zeros((2, 2)))], None))
    assert "0 arrays, but the model has at least one" in str(refusal([()], None))
    assert "NaN" in str(refusal([(np.full((1, 2), np.nan),)], None))


@pytest.mark.parametrize("items, words", [([], "gives no batch"), (None, "returned a NoneType, not an iterable")])
def test_nothing_is_refused(items, words):
    assert words in str(refusal(items))


def test_an_iterable_that_raises_is_told_with_its_line_and_batch():
    def items():
        yield (image(),)
        raise OSError("no such file: cat.png")

    error = refusal(items())
    assert error.where == f"{__file__}:{items.__code__.co_firstlineno + 2}"
    assert error.cause == "calibration() raised OSError: no such file: cat.png"
    assert error.tried == "batch 1 was asked for"


def test_our_own_errors_pass_through():
    def items():
        yield (image(),)
        raise UsageError("already told")

    with pytest.raises(UsageError, match="^already told$"):
        list(checked(items(), IMAGE, what="calibration()"))


def pairs_refusal(items, **options):
    with pytest.raises(JobError) as caught:
        list(checked_pairs(items, IMAGE, what="evaluation()", **options))
    return str(caught.value)


def test_good_pairs_pass():
    items = [((image(),), np.array([1, 0])), ((image(4),), np.array([1, 0, 2, 2]))]
    got = list(checked_pairs(items, IMAGE, what="evaluation()", limit=3))
    assert [expected.tolist() for _, expected in got] == [[1, 0], [1]]
    assert len(got[1][0][0]) == 1


@pytest.mark.parametrize(
    "item, words",
    [
        ((image(),), "it is a tuple, not a pair: yield ((array, …), expected)"),
        (image(), "it is a numpy.ndarray, not a pair"),
        ((image(), np.array([0, 1])), "inputs: an array, not a tuple of arrays: write (x,)"),
        (((image(),), [0, 1]), "expected: a list, not a NumPy array: write np.asarray(…)"),
        (((image(),), FakeTensor()), "expected: a torch.FakeTensor, not a NumPy array: write tensor.numpy()"),
        (((image(),), np.array([0, 1, 2])), "expected: 3 entries for 2 rows of inputs"),
        (((image(),), np.array([0, np.nan])), "expected: 1 of 2 values are NaN"),
        (((image(),), np.array(1)), "expected: a single number"),
    ],
)
def test_planted_faults_of_pairs(item, words):
    text = pairs_refusal([item])
    assert "evaluation(): batch 0 cannot be used" in text
    assert words in text


def test_groups_of_rows_go_with_one_expected_entry():
    items = [((image(4),), np.array([0.5, 0.1]))]
    (pair,) = checked_pairs(items, IMAGE, what="evaluation()", group=2, limit=1)
    assert len(pair[0][0]) == 2
    assert pair[1].tolist() == [0.5]
    assert "2 entries for 2 rows of inputs, 2 rows each" in pairs_refusal(
        [((image(2),), np.array([0.5, 0.1]))], group=2
    )


def test_values_that_are_not_finite_send_to_the_sample_and_not_to_the_form():
    spoiled = image()
    spoiled[1, 2, 3, 0] = np.nan
    text = str(refusal([(image(),), (spoiled,)]))
    assert "next: look at sample 1 of batch 1, image: mend it where it is made, or leave it out" in text
    assert "yield (array" not in text
    both = str(refusal([(spoiled.astype(np.float64),)]))
    assert "yield (array" in both
