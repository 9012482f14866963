"""Files open in ncnn: what a session takes and gives, and what happens when a file is none or kills the runtime."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.base.errors import ConversionError, HaversackError, UsageError
from haversack.measure.device import Opening
from haversack.measure.local import LocalDevice
from haversack.targets.contract import opened_first
from haversack.targets.ncnn import Ncnn
from haversack.targets.ncnn.read import beside
from haversack.tools.worker.process import Limits


@pytest.fixture(scope="module")
def small(exported, picture, lowered_once):
    """A convolution and a linear layer in float."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 2))
    return lowered_once(exported(net, picture(0, 3, 3, 8, 8), outputs=("scores",)), Encodings.none())


@pytest.fixture
def copied(small, tmp_path):
    """A copy of its .param file, with the .bin file beside it."""
    shutil.copyfile(beside(small.path), tmp_path / "model.bin")
    return shutil.copyfile(small.path, tmp_path / "model.param")


def test_its_ports_are_the_models_with_a_batch_of_one(small):
    session = small.session
    assert [(port.name, port.spec.shape, port.spec.dtype) for port in session.inputs] == [
        (small.model.inputs[0].name, (1, 3, 8, 8), "float32")
    ]
    assert [(port.name, port.spec.shape) for port in session.outputs] == [("scores", (1, 2))]
    assert (session.inputs, session.outputs) == (small.artifact.inputs, small.artifact.outputs)


def test_rows_of_a_batch_run_one_after_another(small, picture):
    x = picture(1, 5, 3, 8, 8)
    (together,) = small.file(x)
    assert together.shape == (5, 2)
    for row in range(5):
        np.testing.assert_array_equal(small.file(x[row : row + 1])[0][0], together[row])


def test_an_input_is_not_changed_and_may_lie_anyhow(small, picture):
    x = picture(2, 2, 3, 8, 8)
    before = x.copy()
    turned = np.asfortranarray(x)
    np.testing.assert_array_equal(small.file(turned)[0], small.file(x)[0])
    np.testing.assert_array_equal(x, before)


BAD = {
    "nothing": {},
    "another name": {"other": np.zeros((1, 3, 8, 8), np.float32)},
    "one too many": {"x": np.zeros((1, 3, 8, 8), np.float32), "y": np.zeros(1, np.float32)},
    "another shape": {"x": np.zeros((1, 3, 8, 9), np.float32)},
    "no batch": {"x": np.zeros((3, 8, 8), np.float32)},
    "no rows": {"x": np.zeros((0, 3, 8, 8), np.float32)},
    "another dtype": {"x": np.zeros((1, 3, 8, 8), np.float64)},
    "a number": {"x": np.float32(1)},
}


@pytest.mark.parametrize("name", BAD)
def test_inputs_that_do_not_fit_are_refused(small, name):
    port = small.model.inputs[0].name
    with pytest.raises(UsageError, match="the inputs do not fit") as caught:
        small.session.run({port if key == "x" else key: value for key, value in BAD[name].items()})
    assert caught.value.next_step == f"give {port} [rows, 3, 8, 8] float32"


def test_a_closed_session_is_closed(small, picture):
    session = Ncnn().open_session(small.path)
    session.close()
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.run({small.model.inputs[0].name: picture(0, 1, 3, 8, 8)})


def test_there_are_no_options(small):
    with pytest.raises(UsageError, match="no session options: a, b"):
        Ncnn().open_session(small.path, {"b": "1", "a": "2"})


def test_more_threads_give_the_same(small, picture):
    x = picture(3, 1, 3, 8, 8)
    found = Ncnn().open_session(small.path, threads=2).run({small.model.inputs[0].name: x})["scores"]
    np.testing.assert_allclose(found, small.file(x)[0], rtol=1e-5, atol=1e-6)


def changed(path, old, new):
    """Replace one text in a .param file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


SPOILED = {
    "an empty file": (lambda path: path.write_bytes(b""), "begin with ncnn's number"),
    "no .bin file": (lambda path: beside(path).unlink(), "model.bin"),
    "half a .bin file": (lambda path: beside(path).write_bytes(beside(path).read_bytes()[:100]), "bytes for"),
    "a .bin file and more": (lambda path: beside(path).write_bytes(beside(path).read_bytes() + bytes(4)), "left over"),
    "a layer that nobody has": (lambda path: changed(path, "ReLU", "Nothing") if "ReLU" in path.read_text() else
                                changed(path, "Reshape", "Nothing"), "ncnn does not open it"),
    "no shape of an output": (lambda path: changed(path, " -23330=4,1,2,1,1", ""), "does not tell its shape"),
    "a shape of none": (lambda path: changed(path, "-23330=4,1,2,1,1", "-23330=4,1,0,1,1"), "has the shape [0]"),
    "an input of none": (lambda path: changed(path, "0=8 1=8 2=3", "0=8 1=8 2=0"), "has the shape [0, 8, 8]"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILED)
def test_files_that_are_none_are_refused_by_name(copied, name):
    edit, cause = SPOILED[name]
    edit(copied)
    with pytest.raises(ConversionError, match="ncnn does not open it") as caught:
        Ncnn().open_session(copied)
    assert cause in str(caught.value)
    assert str(copied) in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConversionError, match=r"nothing.param"):
        Ncnn().open_session(tmp_path / "nothing.param")


def test_a_file_that_kills_ncnn_does_not_end_this_process(copied, small, picture):
    """A pad of a million makes ncnn write where nothing is its own: the process that has the file open dies."""
    changed(copied, "4=0", "4=1000000")
    x = {small.model.inputs[0].name: picture(0, 1, 3, 8, 8)}
    with LocalDevice(limits=Limits(call_seconds=20.0, start_seconds=20.0)) as device:
        with pytest.raises(HaversackError, match="SIG|ended|crash"):
            device.run(device.load(Opening(copied, "ncnn", {})), x)
        handle = device.load(Opening(small.path, "ncnn", {}))
        np.testing.assert_array_equal(device.run(handle, x)["scores"], small.session.run(x)["scores"])


def test_what_opens_elsewhere_first_is_heard(copied):
    told = []

    def opens(path, options, threads):
        told.append((path, dict(options), threads))
        raise ConversionError("the process ended", where=str(path))

    with opened_first(opens), pytest.raises(ConversionError, match="the process ended"):
        Ncnn().open_session(copied)
    assert told == [(copied, {}, 1)]


def test_the_artifact_survives_a_record(small):
    from haversack.base.candidate import Artifact
    from haversack.base.recipe import structure, unstructure

    data = json.loads(json.dumps(unstructure(small.artifact)))
    assert structure(data, Artifact, where="artifact") == small.artifact
