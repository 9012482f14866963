"""Between the model's arrays and the file's: layouts and codes, there and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from haversack.base.candidate import Artifact
from haversack.base.graph import TensorSpec
from haversack.base.model import Port
from haversack.tools.data import interface

IMAGE = Port("image", TensorSpec((1, 8, 6, 3), "int8"))
SCORES = Port("scores", TensorSpec((1, 4), "int8"))


def artifact(layouts=(), grids=()):
    return Artifact("t", (), (IMAGE,), (SCORES,), "1", layouts=dict(layouts), grids=dict(grids))


def test_the_ports_of_the_model():
    found = artifact({"image": "NHWC"}, {"image": (0.5, 3)})
    assert interface.port_of_model(found, IMAGE) == Port("image", TensorSpec((1, 3, 8, 6), "float32"))
    assert interface.port_of_model(found, SCORES) == SCORES
    named = Port("image", TensorSpec(("batch", "length", 5), "float32"))
    turned = interface.port_of_model(artifact({"image": "NWC"}), named)
    assert turned.spec.shape == ("batch", 5, "length")
    with pytest.raises(ValueError, match="is no order of 2 axes"):
        interface.port_of_model(artifact({"scores": "NHWC"}), SCORES)


@given(hnp.arrays(np.int8, (2, 8, 6, 3)), st.floats(2**-10, 8, width=32), st.integers(-128, 127))
def test_codes_of_values_of_codes(codes, scale, zero_point):
    """What the file gives as codes means values; the file would give these values the same codes."""
    found = artifact({"image": "NHWC"}, {"image": (scale, zero_point)})
    values = interface.as_model(found, {"image": codes})["image"]
    assert (values.shape, values.dtype) == ((2, 3, 8, 6), np.float32)
    wanted = np.float32(scale) * (codes.astype(np.float32) - zero_point)
    np.testing.assert_array_equal(values, wanted.transpose(0, 3, 1, 2))
    again = interface.as_file(found, {"image": values})["image"]
    assert again.flags.c_contiguous
    np.testing.assert_array_equal(again, codes)


def test_what_has_neither_is_passed_on():
    x = np.arange(4.0)
    assert interface.as_file(artifact(), {"scores": x})["scores"] is x
    assert interface.as_model(artifact(), {"scores": x})["scores"] is x


def test_nan_has_no_code():
    with pytest.raises(ValueError, match="NaN"):
        interface.as_file(artifact(grids={"scores": (1.0, 0)}), {"scores": np.array([[np.nan]], np.float32)})
