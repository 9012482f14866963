"""One suite over every preprocessing operation: what ``preprocess/contract.py`` promises, each part keeps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from haversack.base.errors import JobError, UsageError
from haversack.tools.data.preprocess import SHELF, Pipeline

NAMES = SHELF.names()


def batch(operation, rows=3):
    """Return an array that the operation takes with its default settings, from what its class says."""
    draw = np.random.default_rng(0)
    shape = (rows, 240, 230, 3) if 4 in operation.ranks else (rows, 900)
    if operation.name == "normalize":
        shape = (rows, 5, 4, 3)
    if operation.name == "pad":
        shape = (rows, 1)
    dtype = operation.dtypes[0] if operation.dtypes else "uint8"
    return (draw.integers(0, 256, shape) if dtype == "uint8" else draw.normal(size=shape)).astype(dtype)


@pytest.fixture(params=NAMES)
def operation(request):
    return SHELF.build(request.param)


def test_the_shelf_has_the_operations_of_the_design():
    assert {"resize", "center_crop", "normalize", "log_mel", "scale", "to_chw", "pad"} <= set(NAMES)
    assert {"blur", "noise", "brightness", "missing_frames"} <= set(NAMES)
    assert "pipeline" not in NAMES


def test_is_a_frozen_dataclass_with_a_catalogue_line(operation):
    assert operation.__dataclass_params__.frozen
    assert len(SHELF.catalogue()[operation.name].split()) >= 3


def test_documents_every_setting_shape_and_dtype(operation):
    text = type(operation).__doc__
    assert all(field.name in text for field in dataclasses.fields(operation))
    assert "dtype" in text or "float32" in text


def test_refuses_unknown_settings(operation):
    with pytest.raises(UsageError, match="zzz: unknown name"):
        SHELF.build(operation.name, {"zzz": 1})


def test_is_deterministic_and_leaves_its_argument_alone(operation):
    raw = batch(operation)
    copy = raw.copy()
    first, second = operation(raw), operation(raw)
    assert np.array_equal(first, second)
    assert first.dtype == second.dtype
    assert np.array_equal(raw, copy)


def test_rows_do_not_see_each_other(operation):
    raw = batch(operation)
    whole = operation(raw)
    assert len(whole) == len(raw)
    for row in range(len(raw)):
        assert np.array_equal(operation(raw[row : row + 1])[0], whole[row])


def test_gives_contiguous_finite_numbers(operation):
    result = operation(batch(operation))
    assert result.flags.c_contiguous
    assert np.isfinite(result).all()


@pytest.mark.parametrize("array", [np.array(["a"]), np.zeros((0, 4, 4, 3), np.float32), np.float32(1) + np.zeros(())])
def test_what_it_cannot_take_is_told(operation, array):
    with pytest.raises(JobError, match=f"{operation.name} cannot take {array.dtype}"):
        operation(array)


def test_nan_is_not_passed_on(operation):
    raw = batch(operation)
    if operation.dtypes and "float32" not in operation.dtypes:
        pytest.skip("it takes no floats")
    raw = raw.astype(np.float32)
    raw[...] = np.nan
    with pytest.raises(JobError, match="made NaN"):
        operation(raw)


def test_travels_as_data(operation):
    pipeline = Pipeline.parse([{"op": operation.name}])
    again = Pipeline.parse(pipeline.data())
    assert again == pipeline
    assert again.digest == pipeline.digest
    assert np.array_equal(again((batch(operation),))[0], operation(batch(operation)))
