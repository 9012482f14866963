"""FlatBuffers: what the library of the format writes is read back, and no offset leads out of the bytes."""

from __future__ import annotations

import struct

import flatbuffers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.tools.formats import flat
from haversack.tools.formats.flat import Spoiled, Table, root

MARK = b"TEST"
NUMBER, WIDE, SIGNED, TEXT, VECTOR, CHILD, CHILDREN, OCTETS = range(8)


def filled(number=7, wide=1 << 40, signed=-3, text="näme", vector=(1, -2, 3), octets=b"\0\1\2", children=2):
    """Return a buffer of one table with a slot of every kind, as the format's own library writes it."""
    made = flatbuffers.Builder(64)
    small = []
    for value in range(children):
        made.StartObject(1)
        made.PrependUint32Slot(0, value + 1, 0)
        small.append(made.EndObject())
    made.StartVector(4, len(small), 4)
    for one in reversed(small):
        made.PrependUOffsetTRelative(one)
    listed = made.EndVector()
    made.StartVector(4, len(vector), 4)
    for one in reversed(vector):
        made.PrependInt32(one)
    numbers = made.EndVector()
    held, said = made.CreateByteVector(octets), made.CreateString(text)
    made.StartObject(8)
    made.PrependUint32Slot(NUMBER, number, 0)
    made.PrependUint64Slot(WIDE, wide, 0)
    made.PrependInt8Slot(SIGNED, signed, 0)
    made.PrependUOffsetTRelativeSlot(TEXT, said, 0)
    made.PrependUOffsetTRelativeSlot(VECTOR, numbers, 0)
    if small:
        made.PrependUOffsetTRelativeSlot(CHILD, small[0], 0)
    made.PrependUOffsetTRelativeSlot(CHILDREN, listed, 0)
    made.PrependUOffsetTRelativeSlot(OCTETS, held, 0)
    made.Finish(made.EndObject(), file_identifier=MARK)
    return bytes(made.Output())


def read(data):
    """Return all that a table made by ``filled`` holds."""
    table = root(data, MARK)
    child = table.table(CHILD)
    return {
        "number": table.integer(NUMBER),
        "wide": table.integer(WIDE, "Q"),
        "signed": table.integer(SIGNED, "b"),
        "text": table.text(TEXT),
        "vector": table.numbers(VECTOR, "i"),
        "octets": table.octets(OCTETS),
        "child": None if child is None else child.integer(0),
        "children": [one.integer(0) for one in table.tables(CHILDREN)],
    }


@settings(max_examples=25)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(-128, 127),
    st.text("ab\0é☃😀", max_size=12),
    st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9),
    st.binary(max_size=30),
    st.integers(0, 5),
)
def test_what_the_library_writes_is_read(number, wide, signed, text, vector, octets, children):
    data = filled(number, wide, signed, text, vector, octets, children)
    assert read(data) == {
        "number": number,
        "wide": wide,
        "signed": signed,
        "text": text,
        "vector": tuple(vector),
        "octets": octets,
        "child": 1 if children else None,
        "children": list(range(1, children + 1)),
    }


def test_where_a_vector_lies_is_told_without_its_bytes():
    data = filled(vector=(5, 6, 7))
    at, count = root(data, MARK).span(VECTOR, 4)
    assert count == 3
    assert struct.unpack_from("<3i", data, at) == (5, 6, 7)
    assert root(data, MARK).span(40, 4) == (0, 0)


def test_slots_behind_the_last_one_have_what_is_said_of_absent_ones():
    table = root(filled(), MARK)
    for slot in (8, 9, 100, 40_000):
        assert table.integer(slot, "I", 42) == 42
        assert table.table(slot) is None
        assert (table.tables(slot), table.numbers(slot, "q"), table.octets(slot), table.text(slot)) == ((), (), b"", "")


def test_a_slot_that_was_left_out_is_the_default():
    table = root(filled(number=0, wide=0, signed=0), MARK)  # the library leaves out what equals the default
    assert table.integer(NUMBER, default=9) == 9
    assert table.number(SIGNED, "b", -1.5) == -1.5


@pytest.mark.parametrize("mark", [b"TFL3", b"\0\0\0\0", b"tEST"])
def test_another_identifier_is_named(mark):
    with pytest.raises(Spoiled, match=f"no {mark.decode()} file: it begins with b'TEST'"):
        root(filled(), mark)


@pytest.mark.parametrize("data", [b"", b"abc", b"\x08\0\0\0", b"\x08\0\0\0TES"])
def test_too_few_bytes_for_an_identifier(data):
    with pytest.raises(Spoiled, match="no TEST file"):
        root(data, MARK)


