"""The wire format of Protocol Buffers: what the library writes is read, and nothing spoiled does more than refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.errors import Refused
from haversack.tools.formats import wire


def number(value: int) -> bytes:
    out = b""
    while True:
        value, low = value >> 7, value & 127
        out += bytes([low | 128 if value else low])
        if not value:
            return out


def message(fields) -> bytes:
    out = b""
    for place, content in fields:
        if isinstance(content, int):
            out += number(place << 3) + number(content)
        else:
            out += number(place << 3 | 2) + number(len(content)) + content
    return out


@given(st.lists(st.tuples(st.integers(1, 1 << 20), st.integers(0, (1 << 64) - 1) | st.binary(max_size=40)), max_size=8))
def test_fields_are_read_as_they_were_written(fields):
    data = memoryview(message(fields))
    found = list(wire.fields(data, 0, len(data)))
    assert [one.number for one in found] == [place for place, _ in fields]
    for one, (_, content) in zip(found, fields, strict=True):
        assert (one.value if one.wire == wire.VARINT else bytes(data[one.start : one.end])) == content


def test_fixed_widths_are_stepped_over():
    data = memoryview(b"\x0d1234\x1112345678\x08\x05")
    assert [(one.number, one.wire, one.end - one.start) for one in wire.fields(data, 0, len(data))] == [
        (1, wire.FIXED32, 4), (2, wire.FIXED64, 8), (1, wire.VARINT, 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "data, said",
    [
        (b"\x0a", "leads out of its message"),
        (b"\x0a\x05abcd", "leads out of its message"),
        (b"\x0d123", "leads out of its message"),
        (b"\x08\x80", "leads out of its message"),
        (b"\x08" + b"\x80" * 11, "more than 64 bits"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x0e", "wire type 6"),
        (b"\x02\x00", "field 0"),
        (b"\x0a" + b"\xff" * 9 + b"\x7f", "leads out of its message"),
    ],
)
def test_what_no_message_is(data, said):
    with pytest.raises(Refused, match=said):
        list(wire.fields(memoryview(data), 0, len(data)))


@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_refused(data):
    try:
        found = list(wire.fields(memoryview(data), 0, len(data)))
    except Refused:
        return
    assert all(0 <= one.start <= one.end <= len(data) for one in found)
