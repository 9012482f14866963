"""Arrays of an .npz: what NumPy writes is read bit for bit; bombs, pickles and lies about sizes are refused."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from haversack.base.errors import Refused
from haversack.tools.formats.npz import arrays

NUMBERS = st.sampled_from(
    ["bool", "int8", "uint8", "int16", "float16", "int32", "float32", "int64", "uint64", "float64"]
)
ARRAYS = NUMBERS.flatmap(
    lambda dtype: numpy_strategies.arrays(dtype, numpy_strategies.array_shapes(min_dims=0, max_side=4))
)
ONE = np.arange(6, dtype=np.float32).reshape(2, 3)


def saved(save=np.savez, **named) -> bytes:
    stream = io.BytesIO()
    save(stream, **named)
    return stream.getvalue()


def zipped(*members, **more) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **more) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def npy(header: str, content: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version[0] == 1 else 4, "little") + text + content


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1), ARRAYS
    )
)
def test_what_numpy_writes_is_read_bit_for_bit(named):
    found = arrays(saved(**named), where="x")
    assert set(found) == set(named)
    for name, array in named.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
        assert found[name].flags.writeable


@pytest.mark.parametrize(
    "data, said",
    [
        (saved(x=np.array([object()], dtype=object)), "holds a pickle"),
        (saved(np.savez_compressed, x=np.zeros(100_000)), "unpacks to"),
        (saved(np.savez_compressed, x=ONE), "unpacks to|is packed"),
        (zipped(("x.npy", npy("{}" + " " * 400)), compression=zipfile.ZIP_BZIP2), "unpacks to|is packed"),
    ],
)
def test_what_is_refused(data, said):
    with pytest.raises(Refused, match=said) as caught:
        arrays(data, where="golden.npz")
    assert caught.value.where == "golden.npz"


SHAPE = "{{'descr': '{0}', 'fortran_order': {1}, 'shape': {2}, }}"


@pytest.mark.parametrize(
    "data, said",
    [
        (b"", "no zip archive"),
        (b"PK\x05\x06", "no zip archive"),
        (saved(x=ONE)[:-30], "no zip archive"),
        (zipped(("x.txt", b"hello")), "'x.txt' is no array"),
        (zipped(("x.npy", b"hello")), "no header"),
        (zipped(("x.npy", b"\x93NUMPY\x01\x00\xff\xff")), "no header"),
        (zipped(("x.npy", npy("{}"))), "no header"),
        (zipped(("x.npy", npy("__import__('os')"))), "no header"),
        (zipped(("x.npy", npy("[" * 9000))), "no header"),
        (zipped(("x.npy", npy(SHAPE.format("<f4", False, (1,)), bytes(4), b"\x02\x00"))), "no header"),
        (zipped(("x.npy", npy(SHAPE.format(">f4", False, (1,)), bytes(4)))), "little-endian"),
        (zipped(("x.npy", npy(SHAPE.format("<f4", True, (1,)), bytes(4)))), "C order"),
        (zipped(("x.npy", npy(SHAPE.format("<c8", False, (1,)), bytes(8)))), "plain numbers"),
        (zipped(("x.npy", npy(SHAPE.format("<U4", False, (1,)), bytes(16)))), "plain numbers"),
        (zipped(("x.npy", npy(SHAPE.format("<f4", False, (10**15,)), bytes(4)))), "4 bytes are not those"),
        (zipped(("x.npy", npy(SHAPE.format("<f4", False, (2**40, 2**40)), bytes(4)))), "4 bytes are not those"),
        (zipped(("x.npy", npy(SHAPE.format("<f4", False, (-1,)), bytes(4)))), "no header"),
        (zipped(("x.npy", npy(SHAPE.format("<f4", False, (2,)), bytes(4)))), "4 bytes are not those"),
        (zipped(("x.npy", npy(SHAPE.format("<f4", False, (1,) * 40), bytes(4)))), "4 bytes are not those"),
        (zipped(("x.npy", npy(SHAPE.format("<f4", False, (0, 1)), bytes(4)))), "4 bytes are not those"),
    ],
)  # fmt: skip
def test_what_no_file_of_arrays_is(data, said):
    with pytest.raises(ValueError, match=said):
        arrays(data, where="x")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_there_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        arrays(zipped(("x.npy", npy("{}")), ("x.npy", npy("{}"))), where="x")


def test_members_that_share_their_bytes_are_a_bomb():
    data = bytearray(saved(x=np.zeros(1000)))
    end = data.rindex(b"PK\x05\x06")
    start = data.index(b"PK\x01\x02")
    entry = bytes(data[start:end])
    many = bytes(data[:start]) + entry * 50 + data[end : end + 8] + (50).to_bytes(2, "little") * 2
    many += (len(entry) * 50).to_bytes(4, "little") + start.to_bytes(4, "little") + b"\0\0"
    with pytest.raises((Refused, ValueError), match=r"unpacks to 4\d{5} bytes|no zip archive"):
        arrays(many, where="x")


@pytest.mark.parametrize("place", [1 << 62, 1 << 63, (1 << 64) - 1])
def test_a_member_far_outside_is_refused(place):
    """A place of 64 bits, as large archives have them: more than a stream can seek to."""
    data = bytearray(zipped(("x.npy", b"abc")))
    start = data.index(b"PK\x01\x02")
    struct.pack_into("<H", data, start + 30, 12)
    struct.pack_into("<I", data, start + 42, 0xFFFFFFFF)
    data[start + 46 + 5 : start + 46 + 5] = struct.pack("<HHQ", 1, 8, place)
    end = data.index(b"PK\x05\x06")
    struct.pack_into("<I", data, end + 12, end - start)
    with pytest.raises(ValueError, match="no zip archive"):
        arrays(bytes(data), where="x")


WHOLE = saved(x=ONE, y=ONE.astype(np.int8))


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_no_spoiled_byte_is_more_than_refused(place, flip):
    spoiled = bytearray(WHOLE)
    spoiled[place] ^= flip
    for data in (bytes(spoiled), WHOLE[:place]):
        try:
            found = arrays(data, where="x")
        except (Refused, ValueError):
            continue
        assert sum(one.nbytes for one in found.values()) <= len(data)
