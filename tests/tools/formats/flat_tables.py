"""FlatBuffers from plain data: a table is a dictionary of slot -> value, written with the format's own library."""

from __future__ import annotations

import struct

import flatbuffers

SIZES = {"b": 1, "B": 1, "H": 2, "h": 2, "i": 4, "I": 4, "q": 8, "Q": 8, "f": 4}


def scalar(kind, value):
    """Return a number that stands in a table itself; ``kind`` is its ``struct`` letter."""
    return ("scalar", kind, value)


def vector(kind, values):
    """Return a vector of numbers."""
    return ("vector", kind, tuple(values))


def buffer(table, mark):
    """Return the buffer whose root is a table. Dictionaries that are the same object are one table in it."""
    made, done = flatbuffers.Builder(256), {}
    made.Finish(_table(made, table, done), file_identifier=mark)
    return bytes(made.Output())


def _table(made, table, done):
    if id(table) in done:
        return done[id(table)]
    far = {slot: _far(made, value, done) for slot, value in table.items() if not _near(value)}
    made.StartObject(max(table, default=0) + 1)
    for slot, value in sorted(table.items()):
        if _near(value):
            _, kind, number = value
            size = SIZES[kind]
            made.Prep(size, 0)
            made.Pad(0)
            raw = struct.pack(f"<{kind}", number)
            made.head = made.head - size
            made.Bytes[made.head : made.head + size] = raw
            made.Slot(slot)
        else:
            made.PrependUOffsetTRelativeSlot(slot, far[slot], 0)
    done[id(table)] = made.EndObject()
    return done[id(table)]


def _near(value):
    return isinstance(value, tuple) and value[0] == "scalar"


def _far(made, value, done):
    if isinstance(value, str):
        return made.CreateString(value)
    if isinstance(value, bytes):
        return made.CreateByteVector(value)
    if isinstance(value, dict):
        return _table(made, value, done)
    if isinstance(value, list):
        inside = [_table(made, each, done) for each in value]
        made.StartVector(4, len(inside), 4)
        for one in reversed(inside):
            made.PrependUOffsetTRelative(one)
        return made.EndVector()
    _, kind, numbers = value
    made.StartVector(SIZES[kind], len(numbers), SIZES[kind])
    raw = struct.pack(f"<{len(numbers)}{kind}", *numbers)
    made.head = made.head - len(raw)
    made.Bytes[made.head : made.head + len(raw)] = raw
    return made.EndVector()
