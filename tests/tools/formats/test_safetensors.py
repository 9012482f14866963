"""The .safetensors indexer against the format's own library, and headers that no library writes."""

from __future__ import annotations

import json
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spoiled_bytes import flipped, well

from haversack.base.errors import EXIT_REFUSED, Refused
from haversack.tools.formats import index, safetensors

KINDS = [
    "float64",
    "float32",
    "float16",
    "int64",
    "uint64",
    "int32",
    "uint32",
    "int16",
    "uint16",
    "int8",
    "uint8",
    "bool",
]
WIDTH = {kind: np.dtype(kind).itemsize for kind in KINDS}


def whole(header, data=b"", *, size=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if size is None else size) + raw + data


def entry(start, end, dtype="I8", shape=None):
    return {"dtype": dtype, "shape": [end - start] if shape is None else shape, "data_offsets": [start, end]}


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.text("ab/.é☃", min_size=1, max_size=5),
        st.tuples(st.sampled_from(KINDS), st.lists(st.integers(0, 4), max_size=4)),
        max_size=6,
    ),
    st.booleans(),
)
def test_what_the_library_writes_is_found(tensors, told):
    from safetensors.numpy import save

    random = np.random.default_rng(0)
    arrays = {
        name: random.integers(0, 256, int(np.prod(shape)) * WIDTH[kind], np.uint8).view(np.dtype(kind)).reshape(shape)
        if kind != "bool"
        else random.integers(0, 2, shape).astype(bool)
        for name, (kind, shape) in tensors.items()
    }
    data = save(arrays, metadata={"format": "np"} if told else None)
    found = safetensors.index(data)
    assert {one.name: data[one.start : one.end] for one in found} == {
        name: array.tobytes() for name, array in arrays.items() if array.size
    }
    assert {one.name: one.shape for one in found} == {n: a.shape for n, a in arrays.items() if a.size}
    assert {one.name: one.width for one in found} == {n: WIDTH[str(a.dtype)] for n, a in arrays.items() if a.size}
    assert index.index(data) == found


