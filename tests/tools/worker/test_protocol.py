from __future__ import annotations

import io
import json
import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from haversack.tools.worker.protocol import (
    MAGIC,
    BadFrame,
    Bounds,
    Frame,
    encode,
    read_frame,
    send,
)

DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
shapes = nps.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
arrays = st.sampled_from(DTYPES).flatmap(lambda dtype: nps.arrays(np.dtype(dtype), shapes))
frames = st.builds(
    Frame, st.dictionaries(st.text(), json_values, max_size=4), st.dictionaries(st.text(), arrays, max_size=3)
)


class Dribble(io.RawIOBase):
    """A stream that gives and takes at most three bytes at a time, as a slow pipe may."""

    def __init__(self, data=b""):
        super().__init__()
        self.inner = io.BytesIO(data)

    def readinto(self, buffer):
        return self.inner.readinto(buffer[:3])

    def write(self, data):
        return self.inner.write(data[:3])


def packed(frame):
    stream = io.BytesIO()
    send(stream, encode(frame))
    return stream.getvalue()


def raw(header, *, magic=MAGIC, length=None, buffers=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<4sI", magic, len(text) if length is None else length) + text + buffers


def same(one, other):
    assert dict(one.data) == dict(other.data)
    assert list(one.arrays) == list(other.arrays)
    for name, array in one.arrays.items():
        back = other.arrays[name]
        assert back.shape == array.shape
        assert back.dtype == array.dtype
        assert back.tobytes() == array.tobytes()  # NaN payloads and negative zeros as well


@given(frames)
@settings(max_examples=60)
def test_what_is_written_is_read(frame):
    stream = io.BytesIO(packed(frame))
    same(frame, read_frame(stream))
    assert stream.read() == b""


@given(st.lists(frames, max_size=3))
@settings(max_examples=30)
def test_frames_follow_each_other_and_the_end_is_none(many):
    stream = io.BytesIO(b"".join(packed(frame) for frame in many))
    for frame in many:
        same(frame, read_frame(stream))
    assert read_frame(stream) is None


@given(frames)
def test_the_size_of_the_stream_s_steps_does_not_matter(frame):
    stream = Dribble()
    send(stream, encode(frame))
    assert stream.inner.getvalue() == packed(frame)
    same(frame, read_frame(Dribble(packed(frame))))


@given(frames, st.data())
def test_a_truncated_frame_is_told(frame, data):
    whole = packed(frame)
    cut = data.draw(st.integers(1, len(whole) - 1))
    with pytest.raises(BadFrame, match="ends after"):
        read_frame(io.BytesIO(whole[:cut]))


@given(frames, st.data())
@settings(max_examples=150)
def test_a_changed_byte_is_another_frame_or_a_bad_frame_but_nothing_else(frame, data):
    whole = bytearray(packed(frame))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    try:
        result = read_frame(io.BytesIO(bytes(whole)), Bounds(header_bytes=1 << 16, buffer_bytes=1 << 16))
    except BadFrame:
        return
    assert isinstance(result, Frame)


@given(st.binary(min_size=1, max_size=200))
def test_foreign_bytes_are_a_bad_frame(data):
    with pytest.raises(BadFrame):
        read_frame(io.BytesIO(b"\x00" + data))


@given(st.binary(max_size=100))
def test_any_header_is_judged_without_another_exception(header):
    with pytest.raises(BadFrame):
        read_frame(io.BytesIO(raw(header)))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"data": {"x": NaN}, "arrays": []}', "NaN is no number"),
        (b'{"data": {"x": -Infinity}, "arrays": []}', "Infinity is no number"),
        (b'{"data": {"x": ' + b"9" * 5000 + b'}, "arrays": []}', "not JSON"),
        ([], "not an object of data"),
        ({"data": {}}, "not an object of data"),
        ({"data": {}, "arrays": [], "more": 1}, "not an object of data"),
        ({"data": [], "arrays": []}, "data is not an object"),
        ({"data": {}, "arrays": {}}, "data is not an object"),
        ({"data": {}, "arrays": ["x"]}, "not \\[name, dtype, shape\\]"),
        ({"data": {}, "arrays": [["x", "<f4"]]}, "not \\[name, dtype, shape\\]"),
        ({"data": {}, "arrays": [[3, "<f4", []]]}, "no text"),
        ({"data": {}, "arrays": [["x", "<f4", [0]], ["x", "<f4", [0]]]}, "given twice"),
        ({"data": {}, "arrays": [["x", "|O", [1]]]}, "do not travel"),
        ({"data": {}, "arrays": [["x", ">f4", [1]]]}, "do not travel"),
        ({"data": {}, "arrays": [["x", "<U9", [1]]]}, "do not travel"),
        ({"data": {}, "arrays": [["x", ["<f4"], [1]]]}, "do not travel"),
        ({"data": {}, "arrays": [["x", "<f4", 3]]}, "not a list"),
        ({"data": {}, "arrays": [["x", "<f4", [1] * 33]]}, "not a list"),
        ({"data": {}, "arrays": [["x", "<f4", [-1]]]}, "size that is none"),
        ({"data": {}, "arrays": [["x", "<f4", [True]]]}, "size that is none"),
        ({"data": {}, "arrays": [["x", "<f4", [1.0]]]}, "size that is none"),
        ({"data": {}, "arrays": [["x", "<f4", [2**63]]]}, "size that is none"),
        ({"data": {}, "arrays": [["x", "<f4", [1 << 20] * 9]]}, "over the bound"),
        ({"data": {}, "arrays": [["x", "<f4", [0, 1 << 32, 1 << 32, 1 << 32]]]}, "over the bound"),
        ({"data": {}, "arrays": [["x", "<f8", [1 << 30, 4]]]}, "over the bound"),
        ({"data": {}, "arrays": [[str(n), "<f4", [0]] for n in range(4097)]}, "4097 arrays are over"),
        ({"data": {}, "arrays": [["x", "<f4", [2]]]}, "ends after 0 of the 8 bytes of the array 'x'"),
    ],
)
def test_a_hostile_header_is_refused_with_its_reason(header, reason):
    with pytest.raises(BadFrame, match=reason):
        read_frame(io.BytesIO(raw(header)))


