"""What is read back is what the bytes hold: a changed number anywhere is told, a spoiled file is no crash."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.errors import VerificationError
from haversack.targets.executorch import ExecuTorch
from haversack.targets.executorch import parse as parsing
from haversack.tools.formats.flat import Spoiled, root
from haversack.tools.graph.injection import derived

TARGET = ExecuTorch()


@pytest.fixture
def file(lowered, tmp_path):
    """Return (encodings, artifact, path of a copy, its bytes)."""
    _, _, encodings, artifact, path = lowered("resnet")
    copy = tmp_path / "model.pte"
    data = bytearray(path.read_bytes())
    copy.write_bytes(data)
    return encodings, artifact, copy, data


def test_all_is_read_back(file):
    encodings, artifact, path, _ = file
    assert TARGET.read(path, artifact).digest == encodings.digest


def spoil(path, data, old, new):
    """Replace bytes that occur once."""
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))


def test_a_changed_weight_is_seen(file):
    encodings, artifact, path, data = file
    key = "blocks.1.short:conv2d#0:weight"
    old = encodings.integers[key].transpose(0, 2, 3, 1).astype(np.int8).tobytes()
    changed = bytearray(old)
    changed[5] ^= 1
    spoil(path, data, old, bytes(changed))
    found = TARGET.read(path, artifact)
    assert int((found.integers[key] != encodings.integers[key]).sum()) == 1


def test_a_changed_scale_of_a_weight_is_seen(file):
    encodings, artifact, path, data = file
    key = "head:linear#0:weight"
    old = encodings.tensors[key].scale
    spoil(path, data, old.tobytes(), (old * np.float32(1.0001)).tobytes())
    assert (TARGET.read(path, artifact).tensors[key].scale != old).all()


def test_a_changed_bias_is_told(file, lowered):
    model, _, encodings, artifact, _ = lowered("resnet")
    _, _, path, data = file
    codes, _ = derived(model, encodings, TARGET.constraints(model.graph).integer_ops)["head:linear#0"]
    spoil(path, data, codes.tobytes(), (codes + 1).astype(np.int32).tobytes())
    with pytest.raises(VerificationError) as caught:
        TARGET.read(path, artifact)
    assert [fault.where for fault in caught.value.faults] == ["head:linear#0"]


def test_a_changed_scale_of_an_activation_is_seen(file):
    encodings, artifact, path, data = file
    key = "head:linear#0:out"
    old = encodings.affine(key).scale
    spoil(path, data, old.tobytes(), (old * np.float32(2)).tobytes())
    assert TARGET.read(path, artifact).affine(key).scale == old * np.float32(2)


def test_the_lowest_code_is_told(file):
    encodings, artifact, path, data = file
    key = "blocks.1.short:conv2d#0:weight"
    old = encodings.integers[key].transpose(0, 2, 3, 1).astype(np.int8).tobytes()
    spoil(path, data, old, b"\x80" + old[1:])
    with pytest.raises(VerificationError, match="leave the codes"):
        TARGET.read(path, artifact)


def test_no_cut_file_and_no_flipped_byte_of_its_structure_crashes(file):
    encodings, artifact, path, data = file
    rng = np.random.default_rng(0)
    refused = 0
    for step in range(300):
        spoiled = bytearray(data)
        if step % 3 == 0:
            del spoiled[int(rng.integers(0, len(data))) :]
        else:
            spoiled[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(spoiled)
        try:
            TARGET.read(path, artifact)
        except VerificationError:
            refused += 1
    assert refused > 100
    path.write_bytes(data)
    assert TARGET.read(path, artifact).digest == encodings.digest


def test_the_name_of_a_value_that_is_not_there(file):
    import dataclasses

    _, artifact, path, _ = file
    for name in ("0/9999", "7/0", "nonsense"):
        wrong = dataclasses.replace(artifact, tensor_names={"head:linear#0:out": name})
        with pytest.raises(VerificationError):
            TARGET.read(path, wrong)


def test_a_parsed_file_tells_kinds_and_values(lowered):
    found = parsing.parse(lowered("keywords")[4])
    assert found.portable == ()
    (delegate,) = found.delegates
    kinds = [step.kind for step in delegate.steps]
    assert {"Conv2d", "DepthwiseConv2d", "GlobalAvgPooling2d", "FullyConnected", "Convert"} <= set(kinds)
    assert kinds.count("Convert") == 2  # the image in, the scores out
    layers = [step for step in delegate.steps if step.kind in ("Conv2d", "DepthwiseConv2d", "FullyConnected")]
    assert {delegate.values[step.filter].datatype for step in layers} == {parsing.QCINT8}
    assert sum(step.bias == parsing.NOWHERE for step in layers) == 1
    assert all(step.limits is None for step in layers)


def test_a_buffer_with_another_name():
    with pytest.raises(Spoiled, match="no ABCD file"):
        root(b"\x08\0\0\0WXYZ" + b"\0" * 20, b"ABCD")


@pytest.mark.parametrize("data", [b"", b"\0" * 8, b"\xff\xff\xff\x7fABCD", b"\0\0\0\0ABCD"])
def test_a_buffer_without_a_root(data):
    with pytest.raises(Spoiled):
        root(data, b"ABCD").integer(0)
