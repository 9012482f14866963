"""BSDIFF40 against a plain interpreter of its control, and each field of a patch wrong by itself."""

from __future__ import annotations

import bz2
import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.base.errors import EXIT_ENVIRONMENT, EXIT_REFUSED, MissingExtra, Refused
from haversack.tools.codec import bsdiff


def signed(value):
    return struct.pack("<Q", value if value >= 0 else -value | 1 << 63)


def whole(control, mixed=b"", extra=b"", *, size=None, streams=None):
    """Return a patch of triples; ``streams`` stand in place of the three packed ones."""
    triples = b"".join(signed(number) for one in control for number in one)
    made = sum(one[0] + one[1] for one in control) if size is None else size
    parts = {0: bz2.compress(triples), 1: bz2.compress(mixed), 2: bz2.compress(extra)} | (streams or {})
    return struct.pack("<8sQQQ", b"BSDIFF40", len(parts[0]), len(parts[1]), made) + parts[0] + parts[1] + parts[2]


def plain(old, control, mixed, extra):
    """Return the new file, one byte after the other; bytes outside of the old file count as 0."""
    made, place, added, taken = bytearray(), 0, 0, 0
    for length, more, seek in control:
        for at in range(length):
            under = old[place + at] if 0 <= place + at < len(old) else 0
            made.append((mixed[added + at] + under) & 255)
        made += extra[taken : taken + more]
        place, added, taken = place + length + seek, added + length, taken + more
    return bytes(made)


@settings(max_examples=40)
@given(
    st.binary(max_size=30),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5), st.integers(-40, 40)), max_size=6),
    st.integers(0, 255),
)
def test_any_control_is_followed_as_a_plain_interpreter_follows_it(old, control, seed):
    mixed = bytes((seed + 7 * at) & 255 for at in range(sum(one[0] for one in control)))
    extra = bytes((seed + 3 * at) & 255 for at in range(sum(one[1] for one in control)))
    size = len(mixed) + len(extra)
    patch = whole(control, mixed, extra)
    if len(control) > size + 1:
        with pytest.raises(Refused):
            bsdiff.apply(old, patch, limit=size)
        return
    assert bsdiff.control(patch, limit=size)[0] == control
    assert bsdiff.apply(old, patch, limit=size) == plain(old, control, mixed, extra)


@pytest.mark.parametrize("seek", [(1 << 62), -(1 << 62), (1 << 63) - 1, -((1 << 63) - 1)])
def test_a_place_far_outside_of_the_old_file_is_zeros(seek):
    patch = whole([(2, 0, seek), (2, 0, 0)], b"\1\1\5\6")
    assert bsdiff.apply(b"abcd", patch, limit=4) == b"bc\5\6"


BOMB = bz2.compress(bytes(1 << 20))

WRONG = {
    "too short": (b"BSDIFF40" + bytes(23), "begins like this", "byte 0 (magic)"),
    "another mark": (b"bsdiff40" + bytes(24), "begins like this", "byte 0 (magic)"),
    "a size over the limit": (whole([(9, 0, 0)], bytes(9)), "9 bytes, and 8 are allowed", "byte 24 (length)"),
    "a size with a sign": (whole([], size=1 << 63), f"{1 << 63} bytes, and 8", "byte 24 (length)"),
    "sizes that add up beyond": (
        struct.pack("<8sQQQ", b"BSDIFF40", (1 << 64) - 1, (1 << 64) - 1, 4) + bytes(40),
        "more than there is",
        "byte 8 (sizes)",
    ),
    "no control": (whole([], size=4, streams={0: b""}), "other than", "control"),
    "a control that is no bzip2": (whole([], size=4, streams={0: b"BZh9nothing"}), "no bzip2 stream", "control"),
    "a control that is cut": (whole([(4, 0, 0)], b"1234", streams={0: bz2.compress(b"24")[:-3]}), "other", "control"),
    "half a triple": (whole([], size=4, streams={0: bz2.compress(bytes(12))}), "a control of 12 bytes", "control"),
    "more triples than bytes": (whole([(1, 0, 0)] + [(0, 0, 1)] * 9, b"a", size=1), "at most", "control"),
    "a control without end": (whole([], size=4, streams={0: BOMB}), "other than 120 bytes at most", "control"),
    "a control of too little": (whole([(3, 0, 0)], b"abc", size=4), "does not make 4 bytes", "control"),
    "a control of too much": (whole([(5, 0, 0)], b"abcde", size=4), "does not make 4 bytes", "control"),
    "bytes below none": (whole([(-1, 0, 0), (5, 0, 0)], b"abcd", size=4), "does not make 4 bytes", "control"),
    "extra below none": (whole([(5, -1, 0)], b"abcde", size=4), "does not make 4 bytes", "control"),
    "sizes that wrap": (whole([((1 << 63) - 1, 5, 0), (0, 0, 0)], size=4), "does not make 4 bytes", "control"),
    "differences without end": (whole([(4, 0, 0)], streams={1: BOMB}), "other than 4 bytes at most", "differences"),
    "extra without end": (whole([(0, 4, 0)], streams={2: BOMB}), "other than 4 bytes at most", "extra bytes"),
    "too few differences": (whole([(4, 0, 0)], b"abc"), "fewer bytes are there", "differences"),
    "too few extra bytes": (whole([(0, 4, 0)], b"", b"abc"), "fewer bytes are there", "differences"),
    "two streams for one": (
        whole([(0, 4, 0)], b"", streams={2: bz2.compress(b"ab") + bz2.compress(b"cd")}),
        "other than 4 bytes at most",
        "extra bytes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused_with_cause_and_place(name):
    patch, cause, where = WRONG[name]
    with pytest.raises(Refused) as told:
        bsdiff.apply(b"old", patch, limit=8)
    assert cause in told.value.cause
    assert (told.value.where, told.value.exit_code) == (where, EXIT_REFUSED)


def test_every_cut_of_a_real_patch_is_refused():
    old = bytes(range(200))
    patch = bsdiff.make(old, old[20:] + b"and more")
    for end in range(len(patch)):
        with pytest.raises(Refused):
            bsdiff.apply(old, patch[:end], limit=1000)


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bsdiff4", None)
    with pytest.raises(MissingExtra) as told:
        bsdiff.make(b"a", b"b")
    assert "bsdiff4" in str(told.value)
    assert "pack" in told.value.next_step
    assert told.value.exit_code == EXIT_ENVIRONMENT
