"""Adds and means against exact fractions: with tie-free scales the rounded integer leaves no choice."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from haversack.base.encodings import Affine
from haversack.base.graph import Node, TensorSpec
from haversack.targets.reference.combine import IntegerAdd, IntegerMean
from haversack.tools.numerics import affine
from haversack.tools.numerics.ties import tie_free

CODES = hnp.arrays(np.int32, (2, 3, 4, 4), elements=st.integers(0, 255))
SCALES = st.floats(2.0**-8, 2.0**4, width=32)
ZEROS = st.integers(0, 255)


def tensor(scale, zero_point=0):
    return Affine(
        8, signed=False, axis=None, scale=np.array(scale, np.float32), zero_point=np.array(zero_point, np.int32)
    )


def flowing(codes, encoding):
    return torch.from_numpy(affine.dequantize(codes, encoding))


@given(CODES, CODES, st.floats(0.05, 3), st.floats(0.05, 3), SCALES, ZEROS, ZEROS, ZEROS, st.booleans())
def test_add(a, b, ratio_a, ratio_b, scale, zero_a, zero_b, zero, relu):
    out = tensor(scale, zero)
    one = tensor(tie_free(ratio_a * scale, scale), zero_a)
    two = tensor(tie_free(ratio_b * scale, scale), zero_b)
    k = [round(Fraction(float(each.scale)) / Fraction(scale) * 501) for each in (one, two)]
    expected = np.empty(a.shape, np.int32)
    for index in np.ndindex(a.shape):
        total = Fraction(k[0] * (int(a[index]) - zero_a) + k[1] * (int(b[index]) - zero_b), 501)
        expected[index] = min(255, max(zero if relu else 0, round(total) + zero))
    kernel = IntegerAdd((one, two), out, (0.0, float("inf")) if relu else None)
    got = kernel(flowing(a, one), flowing(b, two)).numpy()
    assert got.tobytes() == affine.dequantize(expected, out).tobytes()


def test_add_broadcasts():
    rows = np.arange(6, dtype=np.int32).reshape(2, 3)
    kernel = IntegerAdd((tensor(1.0), tensor(1.0)), tensor(1.0), None)
    got = kernel(flowing(rows, tensor(1.0)), flowing(np.int32([10, 20, 30]), tensor(1.0)))
    assert got.tolist() == [[10, 21, 32], [13, 24, 35]]


def mean(op, **attributes):
    return Node(f"m:{op}#0", op, op, ("x:input#0",), TensorSpec((2, 3), "float32"), attributes=attributes)


@given(CODES, st.floats(0.1, 4), SCALES, ZEROS, ZEROS)
def test_mean(codes, ratio, scale, zero_in, zero):
    out = tensor(scale, zero)
    source = tensor(tie_free(ratio * scale, scale, multiple=16), zero_in)  # 16 values: 2^4
    k = round(Fraction(float(source.scale)) / Fraction(scale) * 501)
    total = (codes.astype(int) - zero_in).sum((2, 3))
    rounded = [[round(Fraction(int(each) * k, 501 * 16)) for each in row] for row in total]
    expected = np.clip(np.array(rounded) + zero, 0, 255)
    value = affine.dequantize(expected, out)
    for node, shape in (
        (mean("adaptive_avg_pool2d", output_size=[1, 1]), (2, 3, 1, 1)),
        (mean("mean", dim=[2, 3], keepdim=True), (2, 3, 1, 1)),
        (mean("mean", dim=[-1, -2], keepdim=False), (2, 3)),
    ):
        got = IntegerMean(node, source, out, None)(flowing(codes, source)).numpy()
        assert got.shape == shape
        assert got.tobytes() == value.tobytes()
