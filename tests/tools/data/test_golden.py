"""Synthetic inputs: the same bits everywhere, near normal, within the observed bounds, every gap told."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base import digest
from haversack.base.errors import JobError
from haversack.base.graph import TensorSpec
from haversack.base.model import Port
from haversack.tools.data.golden import observed, synthetic

IMAGE = Port("image", TensorSpec(("batch", 3, 32, 32), "float32"))
IDS = Port("ids", TensorSpec(("batch", "length"), "int64"))
FLAG = Port("flag", TensorSpec((2, 64), "bool"))


def test_shapes_and_dtypes_are_the_ports():
    (sample,) = synthetic((IMAGE, IDS, FLAG), 0, 1, ranges={"ids": (0, 9)}, lengths={"length": 7})
    assert [array.shape for array in sample] == [(1, 3, 32, 32), (1, 7), (2, 64)]
    assert [array.dtype.name for array in sample] == ["float32", "int64", "bool"]
    assert 0.3 < sample[2].mean() < 0.7


def test_the_values_are_pinned():
    ((sample,),) = synthetic((IMAGE,), 0, 1)
    assert digest.of_array(sample)[:16] == "35405be357b19196"


def test_floats_are_near_standard_normal():
    values = np.concatenate([sample[0].reshape(-1) for sample in synthetic((IMAGE,), 3, 20)])
    assert values.mean() == pytest.approx(0, abs=0.02)
    assert values.std() == pytest.approx(1, abs=0.01)
    assert np.abs(values).max() <= 6
    assert np.mean(np.abs(values) < 1 + 1 / 16) == pytest.approx(0.7120, abs=0.01)  # of N(0, 1), up to half a step


def test_floats_are_few_values_that_every_float_type_holds():
    values = np.concatenate([sample[0].reshape(-1) for sample in synthetic((IMAGE,), 3, 20)])
    assert len(np.unique(values)) <= 97
    assert np.array_equal(values * 8, np.round(values * 8))
    assert np.array_equal(values.astype(np.float16).astype(np.float32), values)


def test_samples_seeds_and_names_differ():
    first, second = (sample[0] for sample in synthetic((IMAGE,), 0, 2))
    ((other,),) = synthetic((IMAGE,), 1, 1)
    ((named,),) = synthetic((Port("photo", IMAGE.spec),), 0, 1)
    assert len({digest.of_array(array) for array in (first, second, other, named)}) == 4
    assert np.array_equal(first, synthetic((IMAGE,), 0, 5)[0][0])


def test_integers_fill_the_observed_range():
    ranges = observed([(np.array([[5, 7]]),), (np.array([[3, 6]]),)], (IDS,))
    assert ranges == {"ids": (3, 7)}
    values = np.concatenate(
        [ids.reshape(-1) for (ids,) in synthetic((IDS,), 0, 20, ranges=ranges, lengths={"length": 9})]
    )
    assert set(values.tolist()) == {3, 4, 5, 6, 7}


def test_floats_are_not_observed():
    assert observed([(np.zeros((1, 2)),)], (IMAGE,)) == {}


def test_everything_that_is_missing_is_told_at_once():
    text = Port("text", TensorSpec(("batch",), "str"))
    with pytest.raises(JobError) as caught:
        synthetic((IDS, text), 0, 1)
    assert [str(fault) for fault in caught.value.faults] == [
        "ids: the length of its dimension length is not known",
        "ids: int64 values need a range",
        "text: dtype str has no synthetic values",
    ]
    assert "golden()" in caught.value.next_step
