"""The contract itself: what an author's inner method may get wrong is told, and nothing unfit reaches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from haversack.base.errors import JobError
from haversack.tools.data.preprocess.contract import Operation


@dataclass(frozen=True)
class Flip(Operation):
    """Flip left and right, as a third party would write it: a view, any dtype."""

    ranks: ClassVar[tuple[int, ...]] = (3, 4)
    dtypes: ClassVar[tuple[str, ...]] = ("uint8", "float32")

    def _faults(self, batch):
        return ["it is too wide"] if batch.shape[2] > 9 else []

    def _apply(self, batch):
        return batch[:, :, ::-1]


@dataclass(frozen=True)
class Planted(Operation):
    """Gives what the test wants."""

    result: object = None

    def _apply(self, batch):
        return self.result


def test_an_author_writes_one_method_and_may_return_a_view():
    raw = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    flipped = Flip()(raw)
    assert flipped.tolist() == [[[2, 1, 0], [5, 4, 3]]]
    assert flipped.flags.c_contiguous
    assert Flip().name.endswith("test_contract")


@pytest.mark.parametrize(
    "raw, causes",
    [
        (np.zeros((2, 2), np.uint8), ["it takes 3 or 4 dimensions, the batch included"]),
        (np.zeros((2, 2, 2), np.int16), ["it takes uint8 or float32"]),
        (np.zeros((0, 2, 2), np.uint8), ["it holds no values"]),
        (np.zeros((1, 2, 10), np.uint8), ["it is too wide"]),
        (
            np.zeros((0, 2), np.int16),
            ["it takes 3 or 4 dimensions, the batch included", "it holds no values", "it takes uint8 or float32"],
        ),
    ],
)
def test_what_does_not_fit_never_reaches_the_author(raw, causes):
    with pytest.raises(JobError) as caught:
        Flip()(raw)
    assert [fault.cause for fault in caught.value.faults] == causes
    assert f"{raw.dtype} {list(raw.shape)}" in caught.value.cause


@pytest.mark.parametrize("dtype", ["complex64", "U3", "object", "datetime64[s]"])
def test_what_is_no_number_is_refused(dtype):
    with pytest.raises(JobError, match="it takes numbers"):
        Planted(result=np.zeros(2))(np.zeros(2, dtype))


@pytest.mark.parametrize(
    "result, words",
    [
        (np.zeros((3, 1)), "made 3 rows of 2"),
        (np.array([[1.0], [np.nan]]), "made NaN or infinite values"),
        (np.array([[1.0], [np.inf]]), "made NaN or infinite values"),
    ],
)
def test_results_that_an_author_gets_wrong_are_told(result, words):
    with pytest.raises(JobError, match=words):
        Planted(result=result)(np.zeros((2, 1)))
