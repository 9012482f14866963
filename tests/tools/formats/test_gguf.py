"""The .gguf indexer: against a plain writer of the format, value by value and type by type; every refusal."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spoiled_bytes import flipped, well

from haversack.base.errors import EXIT_REFUSED, Refused
from haversack.tools.formats import gguf, index

PLAIN = {0: 4, 1: 2, 24: 1, 25: 2, 26: 4, 27: 8, 28: 8, 30: 2}
"""Type of a tensor -> bytes of a word, as the format's page has them."""
BLOCKS = {2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 12: (256, 144), 14: (256, 210)}
"""Type of a quantized tensor -> weights of a block and its bytes, likewise."""
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key, kind, content):
    return text(key) + struct.pack("<I", kind) + content


def listed(name, shape, kind, at):
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, at)


def whole(pairs=(), tensors=(), data=b"", *, version=3, alignment=32, counts=None):
    """Return a file; ``tensors`` are as ``listed`` takes them, ``counts`` what it says of both."""
    says = counts or (len(tensors), len(pairs))
    head = b"GGUF" + struct.pack("<IQQ", version, *says) + b"".join(pairs) + b"".join(listed(*one) for one in tensors)
    return head + bytes(-len(head) % alignment) + data


def size_of(kind, count):
    if kind in PLAIN:
        return PLAIN[kind] * count
    weights, size = BLOCKS[kind]
    return count // weights * size


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("kind", [*PLAIN, *BLOCKS])
def test_a_tensor_of_every_type_takes_the_bytes_of_its_type(kind, version):
    size = size_of(kind, 512)
    data = bytes(range(256)) * 20
    (found,) = gguf.index(whole(tensors=[("w", (256, 2), kind, 0)], data=data[:size], version=version))
    assert (found.name, found.length, found.shape) == ("w", size, (2, 256))
    assert found.dtype == "blocks" or found.width == PLAIN[kind]
    assert found.start % 32 == 0
    assert gguf.index(whole(tensors=[("w", (256, 2), kind, 0)], data=data[: size - 1], version=version)) == ()


@pytest.mark.parametrize("kind", [4, 5, 31, 32, 33, 36, 99, 0xFFFFFFFF])
def test_a_tensor_of_a_type_that_is_not_known_is_left_out(kind):
    found = gguf.index(whole(tensors=[("odd", (32,), kind, 0), ("w", (4,), 24, 64)], data=bytes(68)))
    assert [(one.name, one.length) for one in found] == [("w", 4)]


@pytest.mark.parametrize(("kind", "count"), [(8, 31), (8, 33), (12, 32), (14, 255)])
def test_quantized_weights_that_are_no_whole_blocks_are_left_out(kind, count):
    assert gguf.index(whole(tensors=[("w", (count,), kind, 0)], data=bytes(4096))) == ()


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.text("ab/é\0", max_size=4),
            st.sampled_from(sorted(PLAIN)),
            st.lists(st.integers(1, 4), min_size=1, max_size=4),
        ),
        max_size=6,
    ),
    st.sampled_from([1, 8, 32, 64, 4096]),
)
def test_any_file_of_plain_tensors_is_read_as_it_was_written(tensors, alignment):
    names, told, data, wanted = {}, [], b"", []
    for name, kind, shape in tensors:
        count = 1
        for axis in shape:
            count *= axis
        data += bytes(-len(data) % alignment)
        told.append((name, tuple(shape), kind, len(data)))
        again = names.get(name, 0)
        names[name] = again + 1
        content = bytes((len(told) * 37 + at) & 255 for at in range(PLAIN[kind] * count))
        wanted.append((f"{name}#{again}" if again else name, content, tuple(reversed(shape))))
        data += content
    made = whole([pair("general.alignment", 4, struct.pack("<I", alignment))], told, data, alignment=alignment)
    found = gguf.index(made)
    names_apart = len({one[0] for one in wanted}) == len(wanted)
    assert [(made[one.start : one.end], one.shape) for one in found] == [one[1:] for one in wanted]
    assert not names_apart or [one.name for one in found] == [one[0] for one in wanted]


