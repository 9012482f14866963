"""Records that are only carried: they are frozen, and torch is not needed to hold them."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil

import numpy as np
import pytest

import haversack.base
from haversack.base.job import Job
from haversack.base.quality import Drop, Quality


def every_record():
    for module in pkgutil.iter_modules(haversack.base.__path__):
        for value in vars(importlib.import_module(f"haversack.base.{module.name}")).values():
            if inspect.isclass(value) and dataclasses.is_dataclass(value):
                yield value


@pytest.mark.parametrize("record", sorted(set(every_record()), key=lambda kind: kind.__name__))
def test_every_record_of_base_is_frozen_and_documented(record):
    assert record.__dataclass_params__.frozen
    assert record.__doc__
    assert not record.__doc__.startswith(f"{record.__name__}(")  # what Python writes when nobody does


def test_a_job_holds_callables_and_names():
    def data():
        yield (np.zeros((1, 2), np.float32),)

    job = Job("digits", lambda: None, data, list, "top1")
    assert next(iter(job.calibration()))[0].shape == (1, 2)
    assert (job.preprocess, job.golden, job.baseline, dict(job.dims), job.source) == ((), None, None, {}, "")


def test_records_do_not_change():
    quality = Quality("top1", 0.5, "fraction", "higher", 10, 0.1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        quality.value = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        Drop(0.0, -1.0, 1.0, 10).value = 2.0
