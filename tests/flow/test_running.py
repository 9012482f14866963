"""An artefact as a predictor: names, order and layout of its file stay its own business."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.candidate import Artifact
from haversack.base.graph import TensorSpec
from haversack.base.model import Port
from haversack.flow.running import Running, feeds


def port(name, *shape):
    return Port(name, TensorSpec(shape, "float32"))


ARTIFACT = Artifact(
    "anywhere",
    (),
    inputs=(port("picture", 1, 4, 4, 3), port("scale", 1)),
    outputs=(port("map", 1, 4, 4, 3), port("sum", 1)),
    runtime_version="1",
    layouts={"picture": "NHWC", "map": "NHWC"},
)
SAMPLE = (np.arange(96, dtype=np.float32).reshape(2, 3, 4, 4), np.array([2.0, 3.0], np.float32))


class Multiplier:
    """A runtime that wants channels last, and multiplies."""

    def run(self, handle, inputs):
        assert handle == "handle"
        assert inputs["picture"].shape == (2, 4, 4, 3)
        made = inputs["picture"] * inputs["scale"][:, None, None, None]
        return {"sum": made.sum((1, 2, 3)), "map": made}


def test_a_sample_is_laid_out_as_the_file_has_it():
    found = feeds(ARTIFACT, SAMPLE)
    assert list(found) == ["picture", "scale"]
    np.testing.assert_array_equal(found["picture"][1, 2, 3], SAMPLE[0][1, :, 2, 3])


def test_outputs_come_in_the_models_order_and_layout():
    model = (port("sum", 1), port("map", 1, 3, 4, 4))
    total, made = Running(Multiplier(), "handle", ARTIFACT, model)(SAMPLE)
    wanted = SAMPLE[0] * SAMPLE[1][:, None, None, None]
    np.testing.assert_array_equal(made, wanted)
    np.testing.assert_allclose(total, wanted.sum((1, 2, 3)), rtol=1e-6)


def test_a_sample_of_another_number_of_arrays_does_not_run():
    with pytest.raises(ValueError, match="zip"):
        feeds(ARTIFACT, SAMPLE[:1])