VALUE = st.one_of(
    st.sampled_from(sorted(SCALARS)).map(lambda kind: (kind, bytes(struct.calcsize("<" + SCALARS[kind])))),
    st.binary(max_size=12).map(lambda raw: (8, text(raw))),
)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.text("ab/é\0", max_size=4), VALUE, st.integers(0, 3), st.integers(0, 3)), max_size=6))
def test_values_of_every_kind_and_lists_of_them_are_stepped_over(values):
    pairs = []
    for key, value, count, depth in values:
        held = value
        for _ in range(depth):
            held = 9, struct.pack("<IQ", held[0], count) + held[1] * count
        pairs.append(pair("x" + key, *held))
    made = whole(pairs, [("w", (5,), 24, 0)], b"12345")
    (found,) = gguf.index(made)
    assert made[found.start : found.end] == b"12345"


@pytest.mark.parametrize(
    ("kind", "letter", "value"), [(4, "I", 64), (10, "Q", 64), (5, "i", 64), (11, "q", 64), (0, "B", 64), (2, "H", 64)]
)
def test_an_alignment_of_any_whole_number_counts(kind, letter, value):
    pairs = [pair("general.alignment", kind, struct.pack(f"<{letter}", value))]
    (found,) = gguf.index(whole(pairs, [("w", (4,), 24, 0)], b"abcd", alignment=64))
    assert found.start % 64 == 0


def test_an_alignment_that_is_no_number_is_not_believed():
    for kind, content in ((8, text(b"64")), (6, struct.pack("<f", 64.0)), (9, struct.pack("<IQI", 4, 1, 64))):
        made = whole([pair("general.alignment", kind, content)], [("w", (4,), 24, 0)], b"abcd")
        (found,) = gguf.index(made)
        assert made[found.start : found.end] == b"abcd"


@pytest.mark.parametrize(
    ("kind", "content"),
    [(4, struct.pack("<I", 0)), (4, struct.pack("<I", (1 << 20) + 1)), (5, struct.pack("<i", -32)),
     (10, struct.pack("<Q", 1 << 63))],
)  # fmt: skip
def test_an_alignment_that_cannot_be_is_refused(kind, content):
    with pytest.raises(Refused, match=r"an alignment of -?\d+ bytes") as told:
        gguf.index(whole([pair("general.alignment", kind, content)], [("w", (4,), 24, 0)], b"abcd"))
    assert told.value.where == "general.alignment"


DEEP = b"".join(struct.pack("<IQ", 9, 1) for _ in range(6)) + struct.pack("<IQ", 0, 0)

