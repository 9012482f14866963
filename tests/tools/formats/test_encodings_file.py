"""Encodings files: all five kinds come back, the bytes repeat, and what a file says is not believed."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from haversack.base.encodings import Affine, BlockAffine, Codebook, Dynamic, Encodings, Float
from haversack.base.errors import UsageError
from haversack.tools.formats.encodings_file import FORMAT, from_bytes, read, to_bytes, write


def f32(*values):
    return np.array(values, np.float32)


def affine(bits=8, signed=True, axis=0, scale=(0.5, 0.25), zero_point=None):
    scale = np.array(scale, np.float32)
    zero_point = np.zeros(scale.shape, np.int32) if zero_point is None else np.array(zero_point, np.int32)
    return Affine(bits, signed, axis, scale, zero_point)


ALL = Encodings(
    {
        "a.conv:conv2d#0:out": affine(8, False, None, 0.1, 17),
        "a.conv:conv2d#0:weight": affine(4, True, 0),
        "a.fc:linear#0:weight": affine(16, True, 0, (1e-30, 3.4e38)),
        "a.fc:linear#0:in": Dynamic(8),
        "b:linear#0:weight": Float("float16"),
        "c:linear#0:weight": BlockAffine(2, 4, f32([1, 2], [3, 4]), f32([0, 1], [2, 3]), f32([5], [6])),
        "d:linear#0:weight": BlockAffine(2, 6, f32([1, 2], [3, 4])),
        "e:linear#0:weight": Codebook(2, f32(-1, 0, 1, 2)),
        "f:linear#0:weight": Codebook(1, f32([0, 1], [2, 3]), 3),
        ":linear#0:weight": affine(8, False, None, 2.0, 128),
    },
    {
        "a.conv:conv2d#0:weight": np.array([[[[1, -7]]], [[[7, 0]]]], np.int32),
        "a.fc:linear#0:weight": np.array([[-32767, 5], [32767, 0]], np.int32),
        "e:linear#0:weight": np.array([[3, 0, 2]], np.int32),
        ":linear#0:weight": np.array([255, 0], np.int32),
        "c:linear#0:weight": np.array([[70000, -1, 2, 3]], np.int32),
        "d:linear#0:weight": np.array([[31, -31, 2, 3], [0, 1, -1, 5]], np.int32),
    },
)


def assert_equal(one, other):
    assert one.digest == other.digest
    assert set(one.tensors) == set(other.tensors)
    for key, encoding in one.tensors.items():
        assert type(encoding) is type(other.tensors[key])
        for name, value in vars(encoding).items():
            found = vars(other.tensors[key])[name]
            if isinstance(value, np.ndarray):
                assert found.dtype == value.dtype
                assert found.shape == value.shape
                assert found.tobytes() == value.tobytes()
            else:
                assert found == value
                assert type(found) is type(value)
    for key, codes in one.integers.items():
        assert other.integers[key].dtype == np.int32
        assert np.array_equal(other.integers[key], codes)


def test_all_kinds_come_back(tmp_path):
    path = tmp_path / "encodings.safetensors"
    write(ALL, path)
    assert_equal(ALL, read(path))
    assert [item.name for item in tmp_path.iterdir()] == ["encodings.safetensors"]


def test_nothing_comes_back():
    found = from_bytes(to_bytes(Encodings.none()))
    assert (dict(found.tensors), dict(found.integers)) == ({}, {})


def test_the_same_encodings_are_the_same_bytes():
    turned = Encodings(dict(reversed(ALL.tensors.items())), dict(reversed(ALL.integers.items())))
    assert to_bytes(turned) == to_bytes(ALL)


def test_codes_lie_unpacked_in_the_smallest_type():
    stored = load(to_bytes(ALL))
    types = {name.rpartition("|")[0]: value.dtype for name, value in stored.items() if name.endswith("|integers")}
    assert types == {
        "a.conv:conv2d#0:weight": np.int8, "a.fc:linear#0:weight": np.int16, "e:linear#0:weight": np.int8,
        ":linear#0:weight": np.uint8, "c:linear#0:weight": np.int32, "d:linear#0:weight": np.int8,
    }  # fmt: skip
    assert stored["a.conv:conv2d#0:weight|integers"].shape == (2, 1, 1, 2)


def test_a_turned_array_is_written_in_its_own_order():
    codes = np.arange(6, dtype=np.int32).reshape(2, 3).T
    turned = Encodings({"m:linear#0:weight": affine(axis=None, scale=1.0)}, {"m:linear#0:weight": codes})
    assert np.array_equal(from_bytes(to_bytes(turned)).integers["m:linear#0:weight"], codes)


@given(st.integers(2, 16), st.booleans(), st.integers(1, 5), st.data())
def test_any_affine_comes_back(bits, signed, channels, data):
    scale = data.draw(st.lists(st.floats(2.0**-120, 2.0**120, width=32), min_size=channels, max_size=channels))
    zero = [0] * channels
    if not signed:
        zero = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=channels, max_size=channels))
    encoding = affine(bits, signed, 0, scale, zero)
    codes = data.draw(st.lists(st.integers(encoding.low, encoding.high), min_size=channels, max_size=channels))
    given_ = Encodings({"m:linear#0:weight": encoding}, {"m:linear#0:weight": np.array(codes, np.int32)})
    found = from_bytes(to_bytes(given_))
    assert_equal(given_, found)
    assert np.array_equal(found.integers["m:linear#0:weight"], codes)


def changed(header=None, arrays=None, metadata=None):
    """The bytes of a small file with its description, its arrays or its metadata edited."""
    small = Encodings({"m:linear#0:weight": affine()}, {"m:linear#0:weight": np.ones((2, 2), np.int32)})
    data = to_bytes(small)
    length = struct.unpack("<Q", data[:8])[0]
    told = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["haversack"])
    held = load(data)
    if header:
        header(told)
    if arrays:
        arrays(held)
    return save(held, metadata={"haversack": json.dumps(told)} if metadata is None else metadata)


KEY = "m:linear#0:weight"


@pytest.mark.parametrize(
    "edit, cause",
    [
        ({"header": lambda told: told.update(format=FORMAT + 1)}, "format 2"),
        ({"header": lambda told: told.update(format="1")}, "format '1'"),
        ({"header": lambda told: told.pop("tensors")}, "header"),
        ({"header": lambda told: told.update(tensors=[1])}, "header"),
        ({"header": lambda told: told["tensors"].update({KEY: 3})}, "header"),
        ({"metadata": {}}, "header"),
        ({"metadata": {"haversack": "{"}}, "header"),
        ({"metadata": {"haversack": "[1]"}}, "header"),
        ({"header": lambda told: told["tensors"][KEY].update(kind="Secret")}, "'Secret'"),
        ({"header": lambda told: told["tensors"][KEY].pop("kind")}, "None"),
        ({"header": lambda told: told["tensors"][KEY].pop("bits")}, "bits"),
        ({"header": lambda told: told["tensors"][KEY].update(bits="8")}, "bits"),
        ({"header": lambda told: told["tensors"][KEY].update(bits=True)}, "bits"),
        ({"header": lambda told: told["tensors"][KEY].update(bits=99)}, "99 bits"),
        ({"header": lambda told: told["tensors"][KEY].update(scale=1.0)}, "scale"),
        ({"header": lambda told: told["tensors"][KEY].update(color="red")}, "color"),
        ({"header": lambda told: told["tensors"].update(other=told["tensors"].pop(KEY))}, "other"),
        ({"arrays": lambda held: held.pop(f"{KEY}|scale")}, "scale"),
        ({"arrays": lambda held: held.update({f"{KEY}|entries": f32(1)})}, "entries"),
        ({"arrays": lambda held: held.update({"stray": f32(1)})}, "stray"),
        ({"arrays": lambda held: held.update({f"{KEY}|scale": f32(1, np.nan)})}, "finite"),
        ({"arrays": lambda held: held.update({f"{KEY}|scale": f32(1, 2, 3)})}, "zero-point"),
        ({"arrays": lambda held: held.update({f"{KEY}|integers": f32(1, 2)})}, "float32"),
        ({"arrays": lambda held: held.update({f"{KEY}|integers": np.full((2, 2), -128, np.int8)})}, "leave the codes"),
        ({"arrays": lambda held: held.update({f"{KEY}|integers": np.ones((3, 2), np.int8)})}, "do not fit"),
        ({"arrays": lambda held: held.update({f"{KEY}|scale": np.ones(2)})}, "F64"),
    ],
)
def test_a_file_that_lies(edit, cause):
    with pytest.raises(UsageError) as error:
        from_bytes(changed(**edit), where="x.safetensors")
    assert cause in str(error.value)
    assert str(error.value).startswith("x.safetensors: not a file of encodings")


def test_the_unedited_file_is_fine():
    assert set(from_bytes(changed()).tensors) == {KEY}


def test_all_faults_are_told_at_once():
    def spoil(told):
        told["tensors"][KEY]["bits"] = 99
        told["tensors"]["n:linear#0:out"] = {"kind": "Secret"}

    with pytest.raises(UsageError) as error:
        from_bytes(changed(header=spoil, arrays=lambda held: held.update(stray=f32(1))))
    assert [fault.where for fault in error.value.faults] == [KEY, "n:linear#0:out", "stray"]


def test_every_truncation_is_refused(tmp_path):
    data = to_bytes(ALL)
    path = tmp_path / "cut"
    for length in [*range(20), *range(20, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(UsageError):
            read(path)


@pytest.mark.parametrize(
    "data", [b"PK\x03\x04" + b"\0" * 60, struct.pack("<Q", 1 << 62) + b"{}", struct.pack("<Q", 4) + b"null",
             struct.pack("<Q", 200_000) + b"[" * 200_000]
)  # fmt: skip
def test_foreign_bytes(data):
    with pytest.raises(UsageError, match="not a file of encodings"):
        from_bytes(data)


@given(st.integers(0, 10**6), st.integers(0, 255))
def test_one_wrong_byte_is_refused_or_still_encodings(position, value):
    data = bytearray(to_bytes(ALL))
    data[position % len(data)] = value
    try:
        found = from_bytes(bytes(data))
    except UsageError:
        return
    assert set(found.integers) <= set(found.tensors)


def test_a_file_too_large(tmp_path, monkeypatch):
    path = tmp_path / "large"
    write(ALL, path)
    monkeypatch.setattr("haversack.tools.formats.encodings_file.LARGEST_FILE", 10)
    with pytest.raises(UsageError, match="more than 10"):
        read(path)


def test_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(OSError, match="missing"):
        write(ALL, tmp_path / "missing" / "encodings.safetensors")
