"""The torch side of the arithmetic is the NumPy side, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from haversack.base.encodings import Affine
from haversack.targets.reference import grid
from haversack.tools.numerics import affine

SCALES = st.floats(2.0**-20, 2.0**10, width=32)


def tensor(scale, zero_point=0, bits=8):
    return Affine(
        bits, signed=False, axis=None, scale=np.array(scale, np.float32), zero_point=np.array(zero_point, np.int32)
    )


@given(hnp.arrays(np.float32, 30, elements=st.floats(-(2.0**20), 2.0**20, width=32)), SCALES, st.integers(0, 255))
def test_snap_is_quantize_then_dequantize(x, scale, zero_point):
    encoding = tensor(scale, zero_point)
    got = grid.snap(torch.from_numpy(x.copy()), encoding).numpy()
    assert got.tobytes() == affine.dequantize(affine.quantize(x, encoding), encoding).tobytes()


@given(SCALES, st.integers(0, 255), st.integers(-300, 300))
def test_snap_rounds_half_to_even_where_numpy_does(scale, zero_point, step):
    encoding = tensor(scale, zero_point)
    x = np.float32([(step + 0.5) * scale, np.nextafter(np.float32((step + 0.5) * scale), np.float32(0))])
    got = grid.snap(torch.from_numpy(x.copy()), encoding).numpy()
    assert got.tobytes() == affine.dequantize(affine.quantize(x, encoding), encoding).tobytes()


def test_snap_leaves_its_argument_alone():
    x = torch.tensor([0.3, 0.7])
    grid.snap(x, tensor(1.0))
    assert x.tolist() == [pytest.approx(0.3), pytest.approx(0.7)]


@given(SCALES, st.sampled_from([0, 1, 30000, 65535]))
def test_all_codes_of_16_bits_come_back(scale, zero_point):
    encoding = tensor(scale, zero_point, 16)
    codes = np.arange(65536)
    values = torch.from_numpy(affine.dequantize(codes, encoding))
    assert np.array_equal(grid.centered(values, encoding).numpy(), codes - zero_point)


@pytest.mark.parametrize(
    "bounds, expected",
    [
        (None, (-10, 245)),
        ((0.0, float("inf")), (0, 245)),
        ((-1.0, 1.0), (-2, 2)),
        ((-1e9, 6.0), (-10, 12)),
        ((float("-inf"), float("inf")), (-10, 245)),
        ((3.0, 3.0), (6, 6)),
    ],
)
def test_limits(bounds, expected):
    assert grid.limits(tensor(0.5, 10), bounds) == expected


def test_zero_has_no_sign():
    settled = grid.settle(torch.tensor([-0.2, 0.2, -0.0]), tensor(1.0, 3), -3, 252).numpy()
    assert settled.tobytes() == np.zeros(3, np.float32).tobytes()
