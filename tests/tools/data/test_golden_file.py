"""Golden vectors in a file: what is written is read, and nothing else is."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from haversack.base.errors import EnvironmentFault, Refused, VerificationError
from haversack.tools.data import golden_file
from haversack.tools.data.golden_file import Golden, read, write

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1, max_size=12)
ARRAYS = arrays.arrays(
    st.sampled_from([np.float32, np.int64, np.uint8, np.bool_]), arrays.array_shapes(min_dims=0, max_side=3)
)
SIDES = st.dictionaries(NAMES, ARRAYS, min_size=1, max_size=3)


@given(st.lists(st.builds(Golden, SIDES, SIDES), min_size=1, max_size=12))
def test_what_is_written_is_read_bit_for_bit(tmp_path_factory, vectors):
    path = tmp_path_factory.mktemp("golden") / "golden.npz"
    write(vectors, path)
    found = read(path)
    assert len(found) == len(vectors)
    for one, other in zip(vectors, found, strict=True):
        for mine, theirs in ((one.inputs, other.inputs), (one.outputs, other.outputs)):
            assert set(mine) == set(theirs)
            assert all(mine[name].tobytes() == theirs[name].tobytes() for name in mine)
            assert all(mine[name].dtype == theirs[name].dtype for name in mine)
            assert all(mine[name].shape == theirs[name].shape for name in mine)


def saved(tmp_path, **named):
    path = tmp_path / "golden.npz"
    np.savez(path, **named)
    return path


ONE = np.ones((1, 2), np.float32)


@pytest.mark.parametrize(
    "named, said",
    [
        ({}, ["holds no vector"]),
        ({"0|input|x": ONE}, ["vector 0", "has no output"]),
        ({"0|output|x": ONE, "1|input|x": ONE}, ["vector 0: has no input", "vector 1: has no output"]),
        ({"1|input|x": ONE, "1|output|y": ONE}, ["vector 0: has no input", "vector 0: has no output"]),
        ({"x": ONE, "0|inside|x": ONE, "01|input|x": ONE}, ["x: is no number", "0|inside|x", "01|input|x"]),
    ],
)
def test_all_faults_of_a_file_are_told_at_once(tmp_path, named, said):
    with pytest.raises(VerificationError) as caught:
        read(saved(tmp_path, **named))
    for one in said:
        assert one in str(caught.value)


def test_a_pickle_is_refused(tmp_path):
    with pytest.raises(Refused, match="pickle"):
        read(saved(tmp_path, **{"0|input|x": np.array([object()], dtype=object)}))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(golden_file, "LARGEST", 1000)
    path = tmp_path / "golden.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0|input|x.npy", bytes(100_000))
    assert path.stat().st_size < 1000
    with pytest.raises(Refused, match="unpacks to 100000 bytes"):
        read(path)


@pytest.mark.parametrize("data", [b"", b"PK", b"\x93NUMPY", b"\x80\x04K\x01.", b"hello"])
def test_what_is_no_archive(tmp_path, data):
    path = tmp_path / "golden.npz"
    path.write_bytes(data)
    with pytest.raises(Refused if data[:1] == b"\x80" else VerificationError):
        read(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(VerificationError, match="No such file"):
        read(tmp_path / "golden.npz")


@given(st.data())
def test_no_spoiled_byte_is_more_than_a_fault(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("golden") / "golden.npz"
    write([Golden({"x": ONE}, {"y": ONE * 3})], path)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        found = read(path)
    except (VerificationError, Refused) as error:
        assert str(path) in str(error)
    else:  # a byte that no reader looks at
        assert len(found) == 1


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(EnvironmentFault):
        write([Golden({"x": ONE}, {"y": ONE})], tmp_path / "nowhere" / "golden.npz")


def test_a_truncated_file_is_told_at_every_length(tmp_path):
    stream = io.BytesIO()
    np.savez(stream, **{"0|input|x": ONE, "0|output|y": ONE})
    whole = stream.getvalue()
    path = tmp_path / "golden.npz"
    for length in range(0, len(whole), 17):
        path.write_bytes(whole[:length])
        with pytest.raises(VerificationError):
            read(path)
