"""The reader of FlatBuffers: what a writer wrote comes out, whatever else ends in ``Spoiled`` and in bounded time."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.tools.formats.flat import Spoiled, Table, root

NUMBERS = {"b": (-128, 127), "B": (0, 255), "h": (-(2**15), 2**15 - 1), "i": (-(2**31), 2**31 - 1), "Q": (0, 2**64 - 1)}
READS = (
    lambda table, slot: table.integer(slot),
    lambda table, slot: table.number(slot, "f"),
    lambda table, slot: table.number(slot, "d"),
    lambda table, slot: table.integer(slot, "Q"),
    lambda table, slot: table.integer(slot, "b"),
    lambda table, slot: table.table(slot),
    lambda table, slot: table.tables(slot),
    lambda table, slot: table.numbers(slot, "I"),
    lambda table, slot: table.numbers(slot, "Q"),
    lambda table, slot: table.octets(slot),
    lambda table, slot: table.text(slot),
)


class Buffer:
    """A buffer written front to back: tables first, what they point to behind them."""

    def __init__(self, identifier=b"TEST"):
        self.data = bytearray(struct.pack("<I", 8) + identifier)

    def table(self, *slots):
        """Append a table; a slot is None, (struct letter, number), or "point" for an offset that is set later."""
        body, entries = bytearray(4), []
        for slot in slots:
            if slot is None:
                entries.append(0)
                continue
            kind, number = ("I", 0) if slot == "point" else slot
            entries.append(len(body))
            body += struct.pack(f"<{kind}", number)
        vtable = struct.pack(f"<HH{len(entries)}H", 4 + 2 * len(entries), len(body), *entries)
        at = len(self.data)
        struct.pack_into("<i", body, 0, -len(body))  # the vtable stands behind its table
        self.data += body + vtable
        return at, [at + entry for entry in entries]

    def point(self, place):
        """Let an offset point to what comes next."""
        struct.pack_into("<I", self.data, place, len(self.data) - place)

    def vector(self, place, kind, numbers):
        self.point(place)
        self.data += struct.pack("<I", len(numbers)) + struct.pack(f"<{len(numbers)}{kind}", *numbers)

    def root(self):
        return root(bytes(self.data), b"TEST")


@st.composite
def scalars(draw):
    kind = draw(st.sampled_from(sorted(NUMBERS)))
    low, high = NUMBERS[kind]
    return kind, draw(st.integers(low, high))


@given(st.lists(st.none() | scalars(), max_size=12))
def test_numbers_are_read_as_they_were_written(slots):
    buffer = Buffer()
    buffer.table(*slots)
    table = buffer.root()
    for slot, written in enumerate(slots):
        kind, number = written or ("i", -7)
        assert table.integer(slot, kind, default=-7) == number
    assert table.integer(len(slots), default=5) == 5  # a newer file may have more slots than an older reader knows


@given(st.floats(width=32, allow_nan=False))
def test_a_float32_keeps_every_bit(number):
    buffer = Buffer()
    buffer.table(("f", number))
    assert struct.pack("<f", buffer.root().number(0, "f")) == struct.pack("<f", number)


@given(st.text(max_size=20), st.binary(max_size=20), st.lists(st.integers(0, 2**32 - 1), max_size=9))
def test_strings_bytes_and_vectors_are_read_as_they_were_written(text, octets, numbers):
    buffer = Buffer()
    _, places = buffer.table("point", "point", "point")
    buffer.vector(places[0], "B", text.encode())
    buffer.vector(places[1], "B", octets)
    buffer.vector(places[2], "I", numbers)
    table = buffer.root()
    assert table.text(0) == text
    assert table.octets(1) == octets
    assert table.numbers(2, "I") == tuple(numbers)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=8))
def test_a_vector_of_tables_keeps_its_order(numbers):
    buffer = Buffer()
    _, (place,) = buffer.table("point")
    buffer.vector(place, "I", [0] * len(numbers))
    first = len(buffer.data) - 4 * len(numbers)
    for index, number in enumerate(numbers):
        buffer.point(first + 4 * index)
        buffer.table(("I", number))
    assert [table.integer(0) for table in buffer.root().tables(0)] == numbers


def test_what_is_absent_is_empty():
    buffer = Buffer()
    buffer.table(None)
    table = buffer.root()
    assert table.table(0) is None
    assert (table.tables(0), table.numbers(0, "I"), table.octets(0), table.text(0)) == ((), (), b"", "")


@given(st.binary(max_size=120), st.integers(0, 140), st.integers(0, 40), st.sampled_from(READS))
def test_any_bytes_are_read_or_told_to_be_spoiled(data, at, slot, read):
    try:
        read(Table(memoryview(data), at, [1 << 20]), slot)
    except Spoiled as error:
        assert str(error)


@given(st.binary(max_size=64))
def test_a_root_is_found_only_behind_its_name(data):
    if data[4:8] == b"TEST":
        return
    with pytest.raises(Spoiled, match="no TEST file"):
        root(data, b"TEST")


@pytest.mark.parametrize("count", [2, 1 << 16, (1 << 31) - 1, (1 << 32) - 1])
@pytest.mark.parametrize("read", READS[6:])
def test_a_vector_that_is_longer_than_the_file(read, count):
    buffer = Buffer()
    _, (place,) = buffer.table("point")
    buffer.point(place)
    buffer.data += struct.pack("<I", count) + b"\1"
    with pytest.raises(Spoiled, match=f"a vector of {count} elements leads out"):
        read(buffer.root(), 0)


@pytest.mark.parametrize("offset", [0, 1 << 31, (1 << 32) - 1])
def test_an_offset_that_leads_nowhere(offset):
    buffer = Buffer()
    _, (place,) = buffer.table("point")
    struct.pack_into("<I", buffer.data, place, offset)
    for read in READS[5:]:
        with pytest.raises(Spoiled, match=f"an offset of {offset} at {place}" if read is not READS[5] else "offset"):
            read(buffer.root(), 0)


@pytest.mark.parametrize("back", [-(2**31), -1000, 1000, 2**31 - 1])
def test_a_table_whose_vtable_is_elsewhere(back):
    buffer = Buffer()
    at, _ = buffer.table(("I", 1))
    struct.pack_into("<i", buffer.data, at, back)
    with pytest.raises(Spoiled, match="is outside the file"):
        buffer.root().integer(0)


@pytest.mark.parametrize("entry", [6, 9, 0x7FFF, 0xFFFF])
def test_a_slot_that_lies_outside_of_the_file(entry):
    buffer = Buffer()
    buffer.table(("I", 1))
    struct.pack_into("<H", buffer.data, len(buffer.data) - 2, entry)
    table = buffer.root()
    if entry < len(buffer.data):
        entry = 0
        assert table.integer(0, "B") >= 0  # still inside of the file: some number, no crash
    else:
        with pytest.raises(Spoiled):
            table.integer(0)


def test_a_table_that_holds_itself_is_no_loop():
    """Offsets are unsigned, so nothing leads back; a vector may name one table many times, and is then cut short."""
    buffer = Buffer()
    _, (place,) = buffer.table("point")
    many = 2000
    buffer.vector(place, "I", [4 * (many - index) for index in range(many)])
    _, (inner,) = buffer.table("point")
    buffer.vector(inner, "I", range(many))
    with pytest.raises(Spoiled, match="overlap"):
        for table in buffer.root().tables(0):
            assert len(table.numbers(0, "I")) == many


def test_text_that_is_not_utf8():
    buffer = Buffer()
    _, (place,) = buffer.table("point")
    buffer.vector(place, "B", b"\xff\xfe")
    with pytest.raises(Spoiled, match="not UTF-8"):
        buffer.root().text(0)