@pytest.mark.parametrize(
    ("dtype", "width"), [("BF16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1), ("BOOL", 1), ("U64", 8), ("F64", 8), ("I16", 2)]
)
def test_every_type_has_its_width(dtype, width):
    (found,) = safetensors.index(whole({"w": entry(0, 8, dtype, [8 // width])}, bytes(8)))
    assert (found.width, found.shape) == (width, (8 // width,))


REFUSED = {
    "nothing": (b"", "does not fit", "byte 0 (length of the header)"),
    "seven bytes": (bytes(7), "a header of 0 bytes", "byte 0 (length of the header)"),
    "a header of no bytes": (bytes(8), "no JSON", "byte 8 (header)"),
    "one byte more than there is": (whole(b"{}", size=3), "a header of 3 bytes", "byte 0 (length of the header)"),
    "2^64 - 1 bytes": (whole(b"{}", size=(1 << 64) - 1), f"{(1 << 64) - 1} bytes", "byte 0 (length of the header)"),
    "a list": (whole([]), "no object", "byte 8 (header)"),
    "a number": (whole(b"17"), "no object", "byte 8 (header)"),
    "null": (whole(b"null"), "no object", "byte 8 (header)"),
    "no utf-8": (whole(b'{"\xff": 1}'), "no JSON", "byte 8 (header)"),
    "two objects": (whole(b"{}{}"), "no JSON", "byte 8 (header)"),
    "zeros behind": (whole(b"{}\0\0"), "no JSON", "byte 8 (header)"),
    "brackets": (whole(b'{"a":' + b"[" * 8 + b"]" * 8 + b"}"), "deeper than 8", "byte 8 (header)"),
    "brackets in a name": (whole({"[" * 9: 1}), "deeper than 8", "byte 8 (header)"),
    "a long number": (whole(b'{"a": ' + b"9" * 21 + b"}"), "a number is too long", "byte 8 (header)"),
    "a number of a million digits": (whole(b'{"a": ' + b"9" * 1_000_000 + b"}"), "too long", "byte 8 (header)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_with_cause_and_place(name):
    data, cause, where = REFUSED[name]
    with pytest.raises(Refused) as told:
        safetensors.index(data)
    assert cause in told.value.cause
    assert (told.value.where, told.value.exit_code) == (where, EXIT_REFUSED)


def test_a_header_larger_than_any_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr(safetensors, "LARGEST_HEADER", 100)
    data = whole(b"{" + b" " * 100_000 + b"}")
    tracemalloc.start()
    with pytest.raises(Refused, match="a header of 100002 bytes"):
        safetensors.index(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000
    assert safetensors.index(whole(b"{" + b" " * 98 + b"}")) == ()


def test_more_tensors_than_anybody_has_are_refused(monkeypatch):
    monkeypatch.setattr(safetensors, "MOST_TENSORS", 2)
    header = {name: entry(at, at + 1) for at, name in enumerate("abc")}
    with pytest.raises(Refused, match="3 tensors are too many"):
        safetensors.index(whole(header, b"abc"))


@pytest.mark.parametrize(
    "odd",
    [
        None, 3, "x", [], {}, {"dtype": "I8"}, entry(0, 0), entry(2, 1), entry(0, 9), entry(0, 2, "F32"),
        {**entry(0, 2), "shape": [2.0]}, {**entry(0, 2), "shape": ["2"]}, {**entry(0, 2), "shape": [True, 2]},
        {**entry(0, 2), "shape": {"0": 2}}, {**entry(0, 2), "data_offsets": [0, 1, 2]},
        {**entry(0, 2), "data_offsets": [0]}, {**entry(0, 2), "data_offsets": [0.0, 2]},
        {**entry(0, 2), "data_offsets": "02"}, {**entry(0, 2), "data_offsets": [-1, 1]},
        {**entry(0, 2), "dtype": "i8"}, {**entry(0, 2), "dtype": ""}, {**entry(0, 2), "dtype": None},
        {**entry(0, 2), "data_offsets": [10**19, 10**19 + 2]},
    ],
)  # fmt: skip
def test_an_entry_that_cannot_be_hides_no_other(odd):
    found = safetensors.index(whole({"odd": odd, "good": entry(4, 8)}, bytes(8)))
    assert [one.name for one in found] == ["good"]


def test_a_shape_that_lies_is_dropped_and_the_bytes_stay():
    (found,) = safetensors.index(whole({"w": entry(0, 8, "I8", [3, 3])}, bytes(8)))
    assert (found.length, found.shape) == (8, ())


def test_metadata_is_no_tensor_even_where_it_looks_like_one():
    assert safetensors.index(whole({"__metadata__": entry(0, 4)}, bytes(4))) == ()


def test_a_name_that_stands_there_twice_is_the_last_one_as_in_every_json():
    raw = b'{"w": ' + json.dumps(entry(0, 2)).encode() + b', "w": ' + json.dumps(entry(2, 4)).encode() + b"}"
    (found,) = safetensors.index(whole(raw, b"abcd"))
    assert found.start == 8 + len(raw) + 2


@pytest.mark.parametrize("name", ["../../etc/passwd", "\0", "a\nb", "#1", "\u202e", "x" * 1024])
def test_hostile_names_are_names(name):
    (found,) = safetensors.index(whole({name: entry(0, 1)}, b"a"))
    assert found.name == name


WHOLE = whole({"a": entry(0, 4), "b": entry(4, 12, "F32", [2])}, bytes(range(12)))


@settings(max_examples=50)
@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_spoiled_byte_is_refused_or_tensors_stay_inside(at, flip):
    assert well(safetensors.index, flipped(WHOLE, at, flip))


def test_every_cut_is_refused_or_tells_of_whole_tensors_only():
    whole_ones = safetensors.index(WHOLE)
    for end in range(len(WHOLE)):
        try:
            found = safetensors.index(WHOLE[:end])
        except Refused:
            assert end < len(WHOLE) - 12
            continue
        assert found == tuple(one for one in whole_ones if one.end <= end)
