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


FEW = np.linspace(-1, 1, 200, dtype=np.float32)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["float16", "float32", "float64", "int32", "int64", "uint16"]),
    st.integers(1, 300),
    st.integers(200, 2000),
)
def test_inputs_of_few_values_are_places_and_the_same_bits(tmp_path_factory, seed, dtype, count, size):
    draw = np.random.default_rng(seed)
    width = np.dtype(dtype).itemsize
    table = draw.integers(0, 256, (count, width), np.uint8).view(dtype)[:, 0]  # any bits: NaNs, -0.0, denormals
    array = table[draw.integers(0, count, size)].reshape(1, -1)
    path = tmp_path_factory.mktemp("few") / "golden.npz"
    write([Golden({"x": array}, {"y": FEW})], path)
    (found,) = read(path)
    assert found.inputs["x"].tobytes() == array.tobytes()
    assert (found.inputs["x"].dtype, found.inputs["x"].shape) == (array.dtype, array.shape)
    with np.load(path) as stored:
        distinct = len(np.unique(array.reshape(-1).view(f"u{width}")))
        assert ("0|values|x" in stored.files) == (distinct <= 256 < size)
        assert stored["0|output|y"].dtype == np.float32, "outputs are kept as they are"


def test_inputs_of_few_values_take_a_quarter(tmp_path):
    image = np.random.default_rng(0).choice(FEW, (1, 3, 64, 64))
    write([Golden({"x": image}, {"y": FEW})], tmp_path / "golden.npz")
    assert (tmp_path / "golden.npz").stat().st_size < image.nbytes / 4 + 4096


PLACES = np.zeros((1, 4), np.uint8)


@pytest.mark.parametrize(
    "named",
    [
        {"0|values|z": FEW},
        {"0|values|x": FEW.reshape(2, -1)},
        {"0|values|x": FEW[:0]},
        {"0|values|x": FEW, "0|input|x": np.full((1, 4), 200, np.uint8)},
        {"0|values|x": FEW, "0|input|x": PLACES.astype(np.int64)},
        {"1|values|x": FEW},
    ],
)
def test_values_that_no_places_lead_to_are_refused(tmp_path, named):
    with pytest.raises(VerificationError, match="values.*is no list of values"):
        read(saved(tmp_path, **{"0|input|x": PLACES, "0|output|y": ONE, **named}))


def test_places_do_not_unpack_to_more_than_is_allowed(tmp_path, monkeypatch):
    path = saved(tmp_path, **{"0|input|x": np.zeros(8000, np.uint8), "0|values|x": FEW, "0|output|y": ONE})
    assert read(path)[0].inputs["x"].nbytes == 32000
    monkeypatch.setattr(golden_file, "LARGEST", 31999)
    with pytest.raises(Refused, match="unpacks to more than 31999"):
        read(path)


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
