"""A list of operations as data: every fault at once, the same result wherever it runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from haversack.base.errors import JobError
from haversack.tools.data.preprocess import Pipeline
from haversack.tools.data.preprocess.to_chw import ToChw

IMAGENET = (
    {"op": "resize", "short_side": 40},
    {"op": "center_crop", "height": 32, "width": 32},
    {"op": "scale"},
    {"op": "normalize"},
    {"op": "to_chw"},
)


def photo(rows=2):
    return np.random.default_rng(0).integers(0, 256, (rows, 60, 90, 3)).astype(np.uint8)


def test_the_usual_list_for_images_equals_pillow_and_numpy():
    (got,) = Pipeline.parse(IMAGENET)((photo(1),))
    shrunk = np.asarray(Image.fromarray(photo(1)[0]).resize((60, 40), Image.Resampling.BILINEAR))[4:36, 14:46]
    truth = (shrunk / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert got.shape == (1, 3, 32, 32)
    assert got.dtype == np.float32
    assert got[0] == pytest.approx(truth.transpose(2, 0, 1), abs=1e-5)


def test_no_operations_change_nothing():
    raw = photo()
    assert Pipeline.parse(())((raw,))[0] is raw


def test_an_operation_takes_the_input_it_names():
    pipeline = Pipeline.parse([{"op": "scale", "factor": 2.0, "input": 1}])
    first, second = pipeline((np.ones((1, 2)), np.ones((1, 2))))
    assert (first.tolist(), second.tolist()) == ([[1, 1]], [[2, 2]])
    with pytest.raises(JobError, match=r"preprocess\[0\].scale: there is no input 1: the sample has 1"):
        pipeline((np.ones((1, 2)),))


def test_it_runs_over_samples_lazily():
    got = Pipeline.parse(IMAGENET).over((photo(rows),) for rows in (1, 2))
    assert [sample[0].shape[0] for sample in got] == [1, 2]


def test_every_fault_of_every_entry_is_told_at_once():
    entries = [
        {"op": "resise"},
        {"op": "resize", "shortside": 4},
        {"short_side": 3},
        {"op": "scale", "input": -1, "factor": "x"},
        "resize",
        {"op": "pad", "axis": 0},
        {"op": "normalize", "mean": [0.5, "a"]},
        {"op": "to_chw"},
    ]
    with pytest.raises(JobError) as caught:
        Pipeline.parse(entries)
    assert [str(fault) for fault in caught.value.faults] == [
        "preprocess[0].op: there is no operation named 'resise'; did you mean resize?",
        "preprocess[1].shortside: unknown name; did you mean short_side?",
        "preprocess[2].op: it must name an operation",
        "preprocess[3].input: -1 is not the index of an input",
        "preprocess[3].factor: 'x' is not a value of type float",
        "preprocess[4]: it is a str, not a dictionary with names",
        "preprocess[5]: length must be at least 1, axis not 0, and value finite",
        "preprocess[6].mean[1]: 'a' is not a value of type float",
    ]
    assert "has: blur, brightness, center_crop, log_mel" in caught.value.next_step
    assert "preprocess = [" in caught.value.next_step


def test_a_list_of_another_name_is_told_by_it():
    entries = [{"op": "noise", "levle": 1.0}, {"op": "blurr"}]
    with pytest.raises(JobError, match="degraded cannot be read") as caught:
        Pipeline.parse(entries, name="degraded")
    assert [fault.where for fault in caught.value.faults] == ["degraded[0].levle", "degraded[1].op"]
    assert "degraded = [" in caught.value.next_step
    with pytest.raises(JobError, match=r"degraded\[0\].blur: blur cannot take int64"):
        Pipeline.parse([{"op": "blur"}], name="degraded")((np.ones((1, 4, 4), np.int64),))


def test_the_name_of_a_list_is_no_part_of_what_it_does():
    one, other = Pipeline.parse(IMAGENET), Pipeline.parse(IMAGENET, name="degraded")
    assert one == other
    assert one.digest == other.digest


def test_one_operation_alone_leaves_the_other_inputs_as_they_are():
    pipeline = Pipeline.parse([{"op": "scale", "factor": 2.0}, {"op": "scale", "factor": 3.0, "input": 1}])
    raw = np.ones((1, 2)), np.ones((1, 2))
    first, second = pipeline.alone(1, raw)
    assert first is raw[0]
    assert second.tolist() == [[3, 3]]


def test_a_fault_at_run_time_names_the_entry():
    with pytest.raises(JobError) as caught:
        Pipeline.parse(IMAGENET)((photo().astype(np.float64),))
    assert caught.value.where == "preprocess[0].resize"
    assert "resize cannot take float64 [2, 60, 90, 3]" in caught.value.cause
    assert "it takes uint8 or float32" in str(caught.value)


def test_the_data_say_every_setting_and_read_back_through_json():
    pipeline = Pipeline.parse(IMAGENET)
    data = json.loads(json.dumps(pipeline.data()))
    assert data[1] == {"op": "center_crop", "input": 0, "height": 32, "width": 32}
    again = Pipeline.parse(data)
    assert again == pipeline
    assert np.array_equal(again((photo(),))[0], pipeline((photo(),))[0])


def test_the_digest_is_of_what_it_does():
    pipeline = Pipeline.parse(IMAGENET)
    said = [{"op": "scale", "factor": 1 / 255, "offset": 0.0, "input": 0}]
    assert Pipeline.parse(said).digest == Pipeline.parse([{"op": "scale"}]).digest
    assert Pipeline.parse(IMAGENET[:-1]).digest != pipeline.digest
    assert Pipeline.parse(IMAGENET[::-1]).digest != pipeline.digest


TURNED = [{"op": "scale", "factor": 0.1, "offset": -0.3}, {"op": "scale", "factor": 3.0}, {"op": "to_chw"}]


@pytest.mark.parametrize("plain", [(), (0,)])
@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_axes_are_moved_before_values_are_computed(plain, dtype, monkeypatch):
    """The same bits as operation by operation in the order of the list; contiguous where the runtime wants it."""
    image = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3)).astype(dtype)
    pipeline = Pipeline.parse(TURNED)
    expected = (image,)
    for index in range(len(TURNED)):
        expected = pipeline.alone(index, expected)
    seen, moved = [], ToChw._apply
    monkeypatch.setattr(ToChw, "_apply", lambda self, batch: seen.append(batch.dtype) or moved(self, batch))
    (found,) = pipeline.strided((image,), plain)
    assert seen == [dtype]
    assert found.dtype == np.float32
    assert found.tobytes() == expected[0].tobytes()
    assert found.flags.c_contiguous == bool(plain)
    assert found.transpose(0, 2, 3, 1).flags.c_contiguous != bool(plain)
    assert pipeline((image,))[0].tobytes() == expected[0].tobytes()


def test_axes_are_not_moved_past_what_depends_on_them():
    image = np.random.default_rng(0).integers(0, 256, (1, 6, 4, 3), np.uint8)
    steps = [{"op": "scale"}, {"op": "normalize"}, {"op": "to_chw"}]
    expected = (image,)
    for index in range(len(steps)):
        expected = Pipeline.parse(steps).alone(index, expected)
    assert Pipeline.parse(steps)((image,))[0].tobytes() == expected[0].tobytes()
    other = [{"op": "scale", "input": 1}, {"op": "to_chw", "input": 0}]
    first, second = Pipeline.parse(other).strided((image, image), (0,))
    assert first.shape == (1, 3, 6, 4)
    assert first.flags.c_contiguous
    assert second.shape == image.shape


def test_the_first_operation_that_is_wrong_is_told_whatever_is_computed_first():
    wrong = np.full((2, 3), np.nan)
    with pytest.raises(JobError, match="NaN") as caught:
        Pipeline.parse(TURNED).strided((wrong,))
    assert caught.value.where == "preprocess[0].scale"
    with pytest.raises(JobError, match="cannot take") as caught:
        Pipeline.parse(TURNED).strided((np.ones((2, 3)),))
    assert caught.value.where == "preprocess[2].to_chw"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_found(value):
    batch = np.zeros((1, 9, 9, 3), np.float32)
    batch[0, 4, 5, 1] = value
    for place in (batch, batch[:, ::-1], batch.transpose(0, 3, 1, 2)):
        with pytest.raises(JobError, match="NaN or infinite"):
            Pipeline.parse([{"op": "scale"}])((place,))
