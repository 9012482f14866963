"""Encodings that mean nothing are refused before anything runs, all of them at once."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from haversack.base.encodings import Affine, BlockAffine, Codebook, Dynamic, Encodings, Float
from haversack.base.errors import ConversionError
from haversack.targets.reference import Reference
from haversack.targets.reference.refusals import refusals
from haversack.tools.numerics import affine


@pytest.fixture(scope="module")
def model(exported):
    return exported(nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1)), np.zeros((2, 4), np.float32))


LINEAR, SOFTMAX = "0:linear#0", "1:softmax#0"
BLOCKS = np.ones((3, 2), np.float32)
GOOD = affine.symmetric(np.ones(3, np.float32), 8, 0)
CODES = np.ones((3, 4), np.int32)
PER_CHANNEL = Affine(8, signed=False, axis=0, scale=np.ones(3, np.float32), zero_point=np.zeros(3, np.int32))


@pytest.mark.parametrize(
    "key, encoding, codes, cause",
    [
        ("2:linear#0:out", affine.from_range(0, 1), None, "no such node"),
        (f"{SOFTMAX}:weight", GOOD, CODES, "no weight"),
        (f"{LINEAR}:weight", GOOD, None, "missing"),
        (f"{LINEAR}:weight", affine.symmetric(np.float32(1)), CODES.T, "shape"),
        (f"{LINEAR}:weight", affine.symmetric(np.ones(4, np.float32), 8, 1), CODES, "axis 1"),
        (f"{LINEAR}:weight", Codebook(2, np.zeros(4, np.float32)), None, "missing"),
        (f"{LINEAR}:weight", Codebook(2, np.zeros(4, np.float32)), CODES.T, "another shape"),
        (f"{LINEAR}:weight", BlockAffine(2, 4, BLOCKS), None, "missing"),
        (f"{LINEAR}:weight", BlockAffine(3, 4, np.ones((4, 1), np.float32)), CODES.T, "another shape"),
        (f"{LINEAR}:weight", BlockAffine(2, 4, BLOCKS, BLOCKS), CODES, "minima"),
        (f"{LINEAR}:out", PER_CHANNEL, None, "one scale"),
        (f"{LINEAR}:out", Codebook(2, np.zeros(4, np.float32)), None, "Codebook on an activation"),
        (f"{LINEAR}:in", Dynamic(), None, "needs a weight in integers"),
        (f"{LINEAR}:in", affine.from_range(0, 1), None, "Affine on the input"),
        (f"{SOFTMAX}:in", Dynamic(), None, "Dynamic on the input of softmax"),
    ],
)
def test_each_fault(model, key, encoding, codes, cause):
    encodings = Encodings({key: encoding}, {} if codes is None else {key: codes})
    found = refusals(model, encodings)
    assert len(found) == 1
    assert found[0].where == key
    assert cause in found[0].cause


def test_all_faults_at_once(model):
    encodings = Encodings({f"{LINEAR}:weight": GOOD, f"{LINEAR}:out": PER_CHANNEL})
    with pytest.raises(ConversionError) as error:
        Reference().opened(model, encodings)
    assert [fault.where for fault in error.value.faults] == [f"{LINEAR}:out", f"{LINEAR}:weight"]


def test_what_is_fine(model):
    fine = {
        f"{LINEAR}:weight": GOOD, f"{LINEAR}:in": Dynamic(), f"{LINEAR}:out": Float("float16"),
        f"{SOFTMAX}:out": affine.from_range(0, 1),
    }  # fmt: skip
    assert refusals(model, Encodings(fine, {f"{LINEAR}:weight": CODES})) == ()
    for book in (Codebook(2, np.zeros(4, np.float32)), Codebook(2, np.zeros((3, 4), np.float32), 1)):
        assert refusals(model, Encodings({f"{LINEAR}:weight": book}, {f"{LINEAR}:weight": CODES})) == ()
