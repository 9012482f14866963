"""Weights in a file of their own: the same numbers, read back from where they lie, and nothing from anywhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from haversack.base.encodings import Encodings
from haversack.base.errors import VerificationError
from haversack.targets.onnxruntime import OnnxRuntime
from haversack.tools.graph.onnx import mapped

X = np.linspace(-1, 1, 96, dtype=np.float32).reshape(2, 48)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(48, 64), nn.Linear(64, 5)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


@pytest.fixture(scope="module")
def model(exported):
    torch.manual_seed(0)
    return exported(Two(), X)


@pytest.fixture
def parted(model, tmp_path):
    """The model's float file with its weights beside it: (target, artifact, folder)."""
    target = OnnxRuntime(mapped_from=4096)
    return target, target.lower(model, Encodings.none(), tmp_path), tmp_path


def run(target, path):
    session = target.open_session(path)
    return session.run({session.inputs[0].name: X})[session.outputs[0].name]


def test_a_small_file_stays_one(model, tmp_path):
    artifact = OnnxRuntime().lower(model, Encodings.none(), tmp_path)
    assert [file.path for file in artifact.files] == ["model.onnx"]


def test_a_large_file_has_its_weights_beside_it(parted):
    _, artifact, folder = parted
    assert [file.path for file in artifact.files] == ["model.onnx", "model.onnx.data"]
    assert {file.path: file.bytes for file in artifact.files} == {
        path.name: path.stat().st_size for path in folder.iterdir()
    }
    assert artifact.files[1].bytes >= (48 * 64 + 64 * 5) * 4
    assert artifact.files[0].bytes < 4096
    held = onnx.load(folder / "model.onnx", load_external_data=False).graph.initializer
    places = [{entry.key: entry.value for entry in one.external_data} for one in held if one.external_data]
    assert {one["location"] for one in places} == {"model.onnx.data"}
    assert all(int(one["offset"]) % 64 == 0 for one in places)


def test_outputs_are_the_same_bits(parted, model, tmp_path):
    target, _, folder = parted
    OnnxRuntime().lower(model, Encodings.none(), tmp_path / "whole")
    np.testing.assert_array_equal(run(target, folder / "model.onnx"), run(target, tmp_path / "whole" / "model.onnx"))


def test_integers_read_back_from_beside(encoded, model, tmp_path):
    target = OnnxRuntime(mapped_from=1024)
    encodings = encoded(model, (X,))
    artifact = target.lower(model, encodings, tmp_path)
    assert len(artifact.files) == 2
    assert artifact.injected == artifact.read_back > 48 * 64
    assert set(target.read(tmp_path / "model.onnx", artifact).tensors) == set(encodings.tensors)
    inputs = (X,)
    assert target.unfused(tmp_path / "model.onnx", artifact) == ()
    keys = list(artifact.tensor_names)
    assert set(target.tensors(tmp_path / "model.onnx", artifact, inputs, keys)) == set(keys)
    assert sum(target.layer_seconds(tmp_path / "model.onnx", artifact, inputs, 2).values()) > 0


def test_a_changed_number_beside_is_seen(encoded, model, tmp_path):
    target = OnnxRuntime(mapped_from=1024)
    encodings = encoded(model, (X,))
    artifact = target.lower(model, encodings, tmp_path)
    path = tmp_path / "model.onnx.data"
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(bytes(data))
    found = target.read(tmp_path / "model.onnx", artifact)
    assert any(not np.array_equal(found.integers[key], encodings.integers[key]) for key in encodings.integers)


def test_a_smaller_model_leaves_no_old_weights(parted, model):
    _, _, folder = parted
    artifact = OnnxRuntime().lower(model, Encodings.none(), folder)
    assert [path.name for path in folder.iterdir()] == ["model.onnx"] == [file.path for file in artifact.files]


@pytest.mark.parametrize(
    "location, words",
    [
        ("../model.onnx.data", "no file of ours"),
        ("/etc/passwd", "no file of ours"),
        ("elsewhere.data", "no file of ours"),
        ("model.onnx", "no file of ours"),
        ("linked.data", "no file of ours"),
        ("short.data", "do not lie within the 10 bytes"),
    ],
)
def test_numbers_from_anywhere_else_are_refused(encoded, model, tmp_path, location, words):
    folder = tmp_path / "inside"
    target = OnnxRuntime(mapped_from=1024)
    artifact = target.lower(model, encoded(model, (X,)), folder)
    (tmp_path / "model.onnx.data").write_bytes(bytes(100_000))
    (folder / "short.data").write_bytes(bytes(10))
    (folder / "linked.data").symlink_to(tmp_path / "model.onnx.data")
    proto = onnx.load(folder / "model.onnx", load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(VerificationError, match=words):
        target.read(folder / "model.onnx", artifact)


@pytest.mark.parametrize("key, value", [("offset", "-64"), ("length", "8"), ("offset", "999999999")])
def test_places_that_the_file_does_not_have_are_refused(encoded, model, tmp_path, key, value):
    target = OnnxRuntime(mapped_from=1024)
    artifact = target.lower(model, encoded(model, (X,)), tmp_path)
    proto = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            entry.value = value if entry.key == key else entry.value
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(VerificationError, match="do not lie within|not an ONNX file"):
        target.read(tmp_path / "model.onnx", artifact)


def test_what_fails_leaves_nothing_beside(tmp_path):
    def fail():
        with mapped.parted(onnx.ModelProto().SerializeToString(), tmp_path / "m.onnx", whole=False) as (_, beside):
            assert [path.exists() for path in beside] == [True]
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not list(tmp_path.iterdir())


def test_splitting_twice_gives_the_same_bytes(model, tmp_path):
    OnnxRuntime().lower(model, Encodings.none(), tmp_path)
    data = (tmp_path / "model.onnx").read_bytes()
    assert mapped.split(data, "a.data") == mapped.split(data, "a.data")
    assert replace(OnnxRuntime(), mapped_from=1) != OnnxRuntime()
