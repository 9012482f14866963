"""What a person gives is read by what it is, within bounds, and no Python object is ever made of it."""

from __future__ import annotations

import builtins
import io
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from haversack.base.errors import EnvironmentFault, HaversackError, Refused, UsageError
from haversack.base.graph import TensorSpec
from haversack.base.model import Port
from haversack.run import given as reading

IMAGE = Port("image", TensorSpec(("batch", 1, 8, 8), "float32"))
MASK = Port("mask", TensorSpec(("batch", "length"), "int64"))
X = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8)


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def npz(packed=False, **arrays):
    stream = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(stream, **arrays)
    return stream.getvalue()


def read(data, ports=(IMAGE,), **more):
    return reading.arrays(data, ports, where="input", **more)


@pytest.mark.parametrize("data", [npy(X), npy(X[0]), npz(image=X), npz(arr_0=X[0]), npz(packed=True, image=X)])
def test_arrays(data):
    found = read(data)
    assert [*found] == ["image"]
    np.testing.assert_array_equal(found["image"], X)


def test_several_inputs_by_name():
    found = read(npz(mask=np.zeros((1, 3), np.int64), image=X[0]), (IMAGE, MASK))
    assert {name: array.shape for name, array in found.items()} == {"image": (1, 1, 8, 8), "mask": (1, 3)}


def test_raw_inputs_are_left_as_they_are():
    found = read(npy(X[0]), raw={"image": ()})
    assert found["image"].shape == (1, 8, 8)


def test_raw_inputs_get_the_batch_axis_that_their_first_operation_asks_for():
    assert read(npy(X[0]), raw={"image": (4,)})["image"].shape == (1, 1, 8, 8)
    assert read(npy(X), raw={"image": (4,)})["image"].shape == (1, 1, 8, 8)
    assert read(npy(X[0]), raw={"image": (3, 4)})["image"].shape == (1, 8, 8), "it may be one of several already"
    assert read(npy(X[0, 0]), raw={"image": (4,)})["image"].shape == (8, 8), "more than the batch is missing"


@pytest.mark.parametrize(
    "data, ports, cause, step",
    [
        (b"hello", (IMAGE,), "it is no .npy, .npz, .png or .jpg file", "give image [n, 1, 8, 8] float32"),
        (b"", (IMAGE,), "it is no .npy", ""),
        (npy(X)[:100], (IMAGE,), "NumPy does not read it", "numpy.save"),
        (npz(image=X)[:200], (IMAGE,), "NumPy does not read it", ""),
        (npz(picture=X), (IMAGE,), "it has picture, and the model takes image", "numpy.savez('input.npz', image=…)"),
        (npz(arr_0=X), (IMAGE, MASK), "it has arr_0, and the model takes image, mask", "image=…, mask=…"),
        (npy(X), (IMAGE, MASK), "the model has 2 inputs, and the file has one", "image=…, mask=…"),
    ],
)
def test_what_cannot_be_read(data, ports, cause, step):
    with pytest.raises(UsageError) as caught:
        read(data, ports)
    assert cause in str(caught.value)
    assert caught.value.where == "input"
    assert step in caught.value.next_step


@pytest.mark.parametrize("data", [npy(np.array([{}])), npz(image=np.array([{}]))])
def test_objects_are_refused(data):
    with pytest.raises(Refused, match=r"it holds Python objects, .*\n  next: save an array of numbers: numpy.save"):
        read(data)


def header(shape):
    """Return a .npy file of 32-bit floats that says a shape and holds nothing."""
    said = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(said).to_bytes(2, "little") + said


@pytest.mark.parametrize("shape", [(10**11, 1000), (2**70,), (10**9, 4)])
def test_a_shape_that_no_memory_holds(shape):
    with pytest.raises(UsageError, match="NumPy does not read it"):
        read(header(shape))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("image.npy", header(shape))
    with pytest.raises(UsageError, match="NumPy does not read it"):
        read(packed.getvalue())


def told(text):
    """Return a .npy file with this header."""
    said = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(said).to_bytes(2, "little") + said + bytes(64)


