"""What is said of inputs that a bundle preprocesses, where something else was given."""

from __future__ import annotations

import traceback

import numpy as np
import pytest

from haversack.base.errors import UsageError
from haversack.cli import main
from haversack.run.opening import open_model

STEPS = ({"op": "scale"}, {"op": "to_chw"})
READY = np.zeros((1, 1, 8, 8), np.float32)
RAW = np.zeros((1, 8, 8, 1), np.uint8)


@pytest.fixture
def raw(piece, write_bundle, tmp_path):
    return write_bundle(tmp_path / "raw", [piece("onnxruntime")], preprocess=STEPS)


def refused(folder, array) -> UsageError:
    with open_model(folder) as model, pytest.raises(UsageError) as caught:
        model(array)
    return caught.value


def test_what_is_preprocessed_already_is_told(raw, tmp_path, capsys):
    np.save(tmp_path / "ready.npy", READY)
    assert main(["run", str(raw), str(tmp_path / "ready.npy"), "--home", str(tmp_path / "home")]) == 2
    said = capsys.readouterr().err
    assert "the bundle preprocesses raw inputs, and image looks preprocessed already" in said
    assert "next: give image raw, [n, height, width, 1], as it is before scale, to_chw" in said
    assert "give image [n, 1, 8, 8]" not in said, "that is what was given"


def test_a_raw_input_of_another_size_is_told_the_raw_form(raw):
    error = refused(raw, RAW[:, :4])
    assert error.faults[0].cause == "axis 2 has 4, not 8"
    assert error.next_step.startswith("give image raw, [n, height, width, 1]")


def test_operations_before_to_chw_are_named_where_the_shape_is_not_known(piece, write_bundle, tmp_path):
    folder = write_bundle(tmp_path / "sized", [piece("onnxruntime")], preprocess=({"op": "resize", "short_side": 8},))
    assert refused(folder, RAW).next_step == (
        "give image raw, of 4 dimensions, the batch included, as it is before resize"
    )
    free = write_bundle(tmp_path / "free", [piece("onnxruntime")], preprocess=({"op": "scale"},))
    assert refused(free, RAW).next_step == "give image raw, batch first, as it is before scale"


def test_without_the_batch_one_error_says_what_to_add(raw):
    error = refused(raw, RAW[0])
    assert error.cause == "image lacks the axis of the batch"
    assert error.next_step == "add it: give x[None] in place of x"
    told = "".join(traceback.format_exception(error))
    assert told.count("Traceback") == 1, "one error, and not what led to it"
    with open_model(raw) as model:
        assert model(RAW[0][None])["scores"].shape == (1, 4)


def test_raw_inputs_that_are_not_finite_are_told_as_such(piece, write_bundle, tmp_path):
    """An operation refuses them in words of its own, which lead nowhere."""
    steps = ({"op": "resize", "short_side": 8}, {"op": "to_chw"})
    folder = write_bundle(tmp_path / "sized", [piece("onnxruntime")], preprocess=steps)
    array = RAW.astype(np.float32)
    array[0, 2, 3] = np.nan
    error = refused(folder, array)
    assert (error.cause, error.next_step) == ("the inputs are not finite", "give finite numbers")
    assert [str(fault) for fault in error.faults] == ["image: 1 of its 64 values are NaN or infinite"]