def test_a_header_that_lies_about_its_length_is_refused_before_it_is_read():
    with pytest.raises(BadFrame, match="header of 4294967295 bytes is over the bound"):
        read_frame(io.BytesIO(raw({}, length=2**32 - 1)))
    with pytest.raises(BadFrame, match="bytes of the header"):
        read_frame(io.BytesIO(raw({"data": {}, "arrays": []}, length=1000)))


def test_another_protocol_s_magic_is_named():
    with pytest.raises(BadFrame, match="b'HVW0'"):
        read_frame(io.BytesIO(raw({"data": {}, "arrays": []}, magic=b"HVW0")))


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        (Bounds(header_bytes=10), "header of"),
        (Bounds(buffer_bytes=11), "buffers of 12 bytes"),
        (Bounds(arrays=1), "2 arrays"),
    ],
)
def test_the_writer_keeps_the_same_bounds(bounds, reason):
    frame = Frame({}, {"a": np.zeros(2, np.float32), "b": np.zeros(1, np.float32)})
    stream = io.BytesIO()
    with pytest.raises(BadFrame, match=reason):
        send(stream, encode(frame, bounds))
    assert stream.getvalue() == b""
    with pytest.raises(BadFrame):
        read_frame(io.BytesIO(packed(frame)), bounds)


@pytest.mark.parametrize("array", [np.array([object()]), np.array(["text"]), np.array([1j]), np.array([b"x"])])
def test_arrays_that_would_need_a_pickle_do_not_travel(array):
    with pytest.raises(TypeError, match="do not travel"):
        encode(Frame({}, {"x": array}))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_json_cannot_say_do_not_travel(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode(Frame({"x": value}))


def test_data_that_is_not_json_does_not_travel():
    with pytest.raises(TypeError):
        encode(Frame({"x": {1, 2}}))


def test_layout_and_byte_order_of_the_sender_do_not_travel():
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    sent = {"turned": matrix.T, "every": matrix[:, ::2], "big": matrix.astype(">f4"), "back": matrix[::-1]}
    back = read_frame(io.BytesIO(packed(Frame({}, sent)))).arrays
    for name, array in sent.items():
        assert np.array_equal(back[name], array)
        assert back[name].flags.c_contiguous
        assert back[name].dtype == np.dtype("<f4")


def test_arrays_that_were_read_can_be_written_to():
    back = read_frame(io.BytesIO(packed(Frame({}, {"x": np.zeros(3)}))))
    back.arrays["x"][0] = 1
    assert back.arrays["x"][0] == 1


def test_contiguous_arrays_are_sent_without_a_copy():
    array = np.zeros(5, np.uint8)
    piece = encode(Frame({}, {"x": array}))[1]
    array[0] = 7
    assert piece[0] == 7
