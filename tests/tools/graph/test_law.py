"""Which units run in integers: the second sentence of the law."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from haversack.base.encodings import Affine, Dynamic, Encodings, Float
from haversack.base.graph import Node, TensorSpec
from haversack.tools.graph.law import equal, runs_in_integers
from haversack.tools.graph.roles import Unit

OPS = frozenset({"conv2d", "linear", "add", "mean", "view", "cat", "relu"})


def affine(scale=0.5, zero_point=3, bits=8, signed=False):
    return Affine(bits, signed, None, np.array(scale, np.float32), np.array(zero_point, np.int32))


WEIGHT = Affine(8, True, 0, np.ones(2, np.float32), np.zeros(2, np.int32))


def node(op, inputs=("a:input#0",), weight=None, **attributes):
    return Node(f"m:{op}#0", op, op, tuple(inputs), TensorSpec((1, 2, 4, 4), "float32"), weight, None, (), attributes)


CONV = node("conv2d", weight="w")
ADD = node("add", ("a:input#0", "b:input#0"))
VIEW = node("view")
CAT = node("cat", ("a:input#0", "b:input#0"))
MEAN = node("mean", dim=[2, 3], keepdim=True)
A, B = "a:input#0:out", "b:input#0:out"


@pytest.mark.parametrize(
    ("unit", "tensors", "expected"),
    [
        (Unit(CONV), {A: affine(), "m:conv2d#0:out": affine(), "m:conv2d#0:weight": WEIGHT}, True),
        (Unit(CONV), {A: affine(), "m:conv2d#0:weight": WEIGHT}, False),
        (Unit(CONV), {"m:conv2d#0:out": affine(), "m:conv2d#0:weight": WEIGHT}, False),
        (Unit(CONV), {A: affine(), "m:conv2d#0:out": affine()}, False),
        (Unit(CONV), {A: affine(), "m:conv2d#0:out": affine(), "m:conv2d#0:weight": Float("float16")}, False),
        (
            Unit(CONV),
            {A: affine(), "m:conv2d#0:out": affine(), "m:conv2d#0:weight": WEIGHT, "m:conv2d#0:in": Dynamic()},
            False,
        ),
        (
            Unit(CONV, node("relu", ("m:conv2d#0",))),
            {A: affine(), "m:conv2d#0:out": affine(), "m:conv2d#0:weight": WEIGHT},
            False,
        ),
        (
            Unit(CONV, node("relu", ("m:conv2d#0",))),
            {A: affine(), "m:relu#0:out": affine(), "m:conv2d#0:weight": WEIGHT},
            True,
        ),
        (Unit(ADD), {A: affine(), B: affine(0.25), "m:add#0:out": affine(2.0)}, True),
        (Unit(ADD), {A: affine(), "m:add#0:out": affine()}, False),
        (Unit(MEAN), {A: affine(), "m:mean#0:out": affine(2.0)}, True),
        (Unit(node("mean", dim=[1])), {A: affine(), "m:mean#0:out": affine(2.0)}, False),
        (Unit(VIEW), {A: affine(), "m:view#0:out": affine()}, True),
        (Unit(VIEW), {A: affine(), "m:view#0:out": affine(2.0)}, False),
        (Unit(VIEW), {A: affine(), "m:view#0:out": affine(zero_point=4)}, False),
        (Unit(CAT), {A: affine(), B: affine(), "m:cat#0:out": affine()}, True),
        (Unit(CAT), {A: affine(), B: affine(0.25), "m:cat#0:out": affine()}, False),
        (Unit(node("softmax")), {A: affine(), "m:softmax#0:out": affine()}, False),
        (Unit(node("relu")), {A: affine(), "m:relu#0:out": affine()}, False),
    ],
)
def test_who_runs_in_integers(unit, tensors, expected):
    assert runs_in_integers(unit, Encodings(tensors), OPS) is expected


def test_an_op_without_a_kernel_runs_in_float():
    tensors = {A: affine(), B: affine(), "m:add#0:out": affine()}
    assert runs_in_integers(Unit(ADD), Encodings(tensors), OPS)
    assert not runs_in_integers(Unit(ADD), Encodings(tensors), OPS - {"add"})


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (affine(), True),
        (affine(np.nextafter(np.float32(0.5), np.float32(1))), False),
        (affine(zero_point=4), False),
        (affine(bits=7), False),
        (affine(zero_point=0, signed=True), False),
        (dataclasses.replace(WEIGHT, signed=False), False),
    ],
)
def test_equal_is_bit_for_bit(other, expected):
    assert equal(affine(), other) is expected
    assert equal(other, affine()) is expected