REFUSED = {
    "no magic": (b"GGUX" + bytes(20), "begins like this", "byte 0 (magic)"),
    "nothing": (b"", "begins like this", "byte 0 (magic)"),
    "only a magic": (b"GGUF", "ends within its header", "byte 4"),
    "version 1": (whole(version=1), "version 1 is not read", "byte 4 (version)"),
    "version 4": (whole(version=4), "version 4 is not read", "byte 4 (version)"),
    "the other byte order": (b"GGUF\0\0\0\3" + bytes(16), "version 50331648", "byte 4 (version)"),
    "pairs without end": (whole(counts=(0, 1 << 60)), f"{1 << 60} values lead out", "byte 24"),
    "tensors without end": (whole(counts=(1 << 60, 0)), f"{1 << 60} values lead out", "byte 24"),
    "a value of no type": (whole([pair("k", 13, bytes(8))]), "type 13 at depth 0", "byte 37"),
    "an array too deep": (whole([pair("k", 9, DEEP)]), "type 9 at depth 4", "byte 85"),
    "an array of no type": (whole([pair("k", 9, struct.pack("<IQ", 77, 1) + bytes(9))]), "type 77 at", "byte 49"),
    "numbers without end": (whole([pair("k", 9, struct.pack("<IQ", 10, 1 << 61))]), f"{8 << 61} bytes lead", "byte 49"),
    "texts without end": (whole([pair("k", 9, struct.pack("<IQ", 8, 1 << 61))]), f"{1 << 61} values lead", "byte 49"),
    "a text without end": (whole([pair("k", 8, struct.pack("<Q", 1 << 61))]), f"{1 << 61} bytes lead", "byte 45"),
    "nine axes": (whole(tensors=[("w", (1,) * 9, 0, 0)], data=bytes(64)), "a tensor of 9 axes", "byte 37"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_with_cause_and_place(name):
    data, cause, where = REFUSED[name]
    with pytest.raises(Refused) as told:
        gguf.index(data)
    assert cause in told.value.cause
    assert told.value.where == where
    assert told.value.exit_code == EXIT_REFUSED


def test_a_key_longer_than_the_file_is_refused():
    data = b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62) + bytes(40)
    with pytest.raises(Refused, match=f"{1 << 62} bytes lead out") as told:
        gguf.index(data)
    assert told.value.where == "byte 32"


def test_more_tensors_than_anybody_has_are_refused(monkeypatch):
    monkeypatch.setattr(gguf, "MOST_TENSORS", 2)
    three = [(name, (1,), 24, at) for at, name in enumerate("abc")]
    assert len(gguf.index(whole(tensors=three[:2], data=bytes(3)))) == 2
    with pytest.raises(Refused, match="3 tensors are too many") as told:
        gguf.index(whole(tensors=three, data=bytes(3)))
    assert told.value.where == "byte 8 (tensors)"


def test_eight_axes_are_read():
    (found,) = gguf.index(whole(tensors=[("w", (1, 1, 1, 1, 1, 1, 2, 3), 0, 0)], data=bytes(24)))
    assert found.shape == (3, 2, 1, 1, 1, 1, 1, 1)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (1 << 62, 1 << 62), ((1 << 64) - 1,)])
def test_shapes_that_no_bytes_go_with_are_left_out(shape):
    found = gguf.index(whole(tensors=[("bad", shape, 0, 0), ("good", (2,), 24, 0)], data=b"ab" + bytes(200)))
    assert [one.name for one in found] == ["good"]


def test_a_scalar_without_axes_is_one_word():
    (found,) = gguf.index(whole(tensors=[("s", (), 0, 0)], data=bytes(4)))
    assert (found.length, found.shape) == (4, ())


def test_a_place_behind_the_end_or_in_a_ring_is_left_out():
    for at in (1 << 63, (1 << 64) - 8, 4):
        assert gguf.index(whole(tensors=[("w", (4,), 24, at)], data=b"abcd")) == ()


def test_a_name_that_is_no_text_is_read_all_the_same():
    (found,) = gguf.index(whole(tensors=[(b"a\xff\0b", (4,), 24, 0)], data=b"abcd"))
    assert found.name == "a\ufffd\0b"


def test_every_cut_within_the_header_is_refused():
    made = whole([pair("k", 8, text(b"value"))], [("w", (4,), 24, 0)], b"abcd")
    end = made.index(b"w", 40) + 1 + 4 + 8 + 4 + 8
    for cut in range(end):
        with pytest.raises(Refused):
            gguf.index(made[:cut])
    assert gguf.index(made[:end]) == ()
    assert index.format_of(made) == "gguf"


WHOLE = whole(
    [pair("general.alignment", 4, struct.pack("<I", 32)), pair("k", 9, struct.pack("<IQ", 8, 1) + text(b"v"))],
    [("a", (4,), 24, 0), ("b", (32,), 8, 32)],
    bytes(range(66)),
)


@settings(max_examples=50)
@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_spoiled_byte_is_refused_or_tensors_stay_inside(at, flip):
    assert well(gguf.index, flipped(WHOLE, at, flip))