def zipped(method, flags=0, damage=0):
    """Return an .npz whose one member is packed so, is said to be encrypted, or is damaged."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("image.npy", npy(X))
    data = bytearray(stream.getvalue())
    local, central = data.index(b"PK\x03\x04"), data.index(b"PK\x01\x02")
    data[local + 6] |= flags
    data[central + 8] |= flags
    for place in range(damage):
        data[local + 39 + place] ^= 0xFF
    return bytes(data)


def unknown(method):
    """Return an .npz that says to be packed in a way that nobody has."""
    data = bytearray(zipped(zipfile.ZIP_STORED))
    data[data.index(b"PK\x03\x04") + 8] = data[data.index(b"PK\x01\x02") + 10] = method
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        told("{'descr': '<f4', 'fortran_order': False, 'shape': (1,"),
        told("{'descr': '<f4', 'fortran_order': False, 'shape': " + "'" * 3),
        told("(" * 3000),
        told("{'descr': '<q9', 'fortran_order': False, 'shape': ()}"),
        told("{'descr': ('<f4', -1), 'fortran_order': False, 'shape': ()}"),
        told("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"),
        told("{'descr': [['a', '<f4']], 'fortran_order': 1, 'shape': ('x',)}"),
        told("  {\n 'descr'"),
        told(" " * 20_000),
        told("{'descr': (b'',), 'fortran_order': False, 'shape': (1,)}"),
        zipped(zipfile.ZIP_DEFLATED, damage=9),
        zipped(zipfile.ZIP_LZMA, damage=9),
        zipped(zipfile.ZIP_BZIP2, damage=9),
        zipped(zipfile.ZIP_STORED, damage=9),
        zipped(zipfile.ZIP_DEFLATED, flags=1),
        *map(unknown, (9, 97, 255)),
    ],
)
def test_damaged_headers_and_archives_are_told_in_words(data):
    with pytest.raises(UsageError, match="NumPy does not read it") as caught:
        read(data)
    assert (caught.value.where, caught.value.next_step) == ("input", "write it with numpy.save or numpy.savez")
    assert len(str(caught.value).splitlines()) == 2, "a cause and a next step"


def test_what_numpy_warns_of_is_not_told_of_an_array_that_is_read(recwarn):
    data = told("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 16L)}")  # as Python 2 wrote it
    assert read(data)["image"].shape == (1, 16)
    assert [str(one.message) for one in recwarn] == []


def test_a_picture_that_no_memory_holds():
    head = struct.pack(">IIBBBBB", 2 * 10**9, 2 * 10**9, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(9))), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    with pytest.raises(Refused, match=r"it has too many pixels(.|\n)*next: make the picture smaller"):
        reading.picture(data, channels=1, where="input")


def test_a_bare_pickle_is_nothing():
    with pytest.raises(UsageError, match=r"it is no .npy"):
        read(pickle.dumps(X))


def test_an_archive_that_unpacks_to_too_much(monkeypatch):
    data = npz(packed=True, image=np.zeros((1, 1, 200, 200), np.float32))
    monkeypatch.setattr(reading, "LARGEST", 100_000)
    assert len(data) < 10_000
    with pytest.raises(Refused, match=r"it unpacks to 160128 bytes.*\n  next: give fewer rows at once"):
        read(data)
    with pytest.raises(Refused, match=r"more than 100000 bytes\n  next: give fewer rows at once"):
        read(b"\x93NUMPY" + bytes(200_000))


@given(st.binary(max_size=60), st.sampled_from(["npy", "npz", "png", "jpg"]))
def test_any_bytes_are_read_or_told(data, kind):
    try:
        found = read(reading._MARKS[kind] + data, raw={"image": ()})
    except HaversackError as error:
        assert error.exit_code in {2, 7}
    else:
        assert found["image"].dtype != object


def picture(kind="PNG", mode="RGB", size=(5, 4), **more):
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(stream, kind, **more)
    return stream.getvalue()


COLOUR = Port("image", TensorSpec(("batch", 3, 8, 8), "float32"))


GREY = (b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))


def png(*chunks):
    """Return a .png of these chunks, each with its checksum."""
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in (*chunks, (b"IDAT", zlib.compress(bytes(9 * 8))), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data


def exif(entries, count=0):
    """Return a .jpg of 8 x 8 pixels with these entries of EXIF data."""
    stream = io.BytesIO()
    head = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, count or len(entries) // 12)
    Image.new("RGB", (8, 8)).save(stream, "JPEG", exif=head + entries + bytes(4 if entries else 0))
    return stream.getvalue()


class TestPictures:
    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    @pytest.mark.parametrize("port, channels", [(COLOUR, 3), (IMAGE, 1)])
    def test_they_are_channels_last_bytes(self, kind, port, channels):
        found = read(picture(kind), (port,), raw={"image": ()})["image"]
        assert (found.shape, found.dtype) == ((1, 4, 5, channels), np.uint8)

    @pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
    def test_all_kinds_of_pixels_become_colours(self, mode):
        assert read(picture(mode=mode), (COLOUR,), raw={"image": ()})["image"].shape == (1, 4, 5, 3)

    def test_they_are_turned_as_the_camera_says(self):
        turned = Image.Exif()
        turned[0x0112] = 6
        plain, found = (
            read(picture("PNG", **more), (COLOUR,), raw={"image": ()})["image"] for more in ({}, {"exif": turned})
        )
        np.testing.assert_array_equal(found[0], np.rot90(plain[0], -1))

    def test_without_preprocessing_they_are_not_taken(self):
        with pytest.raises(UsageError, match="does not say how pictures are preprocessed"):
            read(picture(), (COLOUR,))

    def test_a_broken_one(self):
        with pytest.raises(UsageError, match="it cannot be read as a picture"):
            read(picture()[:60], (COLOUR,), raw={"image": ()})

    @pytest.mark.parametrize(
        "data",
        [
            png((b"IHDR", b"")),
            png(GREY, (b"tRNS", b"")),
            png((b"IHDR", bytes(13))),
            png(GREY, (b"zTXt", b"a\0\0" + zlib.compress(bytes(9**7)))),
            exif(struct.pack(">HHII", 0x0100, 2, 4, 0x61626300) + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)),
        ],
        ids=["no header", "no transparency", "no pixels", "a text that is a bomb", "a width of letters"],
    )
    def test_what_pillow_does_not_expect(self, data):
        with pytest.raises(UsageError, match="it cannot be read as a picture") as caught:
            read(data, (COLOUR,), raw={"image": ()})
        assert caught.value.where == "input"
        assert caught.value.next_step == "open it elsewhere and save it as .png or .jpg"

    def test_what_pillow_warns_of_is_not_told_of_a_picture_that_is_read(self, recwarn):
        assert read(exif(b"", count=3), (COLOUR,), raw={"image": ()})["image"].shape == (1, 8, 8, 3)
        assert [str(one.message) for one in recwarn] == []

    def test_a_bomb(self, monkeypatch):
        monkeypatch.setattr(reading, "LARGEST", 16 * 50)
        with pytest.raises(Refused, match=r"it has 9 x 9 pixels\n  next: make the picture smaller"):
            reading.picture(picture(size=(9, 9)), channels=3, where="input")

    def test_without_pillow(self, monkeypatch):
        imported = builtins.__import__

        def refuse(name, *some, **named):
            if name == "PIL":
                raise ImportError(name)
            return imported(name, *some, **named)

        monkeypatch.setattr(builtins, "__import__", refuse)
        with pytest.raises(EnvironmentFault) as caught:
            read(picture(), (COLOUR,), raw={"image": ()})
        assert caught.value.next_step == "pip install pillow"


def test_files(tmp_path):
    (tmp_path / "x.npy").write_bytes(npy(X))
    assert reading.read(tmp_path / "x.npy") == npy(X)
    with pytest.raises(UsageError, match="there is no such file"):
        reading.read(tmp_path / "y.npy")
    with pytest.raises(EnvironmentFault):
        reading.read(tmp_path)
