"""Reading back: whatever differs from what was written is told, with its place; a spoiled file is no crash."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.base.errors import VerificationError
from haversack.targets.litert import LiteRT
from haversack.targets.litert.flat import Quantization, Tensor, pack
from haversack.targets.litert.unflat import File
from haversack.tools.graph.injection import differences

TARGET = LiteRT()


@pytest.fixture(scope="module")
def written(zoo, encoded, tmp_path_factory):
    """(bytes, artifact, encodings) of the residual network in int8."""
    model, sample = zoo["residual"]
    encodings = encoded(model, [sample])
    folder = tmp_path_factory.mktemp("written")
    artifact = TARGET.lower(model, encodings, folder)
    return (folder / "model.tflite").read_bytes(), artifact, encodings


def tensor(file, name):
    return next(one for one in file.subgraphs[0].tensors if one.name == name)


def changed(file, name, change):
    """Change the bytes of a constant, as an array of uint8."""
    one = tensor(file, name)
    data = np.frombuffer(file.buffers[one.buffer], np.uint8).copy()
    change(data)
    file.buffers.append(data.tobytes())
    one.buffer = len(file.buffers) - 1


def rescaled(file, name, factor, shift=0):
    one = tensor(file, name)
    old = one.quantization
    scale = (old.scale * np.float32(factor)).astype(np.float32)
    one.quantization = Quantization(scale, old.zero_point + shift, old.axis)


def found(file, artifact, folder):
    """Return the encodings that the changed file holds, or the error that reading it gives."""
    path = folder / "changed.tflite"
    path.write_bytes(pack(file.subgraphs, file.buffers))
    try:
        return TARGET.read(path, artifact)
    except VerificationError as error:
        return error


def plus_one(data):
    data[0] = 100 if data[0] != 100 else 99


def test_a_file_unpacked_and_packed_is_the_same_file(written):
    data, _, _ = written
    file = File(data)
    again = File(pack(file.subgraphs, file.buffers))
    assert [graph.tensors[0].name for graph in again.subgraphs] == [graph.tensors[0].name for graph in file.subgraphs]
    assert again.buffers == file.buffers
    assert pack(again.subgraphs, again.buffers) == pack(file.subgraphs, file.buffers)


def test_unchanged_it_holds_what_was_asked(written, tmp_path):
    data, artifact, encodings = written
    read = found(File(data), artifact, tmp_path)
    count, faults = differences(encodings, read)
    assert faults == ()
    assert count == artifact.injected - 8 - 5, "all but the codes of the two biases"


def test_a_changed_integer_is_seen(written, tmp_path):
    data, artifact, encodings = written
    file = File(data)
    changed(file, "two:conv2d#0:weight/codes", plus_one)
    _, faults = differences(encodings, found(file, artifact, tmp_path))
    assert [(fault.where, fault.cause) for fault in faults] == [("two:conv2d#0:weight", "1 of 64 integers differ")]


@pytest.mark.parametrize("name", ["one:conv2d#0:weight/codes", "head:linear#0:weight/codes"])
def test_a_changed_scale_of_a_weight_is_seen(written, tmp_path, name):
    data, artifact, encodings = written
    file = File(data)
    rescaled(file, name, 1.0001)
    _, faults = differences(encodings, found(file, artifact, tmp_path))
    assert [fault.where for fault in faults] == [name.removesuffix("/codes")]
    assert "scale" in faults[0].cause


@pytest.mark.parametrize("factor, shift", [(1.0001, 0), (1.0, 1)])
def test_a_changed_meaning_of_an_activation_is_seen(written, tmp_path, factor, shift):
    data, artifact, encodings = written
    key = ":add#0:out"
    file = File(data)
    rescaled(file, artifact.tensor_names[key], factor, shift)
    _, faults = differences(encodings, found(file, artifact, tmp_path))
    assert [fault.where for fault in faults] == [key]


@pytest.mark.parametrize("key", ["one:conv2d#0", "head:linear#0"])
def test_a_changed_bias_is_seen(written, tmp_path, key):
    data, artifact, _ = written
    for change in (
        lambda file: changed(file, f"{key}:bias/codes", plus_one),
        lambda file: rescaled(file, f"{key}:bias/codes", 1.0001),
    ):
        file = File(data)
        change(file)
        error = found(file, artifact, tmp_path)
        assert isinstance(error, VerificationError)
        assert [fault.where for fault in error.faults] == [key]


def test_a_bias_where_none_was_asked_is_seen(written, tmp_path):
    data, artifact, _ = written
    file = File(data)
    changed(file, "two:conv2d#0:bias/none", plus_one)
    error = found(file, artifact, tmp_path)
    assert "nobody asked for" in str(error)


def test_a_zero_point_of_a_bias_or_weight_is_told(written, tmp_path):
    data, artifact, _ = written
    for name, cause in (("one:conv2d#0:bias/codes", "zero-point"), ("one:conv2d#0:weight/codes", "not symmetric")):
        file = File(data)
        rescaled(file, name, 1.0, 1)
        assert cause in str(found(file, artifact, tmp_path))


def test_the_lowest_code_is_told(written, tmp_path):
    data, artifact, _ = written
    file = File(data)
    changed(file, "two:conv2d#0:weight/codes", lambda array: array.__setitem__(3, 128))
    assert "holds -128" in str(found(file, artifact, tmp_path))


def test_a_missing_tensor_is_told(written, tmp_path):
    data, artifact, _ = written
    file = File(data)
    tensor(file, artifact.tensor_names[":add#0:out"]).name = "else"
    assert "the file has no tensor" in str(found(file, artifact, tmp_path))


def test_codes_that_nobody_asked_for_are_told(written, tmp_path):
    data, artifact, _ = written
    names = dict(artifact.tensor_names)
    del names[":add#0:out"]
    error = found(File(data), dataclasses.replace(artifact, tensor_names=names), tmp_path)
    assert "codes that were not asked for" in str(error)


def test_an_activation_without_meaning_is_told(written, tmp_path):
    data, artifact, _ = written
    file = File(data)
    tensor(file, artifact.tensor_names[":add#0:out"]).quantization = None
    assert "no one scale and zero-point" in str(found(file, artifact, tmp_path))


def test_scales_along_another_axis_are_told(written, tmp_path):
    data, artifact, _ = written
    file = File(data)
    one = tensor(file, "one:conv2d#0:weight/codes")
    one.quantization = Quantization(one.quantization.scale, one.quantization.zero_point, 3)
    assert "along axis 3" in str(found(file, artifact, tmp_path))


@pytest.mark.parametrize(
    "change, cause",
    [
        (lambda file: file.buffers.__setitem__(1, b"abc"), "bytes are not"),
        (lambda file: setattr(file.subgraphs[0].tensors[0], "buffer", 999), "names a buffer"),
        (lambda file: file.subgraphs[0].operators.reverse(), "made only later"),
        (lambda file: file.subgraphs[0].outputs.__setitem__(0, ("x", 9999)), "names a tensor"),
        (lambda file: setattr(file.subgraphs[0].tensors[0], "shape", (-3,)), "a length below 0"),
        (lambda file: file.subgraphs.clear(), "no subgraph"),
    ],
)
def test_parts_that_do_not_hold_together_are_told(written, tmp_path, change, cause):
    data, artifact, _ = written
    file = File(data)
    change(file)
    error = found(file, artifact, tmp_path)
    assert isinstance(error, VerificationError)
    assert cause in str(error)


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\0\0\0\0TFL3", b"\xff" * 64, b"\x10\0\0\0TFL3" + b"\xff" * 64])
def test_what_is_no_file_of_ours_is_told(written, tmp_path, data):
    _, artifact, _ = written
    path = tmp_path / "odd.tflite"
    path.write_bytes(data)
    with pytest.raises(VerificationError, match="not a LiteRT file that we have written"):
        TARGET.read(path, artifact)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_flipped_byte_never_crashes_the_reader(written, tmp_path_factory, data):
    original, artifact, encodings = written
    place = data.draw(st.integers(0, len(original) - 1))
    spoiled = bytearray(original)
    spoiled[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("flip") / "model.tflite"
    path.write_bytes(spoiled)
    try:
        read = TARGET.read(path, artifact)
    except VerificationError as error:
        assert str(path) in str(error)
    else:
        assert set(read.tensors) <= set(encodings.tensors)


@pytest.mark.parametrize("length", [8, 100, 1000])
def test_a_cut_file_is_told(written, tmp_path, length):
    data, artifact, _ = written
    path = tmp_path / "cut.tflite"
    path.write_bytes(data[:length])
    with pytest.raises(VerificationError):
        TARGET.read(path, artifact)


def test_a_tensor_is_told_apart_by_its_fields():
    assert Tensor("a", (1,), 0) == Tensor("a", (1,), 0)
    assert Tensor("a", (1,), 0) != Tensor("a", (1,), 0, free=(0,))