@pytest.mark.parametrize("offset", [0, 1 << 31, 0xFFFFFFFF])
def test_a_root_that_is_nowhere(offset):
    with pytest.raises(Spoiled, match=f"an offset of {offset} at 0"):
        root(struct.pack("<I", offset) + filled()[4:], MARK)


def vtable_at(data):
    at = struct.unpack_from("<I", data)[0]
    return at, at - struct.unpack_from("<i", data, at)[0]


@pytest.mark.parametrize("back", [-(1 << 31), 1 << 30, 5_000])
def test_a_vtable_outside_the_file(back):
    data = bytearray(filled())
    struct.pack_into("<i", data, vtable_at(data)[0], back)
    with pytest.raises(Spoiled, match=f"is outside the file of {len(data)} bytes"):
        root(bytes(data), MARK).integer(NUMBER)


@pytest.mark.parametrize("slot", range(8))
def test_a_slot_outside_the_file(slot):
    data = bytearray(filled())
    at, vtable = vtable_at(data)
    struct.pack_into("<H", data, vtable + 4 + 2 * slot, 0xFFF0)
    with pytest.raises(Spoiled, match=f"position {at + 0xFFF0} is outside"):
        read(bytes(data))


@pytest.mark.parametrize("count", [4, 1 << 20, 0xFFFFFFFF])
def test_a_vector_longer_than_the_file(count):
    data = bytearray(filled(vector=tuple(range(3)), text="", octets=b""))
    at, found = root(bytes(data), MARK).span(VECTOR, 4)
    assert found == 3
    count = max(count, len(data) // 4)
    struct.pack_into("<I", data, at - 4, count)
    for ask in (lambda t: t.numbers(VECTOR, "i"), lambda t: t.span(VECTOR, 4), lambda t: t.tables(VECTOR)):
        with pytest.raises(Spoiled, match=f"a vector of {count} elements leads out"):
            ask(root(bytes(data), MARK))


def test_a_vector_to_the_last_byte_is_read_and_one_more_is_not():
    data = bytearray(filled())
    at, _ = root(bytes(data), MARK).span(OCTETS, 1)
    struct.pack_into("<I", data, at - 4, len(data) - at)
    assert root(bytes(data), MARK).octets(OCTETS) == bytes(data[at:])
    struct.pack_into("<I", data, at - 4, len(data) - at + 1)
    with pytest.raises(Spoiled, match="leads out"):
        root(bytes(data), MARK).octets(OCTETS)


@pytest.mark.parametrize("wrong", [b"\xff", b"\xc3", b"\xed\xa0\x80"])
def test_a_text_that_is_no_utf8(wrong):
    data = filled(text="q" * len(wrong)).replace(b"q" * len(wrong) + b"\0", wrong + b"\0")
    with pytest.raises(Spoiled, match="not UTF-8"):
        root(data, MARK).text(TEXT)


def test_reading_the_same_bytes_over_and_over_ends():
    data = filled(octets=bytes(100))
    table = root(data, MARK)
    reads = 0
    with pytest.raises(Spoiled, match="overlap"):
        for _ in range(10_000):
            table.octets(OCTETS)
            reads += 1
    assert reads == 8 * len(data) // 100


def test_what_is_spent_counts_for_all_tables_of_a_buffer():
    table = root(filled(octets=bytes(64)), MARK)
    child = table.table(CHILD)
    (before,) = table.budget
    table.octets(OCTETS)
    assert child.budget == table.budget == [before - 64]
    assert child == Table(child.data, child.at, [0])  # what may yet be read makes no other table of it


def test_asking_where_a_vector_lies_spends_nothing():
    table = root(filled(), MARK)
    (before,) = table.budget
    for _ in range(1000):
        table.span(OCTETS, 1)
    assert table.budget == [before]


WHOLE = filled()


@settings(max_examples=50)
@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_spoiled_byte_is_told_or_gives_values_of_the_same_kinds(at, flip):
    data = bytearray(WHOLE)
    data[at] ^= flip
    try:
        found = read(bytes(data))
    except Spoiled as error:
        assert str(error)
        return
    assert {name: type(value) for name, value in found.items() if name != "child"} == {
        name: type(value) for name, value in read(WHOLE).items() if name != "child"
    }
    assert len(found["octets"]) <= len(data)


def test_every_cut_is_told_or_gives_what_stood_before_it():
    whole = read(WHOLE)
    for end in range(len(WHOLE)):
        try:
            found = read(WHOLE[:end])
        except Spoiled:
            continue
        assert found == whole


def test_the_error_is_one_of_values():
    assert issubclass(flat.Spoiled, ValueError)
