"""Lowering: what ncnn cannot hold is told before anything is written, all at once, and a failure leaves nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from haversack.base.encodings import Affine, Codebook, Dynamic, Encodings, Float
from haversack.base.errors import ConversionError
from haversack.targets.ncnn import Ncnn, session
from haversack.targets.ncnn.faults import faults
from haversack.tools.numerics import affine

TARGET = Ncnn()


@pytest.fixture(scope="module")
def model(exported, picture):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    return exported(net, picture(0, 2, 3, 8, 8))


@pytest.fixture(scope="module")
def encodings(model, planned, picture):
    return planned(model, [(picture(0, 4, 3, 8, 8),)])


def activation(scale=0.1, zero=128, bits=8, axis=None):
    shape = () if axis is None else (4,)
    return Affine(bits, False, axis, np.full(shape, scale, np.float32), np.full(shape, zero, np.int32))


def test_the_artifact_tells_what_was_written(model, encodings, tmp_path):
    artifact = TARGET.lower(model, encodings, tmp_path)
    assert [file.path for file in artifact.files] == ["model.param", "model.bin"]
    assert artifact.target == "ncnn"
    assert artifact.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert artifact.tensor_names["1:relu#0:out"] == "1:relu#0:out/codes"
    assert set(artifact.tensor_names) == {key for key in encodings.tensors if key.endswith(":out")}
    assert set(artifact.bias_digests) == {"0:conv2d#0", "3:linear#0"}
    assert artifact.session_options == {}


def test_the_files_have_other_names_if_asked(model, tmp_path):
    artifact = Ncnn("net.param").lower(model, Encodings.none(), tmp_path)
    assert [file.path for file in artifact.files] == ["net.param", "net.bin"]
    assert len(Ncnn("net.param").open_session(tmp_path / "net.param").outputs) == 1


HELD_NOT = {
    "zero is the code 0 here instead of 128": ("1:relu#0:out", activation(zero=0)),
    "its scale has no float32 inverse": ("1:relu#0:out", activation(scale=1e-39)),
    "an activation is held in 8 bits with one scale": ("1:relu#0:out", activation(bits=4, zero=8)),
    "an activation is held as Affine, not as Float": ("1:relu#0:out", Float("float16")),
    "it is inside a fused unit": ("0:conv2d#0:out", activation()),
    "the scales of a weight go along axis 0, not 1": (
        "3:linear#0:weight",
        affine.symmetric(np.full(144, 0.1, np.float32), 8, 1),
    ),
    "a weight is held as symmetric int8": ("3:linear#0:weight", affine.symmetric(np.full(2, 0.1, np.float32), 4, 0)),
    "a weight is held as Affine or float16, not as Codebook": (
        "3:linear#0:weight",
        Codebook(4, np.arange(16, dtype=np.float32), 0),
    ),
    "ncnn quantizes no input at run time here": ("3:linear#0:in", Dynamic()),
}


@pytest.mark.parametrize("cause", HELD_NOT)
def test_what_ncnn_cannot_hold_is_told_by_its_key(model, encodings, tmp_path, cause):
    key, encoding = HELD_NOT[cause]
    integers = {name: codes * 0 if name == key else codes for name, codes in encodings.integers.items()}
    bad = Encodings({**encodings.tensors, key: encoding}, integers)
    with pytest.raises(ConversionError, match="cannot hold these encodings") as caught:
        TARGET.lower(model, bad, tmp_path)
    assert (key, True) in [(fault.where, cause in fault.cause) for fault in caught.value.faults]
    assert caught.value.next_step == "encode the model under this target's constraints"
    assert list(tmp_path.iterdir()) == []


def test_all_of_them_are_told_together(model, encodings):
    wrong = {"1:relu#0:out": activation(zero=3), "3:linear#0:out": activation(zero=4)}
    found = faults(model, Encodings({**encodings.tensors, **wrong}, encodings.integers))
    assert [fault.where for fault in found] == sorted(wrong)
    assert faults(model, encodings) == ()


def test_sums_that_float32_does_not_hold_are_refused(exported, planned, picture, tmp_path):
    net = nn.Conv1d(1100, 1, 1, bias=False)
    nn.init.constant_(net.weight, 1.0)
    x = picture(0, 2, 1100, 2)
    model = exported(net, x)
    with pytest.raises(ConversionError, match=r"sums of up to 17741900, and float32 is exact up to 16777216") as caught:
        TARGET.lower(model, planned(model, [(x,)]), tmp_path)
    assert caught.value.where == ":conv1d#0"


def test_a_multiplier_without_an_inverse_is_refused(model, encodings, tmp_path):
    tensors = dict(encodings.tensors)
    tiny = affine.symmetric(np.full(4, 1e-38, np.float32), 8, 0)
    tensors["0:conv2d#0:weight"] = tiny
    tensors["0:input#0:out"] = tensors.get("0:input#0:out")
    tensors = {key: one for key, one in tensors.items() if one is not None}
    tensors["1:relu#0:out"] = activation(scale=1e3)
    weights = {**model.weights, "0.bias": np.zeros(4, np.float32)}
    with pytest.raises(ConversionError, match="too small for float32"):
        TARGET.lower(replace(model, weights=weights), Encodings(tensors, encodings.integers), tmp_path)


def test_files_that_the_runtime_refuses_are_not_left(model, monkeypatch, tmp_path):
    def refuses(path, threads):
        raise ConversionError("ncnn does not open it", where=str(path))

    monkeypatch.setattr(session, "opened", refuses)
    with pytest.raises(ConversionError) as caught:
        TARGET.lower(model, Encodings.none(), tmp_path)
    assert caught.value.tried == "ncnn's Net on the files just written"
    assert caught.value.next_step == "leave this target out, and report this"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["float16", "int8_weights"])
def test_stored_weights_compute_in_float(model, planned, lower, picture, precision):
    one = lower(model, planned(model, [], precision))
    x = picture(5, 3, 3, 8, 8)
    np.testing.assert_allclose(one.file(x)[0], one.reference(x)[0], rtol=1e-4, atol=1e-5)
    exact = one.reference(x, arithmetic="law")[0]
    np.testing.assert_allclose(one.file(x)[0], exact, rtol=1e-4, atol=1e-5)
    plain = TARGET.lower(model, Encodings.none(), one.path.parent / "plain")
    tables = 2 * 1024 if precision == "int8_weights" else 0  # ncnn's table of values, once for each weight
    assert one.artifact.bytes - tables < plain.bytes * (0.75 if precision == "float16" else 0.6)


def test_one_scale_for_a_whole_weight(model, planned, lower, picture):
    x = picture(6, 3, 3, 8, 8)
    one = lower(model, planned(model, [(x,)], granularity="tensor"))
    assert one.encodings.affine("0:conv2d#0:weight").axis is None
    assert one.artifact.injected == one.artifact.read_back
    np.testing.assert_array_equal(one.file(x)[0], one.reference(x)[0])


def test_its_constraints_are_symmetric(model):
    found = TARGET.constraints(model.graph)
    assert found.symmetric
    assert "conv2d" in found.integer_ops
    assert found.bounds["1:relu#0:out"] == (0.0, float("inf"))
