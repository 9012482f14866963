"""Deltas made by hand, each wrong in one way: every refusal says what is wrong and at which byte."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc

import numpy as np
import pytest

from haversack.base.errors import EXIT_REFUSED, Refused
from haversack.tools.codec import bsdiff, delta, delta_plan, delta_tilt, delta_words, rans, tables, zstd
from haversack.tools.codec.delta_plan import COPIED, FIRST_KIND, NEGATED, WRITTEN, Block, Segment
from haversack.tools.codec.delta_words import BYTES, INT16, INT32, NIBBLES

OLD = bytes(range(100, 148))
SIZE = delta.HEADER.size


def levels(*symbols):
    """Return tables, each of the symbols that are given."""
    found = np.zeros((len(symbols), 256), np.uint8)
    for row, mine in zip(found, symbols, strict=True):
        row[list(mine)] = 60
    return found


def whole(made, blocks, content=b"", *, told=None, classes=b"", new=None):
    """Return a delta of these parts that says it yields ``new``, or zeros of the length that its segments make."""
    plan = delta_plan.write(levels() if told is None else told, blocks)
    frames = zstd.compress(plan, 3), zstd.compress(classes, 3)
    new = bytes(sum(one.length for block in blocks for one in block.segments)) if new is None else new
    sizes = (len(plan), len(frames[0])), (len(classes), len(frames[1]))
    head = delta.Header(len(made), len(new), hashlib.sha256(made).digest(), hashlib.sha256(new).digest(), *sizes)
    return head.packed() + frames[0] + frames[1] + content


def refused(patch, limit=1000):
    with pytest.raises(Refused) as told:
        delta.apply(OLD, patch, limit=limit)
    assert told.value.exit_code == EXIT_REFUSED
    assert told.value.where
    return told.value


def coded(symbols, models, told, lanes=1):
    states, words = rans.encode(
        np.array(symbols, np.uint8), np.array(models, np.int64), tables.to_frequencies(told), lanes
    )
    return states.astype("<u4").tobytes() + words.astype("<u2").tobytes(), len(words)


def test_a_delta_by_hand_of_all_three_ways():
    told = levels([0, 1, 255])
    symbols = [1, 0, 255, 1]
    content, words = coded(symbols, [0] * 4, told)
    packed = zstd.compress(b"written", 3)
    segments = (Segment(COPIED, 8, 40), Segment(WRITTEN, 7), Segment(FIRST_KIND + BYTES, 4, 10))
    block = Block(segments, 7, len(packed), 0, 1, words)
    new = OLD[40:] + b"written" + bytes([111, 111, 111, 114])
    patch = whole(OLD, [block], packed + content, told=told, new=new)
    assert delta.apply(OLD, patch, limit=len(new)) == new
    pieces = []
    delta.apply_to(memoryview(OLD), memoryview(patch), pieces.append, limit=len(new))
    assert pieces == [OLD[40:], b"written", bytes([111, 111, 111, 114])]


def test_a_table_of_one_symbol_takes_no_bytes():
    told = levels([3])
    patch = whole(OLD, [Block((Segment(FIRST_KIND + BYTES, 5, 0),))], told=told, new=bytes([103, 104, 105, 106, 107]))
    assert delta.apply(OLD, patch, limit=5) == bytes([103, 104, 105, 106, 107])


def test_rows_that_are_negated_take_the_table_of_both_classes():
    told = levels([0], [1], [2])
    classes = bytes([1, NEGATED + 1, 0]) + bytes([0, 1])  # three rows, two columns
    segment = Segment(FIRST_KIND + BYTES, 6, 0, 0, 2)
    new = bytes([101, 103, 101, 101, 104, 105])
    patch = whole(OLD, [Block((segment,))], told=told, classes=classes, new=new)
    assert delta.apply(OLD, patch, limit=6) == new


def test_a_last_row_that_is_not_full():
    told = levels([0], [1], [2])
    segment = Segment(FIRST_KIND + BYTES, 5, 0, 0, 3)
    new = bytes([101, 103, 103, 102, 103])
    patch = whole(OLD, [Block((segment,))], told=told, classes=bytes([1, NEGATED + 1, 0, 1, 0]), new=new)
    with_sign = bytes([101, 103, 103, 102, 102])
    assert refused(patch).cause.startswith("the new file has another sha256")
    signed = whole(OLD, [Block((segment,))], told=told, classes=bytes([1, NEGATED + 1, 0, 1, 0]), new=with_sign)
    assert delta.apply(OLD, signed, limit=5) == bytes([101, 103, 103, 102, 102])


def test_words_of_a_tilted_row_take_the_table_of_their_degree_and_a_side():
    """Old words 100 and 101 times 3 are 300 and 303: one step of 512, and of what is left degree 4, below 0."""
    told = levels([0], [1], [2], [3], [7], [5])
    segment = Segment(FIRST_KIND + BYTES, 4, 0, 0, 2, reach=1)
    classes = bytes([1, 1]) + bytes([0, 0]) + delta_tilt.write(np.array([3, 0]))
    new = bytes([101 - 5, 102 - 5, 103, 104])  # the residual is that of table 1 + 4, negated; then of table 1
    patch = whole(OLD, [Block((segment,))], told=told, classes=classes, new=new)
    assert delta.apply(OLD, patch, limit=4) == new
    turned = bytes([NEGATED + 1, 1]) + classes[2:]
    new = bytes([101 + 5, 102 + 5, 103, 104])
    patch = whole(OLD, [Block((segment,))], told=told, classes=turned, new=new)
    assert delta.apply(OLD, patch, limit=4) == new


def test_a_wide_word_of_a_symbol_and_bits():
    told = levels([12])  # five bits, of which the first three are 100
    content = bytes([0b11])
    old = int.from_bytes(OLD[:4], "little")
    new = ((old + -(0b10011 + 1) // 2) & 0xFFFFFFFF).to_bytes(4, "little")
    patch = whole(OLD, [Block((Segment(FIRST_KIND + INT32, 4, 0),), bits=1)], content, told=told, new=new)
    assert delta.apply(OLD, patch, limit=4) == new


ONE = Segment(FIRST_KIND + BYTES, 4, 0)
ROWS = Segment(FIRST_KIND + BYTES, 4, 0, 0, 2)
TILTED = Segment(FIRST_KIND + BYTES, 4, 0, 0, 2, reach=1)
TWO = levels([0, 1])

BLOCKS = {
    "classes without rows": (([Block((ONE,))],), {"told": levels([0]), "classes": b"\0"}, "1 classes are there of 0"),
    "rows without classes": (([Block((ROWS,))],), {"told": levels([0])}, "0 classes are there of 4"),
    "a class behind the last table": (
        ([Block((ROWS,))],),
        {"told": levels([0], [1]), "classes": bytes([1, 0, 0, 1])},
        "behind the last of 2 tables",
    ),
    "a degree behind the last table": (
        ([Block((TILTED,))],),
        {"told": levels([0], [1], [2], [3], [4]), "classes": bytes([1, 1, 0, 0]) + delta_tilt.write(np.array([3, 0]))},
        "behind the last of 5 tables",
    ),
    "rows without tilts": (
        ([Block((TILTED,))],),
        {"told": levels([0], [1]), "classes": bytes([1, 1, 0, 0])},
        "4 classes are there of 8",
    ),
    "rows longer than the segment": (
        ([Block((Segment(FIRST_KIND + BYTES, 4, 0, 0, 5),))],),
        {"told": levels([0]), "classes": bytes(6)},
        "rows of 5 words in a segment of 4",
    ),
    "halves that are negated": (
        ([Block((Segment(FIRST_KIND + NIBBLES, 4, 0, 0, 2),))],),
        {"told": levels([0], [1]), "classes": bytes([NEGATED, 0, 0, 0])},
        "only bytes are negated",
    ),
    "a symbol of more bits than its word": (
        ([Block((Segment(FIRST_KIND + INT16, 4, 0),))],),
        {"told": levels([60])},
        "a residual has 17 bits, and words 16",
    ),
    "bits that are not there": (
        ([Block((Segment(FIRST_KIND + INT16, 4, 0),))],),
        {"told": levels([12])},
        "0 bits end before bit 4",
    ),
    "bits left over": (
        ([Block((Segment(FIRST_KIND + INT16, 4, 0),), bits=2)], bytes(2)),
        {"told": levels([12])},
        "12 bits are left over",
    ),
    "lanes for symbols that are certain": (
        ([Block((ONE,), lanes=1)], (1 << 16).to_bytes(4, "little")),
        {"told": levels([0])},
        "1 lanes and 0 words for 0 symbols",
    ),
    "no lanes for symbols that are not": (([Block((ONE,))],), {"told": TWO}, "0 lanes and 0 words for 4 symbols"),
    "a state that is none": (([Block((ONE,), lanes=1)], bytes(4)), {"told": TWO}, ""),
    "a written frame of another size": (
        ([Block((Segment(WRITTEN, 4),), 4, len(zstd.compress(b"abc", 3)))], zstd.compress(b"abc", 3)),
        {},
        "3 bytes where 4 bytes belong",
    ),
    "a written frame that is none": (([Block((Segment(WRITTEN, 4),), 4, 6)], b"no zst"), {}, ""),
    "a written frame of no bytes": (([Block((Segment(WRITTEN, 4),), 4, 0)],), {}, ""),
    "a block that is cut": (([Block((Segment(WRITTEN, 4),), 4, 60)], b"short"), {}, "60 bytes ends after 5"),
    "a block that is not there": (([Block((ONE,), lanes=2, words=3)],), {"told": TWO}, "14 bytes ends after 0"),
    "a table of no symbol": (([],), {"told": np.zeros((1, 256), np.uint8)}, "table 0 has no symbol"),
    "a level that is none": (([],), {"told": np.full((1, 256), 200, np.uint8)}, "a level is 200"),
}  # fmt: skip


@pytest.mark.parametrize("name", BLOCKS)
def test_a_part_that_is_wrong_is_told_with_its_byte(name):
    given, more, cause = BLOCKS[name]
    patch = whole(OLD, *given, **more)
    error = refused(patch)
    head = delta.header(patch)
    at = {"plan": SIZE, "classes": SIZE + head.plan[1], "block": SIZE + head.plan[1] + head.classes[1]}
    part = error.where.partition("(")[2].rstrip(")")
    assert cause in error.cause
    assert error.where == f"byte {at[part]} ({part})"


def test_the_byte_is_that_of_the_block_that_is_wrong():
    packed = zstd.compress(b"fine", 3)
    fine = Block((Segment(WRITTEN, 4),), 4, len(packed))
    patch = whole(OLD, [fine, fine, Block((Segment(WRITTEN, 4),), 4, 6)], packed + packed + b"no zst")
    head = delta.header(patch)
    assert refused(patch).where == f"byte {SIZE + head.plan[1] + 2 * len(packed)} (block)"


def test_what_came_before_a_fault_was_written_and_what_follows_was_not():
    packed = zstd.compress(b"fine", 3)
    fine = Block((Segment(WRITTEN, 4),), 4, len(packed))
    pieces = []
    with pytest.raises(Refused):
        delta.apply_to(
            OLD,
            whole(OLD, [fine, Block((Segment(WRITTEN, 4),), 4, 6), fine], packed + b"no zst" + packed),
            pieces.append,
            limit=100,
        )
    assert pieces == [b"fine"]


def test_bytes_behind_the_last_block_are_told_with_their_place():
    patch = whole(OLD, [Block((Segment(COPIED, 4, 0),))], new=OLD[:4])
    assert delta.apply(OLD, patch, limit=4) == OLD[:4]
    error = refused(patch + b"xyz")
    assert (error.cause, error.where) == ("3 bytes are left over", f"byte {len(patch)}")


def test_a_delta_that_yields_another_file_than_it_says():
    patch = whole(OLD, [Block((Segment(COPIED, 4, 0),))], new=OLD[1:5])
    error = refused(patch)
    assert (error.cause, error.where) == (
        "the new file has another sha256 than the delta says",
        "byte 56 (sha256)",
    )


def edited(patch, at, kind, value):
    data = bytearray(patch)
    struct.pack_into(kind, data, at, value)
    return bytes(data)


FINE = whole(OLD, [Block((Segment(COPIED, 4, 0),))], new=OLD[:4])


@pytest.mark.parametrize(
    ("at", "kind", "value", "cause", "where"),
    [
        (0, "<I", 0, "begins like this", "byte 0 (magic)"),
        (4, "<H", 0, "version 0 is unknown", "byte 4 (version)"),
        (4, "<H", 65535, "version 65535", "byte 4 (version)"),
        (6, "<H", 7, "form 7 is unknown", "byte 6 (form)"),
        (6, "<H", delta.PATCH, "or has sizes", "byte 6 (form)"),
        (8, "<Q", 47, "made for a file of 47 bytes", "the old file"),
        (8, "<Q", (1 << 64) - 1, f"made for a file of {(1 << 64) - 1} bytes", "the old file"),
        (16, "<Q", 1001, "1001 bytes, and 1000 are allowed", "byte 16 (length)"),
        (16, "<Q", (1 << 64) - 1, "1000 are allowed", "byte 16 (length)"),
        (16, "<Q", 5, "the segments make 4 bytes of 5", f"byte {SIZE} (plan)"),
        (24, "<Q", 0, "and this one has 48 bytes", "the old file"),
        (56, "<Q", 0, "another sha256", "byte 56 (sha256)"),
        (88, "<I", delta_plan.MOST_PLAN + 1, "larger than one may be", "byte 88 (sizes)"),
        (96, "<I", delta_plan.MOST_PLAN + 1, "larger than one may be", "byte 88 (sizes)"),
        (92, "<I", len(FINE), "larger than one may be, or than the delta", "byte 88 (sizes)"),
        (100, "<I", len(FINE), "larger than one may be, or than the delta", "byte 88 (sizes)"),
        (88, "<I", 1, "where 1 bytes belong", f"byte {SIZE} (plan)"),
    ],
)
def test_a_header_that_lies_is_told_with_its_field(at, kind, value, cause, where):
    error = refused(edited(FINE, at, kind, value))
    assert cause in error.cause
    assert error.where == where


@pytest.mark.parametrize("length", [0, 1, 4, SIZE - 1])
def test_a_header_that_is_cut(length):
    error = refused(FINE[:length])
    assert (error.cause, error.where) == (f"a header of {SIZE} bytes ends after {length}", "byte 0 (header)")


def test_headers_come_back():
    head = delta.Header(1, 2, b"a" * 32, b"b" * 32, (3, 4), (5, 6))
    assert delta.header(head.packed() + bytes(10)) == head
    patch = delta.Header(1, 2, b"a" * 32, b"b" * 32, (0, 0), (0, 0), delta.PATCH)
    assert delta.header(patch.packed()) == patch
    assert (head.codec, patch.codec) == ("hvd1", "bsdiff")


def test_a_patch_that_makes_fewer_bytes_than_the_header_says():
    made = delta.wrapped(OLD, OLD[4:], bsdiff.make(OLD, OLD[4:] + b"more"))
    assert "are allowed" in refused(made).cause
    made = delta.wrapped(OLD, OLD[4:], bsdiff.make(OLD, OLD[5:]))
    assert refused(made).where == "byte 56 (sha256)"


def test_a_limit_holds_before_the_old_file_is_looked_at():
    with pytest.raises(Refused) as told:
        delta.apply(b"another file", FINE, limit=3)
    assert told.value.where == "byte 16 (length)"


def test_a_writer_that_fails_ends_it_with_its_own_error():
    def full(piece):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        delta.apply_to(OLD, FINE, full, limit=4)


def test_which_symbols_are_certain():
    frequencies = tables.to_frequencies(levels([7], [0, 9], [255]))
    symbols, told = rans.certain(np.array([0, 1, 2, 0, 1]), frequencies)
    assert told.tolist() == [True, False, True, True, False]
    assert symbols[told].tolist() == [7, 255, 7]
    none = rans.certain(np.zeros(0, np.int64), np.zeros((0, 256), np.int64))
    assert (none[0].size, none[1].size) == (0, 0)
    assert delta_words.KINDS[BYTES].single


def test_tilts_of_as_many_rows_as_there_may_be_take_little_memory():
    """A stranger's delta: half a million rows of one word, each with a tilt of its own."""
    count = delta_plan.MOST_SYMBOLS
    old = bytes(count)
    classes = bytes(count + 1) + delta_tilt.write(np.arange(count) % 60_000 - 30_000)
    segment = Segment(FIRST_KIND + BYTES, count, 0, 0, 1, reach=1)
    patch = whole(old, [Block((segment,))], told=levels([0]), classes=classes, new=old)
    tracemalloc.start()
    delta.apply_to(old, patch, lambda piece: None, limit=count)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16_000_000
