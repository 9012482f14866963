"""The indexers of .tflite and .pte: small files by hand for what runtimes seldom write, and what spoils them."""

from __future__ import annotations

import struct

import pytest
from flat_tables import buffer, scalar, vector
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.base.errors import EXIT_REFUSED, Refused
from haversack.tools.formats import index, pte, tflite


def tensor(name, number, kind=9, shape=(), quantization=None):
    """Return a tensor of a .tflite: int8, unless another kind is given."""
    found = {0: vector("i", shape), 1: scalar("b", kind), 2: scalar("I", number), 3: name}
    return found | ({4: quantization} if quantization is not None else {})


def model(tensors, buffers, subgraphs=None):
    """Return a .tflite; a buffer is bytes, or a table."""
    listed = [{0: one} if isinstance(one, bytes) else one for one in buffers]
    graphs = [{0: tensors}] if subgraphs is None else subgraphs
    return buffer({0: scalar("I", 3), 2: graphs, 4: listed}, b"TFL3")


def told(data):
    """Return name -> (bytes, dtype, shape) of what is found in a file."""
    return {one.name: (data[one.start : one.end], one.dtype, one.shape) for one in index.index(data)}


def test_a_tensor_has_the_bytes_of_its_buffer():
    data = model([tensor("w", 1, shape=(2, 2)), tensor("b", 2, 2, (1,))], [b"", b"abcd", b"wxyz"])
    assert told(data) == {"w": (b"abcd", "int8", (2, 2)), "b": (b"wxyz", "int32", (1,))}
    assert index.format_of(data) == "tflite"


def test_scales_zeros_and_ranges_are_tensors_of_their_own():
    how = {
        0: vector("f", [-1.0]),
        1: vector("f", [1.0]),
        2: vector("f", [0.5, 0.25]),
        3: vector("q", [3, -4]),
    }
    found = told(model([tensor("w", 1, shape=(4,), quantization=how)], [b"", b"abcd"]))
    assert found == {
        "w": (b"abcd", "int8", (4,)),
        "w/min": (struct.pack("<f", -1), "float32", ()),
        "w/max": (struct.pack("<f", 1), "float32", ()),
        "w/scale": (struct.pack("<2f", 0.5, 0.25), "float32", ()),
        "w/zero": (struct.pack("<2q", 3, -4), "int64", ()),
    }


def test_a_buffer_of_many_tensors_is_named_for_the_first():
    data = model([tensor("one", 1), tensor("two", 1), tensor("three", 2)], [b"", b"abcd", b"wxyz"])
    assert {name: one[0] for name, one in told(data).items()} == {"one": b"abcd", "three": b"wxyz"}


def test_a_buffer_that_no_tensor_reads_is_named_for_its_number():
    found = told(model([tensor("w", 1)], [b"", b"abcd", b"meta"]))
    assert found["buffer 2"] == (b"meta", "uint8", ())
    assert set(found) == {"w", "buffer 2"}


def test_a_buffer_behind_a_large_file_is_found():
    far = {1: scalar("Q", 0), 2: scalar("Q", 6)}
    size = len(model([tensor("w", 1)], [b"", {1: scalar("Q", 1 << 40), 2: scalar("Q", 6)}]))
    far[1] = scalar("Q", size + 2)
    data = model([tensor("w", 1)], [b"", far]) + b"--behind"
    assert told(data) == {"w": (b"behind", "int8", ())}
    assert told(data[:-1]) == {}


@pytest.mark.parametrize("place", [(1 << 64) - 1, (1 << 64) - 8, 1 << 63])
def test_a_buffer_far_outside_the_file_is_left_out(place):
    assert told(model([tensor("w", 1)], [b"", {1: scalar("Q", place), 2: scalar("Q", 8)}])) == {}


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(0, "float32"), (1, "float16"), (2, "int32"), (3, "uint8"), (4, "int64"), (7, "int16"), (9, "int8"),
     (10, "float64"), (16, "int16"), (17, "int4"), (18, "bfloat16"), (99, "uint8"), (-1, "uint8")],
)  # fmt: skip
def test_every_type_has_its_words(kind, dtype):
    found = told(model([tensor("w", 1, kind)], [b"", bytes(range(16))]))
    assert found == {"w": (bytes(range(16)), dtype, ())}


def test_a_table_that_stands_twice_is_read_once():
    one = tensor("w", 1)
    graph = {0: [one, one]}
    data = model([], [b"", b"abcd"], [graph, graph, {0: [one]}])
    assert set(told(data)) == {"w"}


def test_a_tensor_of_no_buffer_and_one_without_a_name():
    found = told(model([tensor("far", 9), tensor("", 1)], [b"", b"abcd"]))
    assert found == {"": (b"abcd", "int8", ())}


def test_more_tensors_than_anybody_has_are_refused(monkeypatch):
    monkeypatch.setattr(tflite, "MOST_TENSORS", 2)
    data = model([tensor(name, 1) for name in "abc"], [b"", b"abcd"])
    with pytest.raises(Refused, match="more than 2 tensors") as error:
        tflite.index(data)
    assert (error.value.where, error.value.exit_code) == (".tflite", EXIT_REFUSED)


def test_a_name_that_is_no_text_is_refused():
    data = model([tensor("qqqq", 1)], [b"", b"abcd"]).replace(b"qqqq\0", b"\xff\xfe\xfd\xfc\0")
    with pytest.raises(Refused, match="not UTF-8") as error:
        tflite.index(data)
    assert error.value.where == ".tflite"


MARKED = {"tflite": b"TFL3", "pte": b"ET12"}


@pytest.mark.parametrize("name", MARKED)
def test_a_file_of_the_mark_alone_is_refused_and_one_of_another_too(name):
    reader = index.FORMATS[name]
    for data in (bytes(4) + MARKED[name], b"\xff\xff\xff\x7f" + MARKED[name], b"\x08\0\0\0" + MARKED[name]):
        assert index.format_of(data) == name
        with pytest.raises(Refused) as error:
            index.index(data)
        assert error.value.where == f".{name}"
    with pytest.raises(Refused, match=f"no {MARKED[name].decode()} file"):
        reader.index(b"\x08\0\0\0NONE")


# .pte: slots of Program: 1 plans, 2 constants inside, 3 inline delegates, 4 segments, 5 constants' segment, 7 named.


def value(at, kind=6, shape=()):
    """Return a value of a plan: a tensor whose bytes are the constant of a number."""
    return {0: scalar("B", 5), 1: {0: scalar("b", kind), 2: vector("i", shape), 4: scalar("I", at)}}


def program(values=(), *, constants=(), more=None):
    plan = {0: "forward", 2: list(values)}
    return buffer({1: [plan], 2: [{0: one} for one in constants]} | (more or {}), b"ET12")


def test_constants_inside_the_program_are_found():
    data = program(
        [value(1, 6, (2,)), value(2, 1), value(0), value(7)], constants=[b"", struct.pack("<2f", 1, 2), b"xyz"]
    )
    assert told(data) == {
        "forward/0": (struct.pack("<2f", 1, 2), "float32", (2,)),
        "forward/1": (b"x", "int8", ()),  # a scalar is one word, whatever lies behind it
    }


def test_constants_in_a_segment_end_where_the_next_one_begins_without_the_padding():
    content = struct.pack("<2f", 1, 2) + bytes(8) + b"abc" + bytes(13)
    segment = {0: scalar("I", 0), 1: vector("Q", [0, 0, 16])}
    made = {4: [{0: scalar("Q", 1 << 20), 1: scalar("Q", len(content))}], 5: segment}
    values = [value(1, 6, (2,)), value(2, 1, (3,))]
    size = len(program(values, more=made))
    made[4] = [{0: scalar("Q", size), 1: scalar("Q", len(content))}]
    data = program(values, more=made) + content
    assert told(data) == {
        "forward/0": (struct.pack("<2f", 1, 2), "float32", (2,)),
        "forward/1": (b"abc", "int8", (3,)),
    }


def test_named_segments_that_nothing_reads_keep_their_names():
    made = {4: [{0: scalar("Q", 1 << 20), 1: scalar("Q", 5)}], 7: [{0: "digest", 1: scalar("I", 0)}]}
    size = len(program(more=made))
    made[4] = [{0: scalar("Q", size), 1: scalar("Q", 5)}]
    data = program(more=made) + b"hello"
    assert told(data) == {"digest": (b"hello", "uint8", ())}
    missing = {**made, 7: [{0: "digest", 1: scalar("I", 3)}]}
    assert told(program(more=missing) + b"hello") == {}


def graph_of(tensors, constants):
    """Return an XNNPACK graph; a constant is (offset, size, name)."""
    listed = [{0: scalar("Q", at), 1: scalar("Q", size), 2: name} for at, size, name in constants]
    return buffer({2: tensors, 8: listed}, b"XN01")


def blob_of(graph, constants=b""):
    head = b"\0\0\0\0XH00" + struct.pack("<HIIIQ", 30, 32, len(graph), 32 + len(graph), len(constants))
    return head.ljust(32, b"\0") + graph + constants


def test_graphs_that_share_their_bytes_are_not_read_without_end():
    """Three hundred delegates, each with a head of its own and all with one graph: small, and slow to read again."""
    count = 300
    graph = graph_of([inner(0)] * 3000, [(0, 0, "")])
    heads = b"".join(
        b"\0\0\0\0XH00" + struct.pack("<HIIIQ", 30, 32 * (count - index), len(graph), 0, 0).ljust(24, b"\0")
        for index in range(count)
    )
    plan = {0: "forward", 2: [], 7: [{1: {0: scalar("b", 1), 1: scalar("I", each)}} for each in range(count)]}

    def written(at):
        return buffer(
            {1: [plan], 4: [{0: scalar("Q", at + 32 * each), 1: scalar("Q", 1 << 30)} for each in range(count)]},
            b"ET12",
        )

    data = written(len(written(0))) + heads + graph
    with pytest.raises(Refused, match="read without end"):
        pte.index(data)


def inner(number, kind=3, shape=()):
    return {0: scalar("B", 1), 1: {0: scalar("h", kind), 2: vector("I", shape), 3: scalar("I", number)}}


def delegated(blob):
    return {1: [{0: "forward", 2: [], 7: [{1: {0: scalar("b", 0), 1: scalar("I", 0)}}]}], 3: [{0: blob}]}


def test_constants_behind_a_graph_are_named_for_the_value_that_reads_them():
    graph = graph_of([inner(1, 3, (2, 2)), inner(0), inner(2, 5)], [(0, 0, ""), (0, 4, ""), (4, 8, "")])
    data = buffer(delegated(blob_of(graph, b"abcd" + bytes(range(8)))), b"ET12")
    assert told(data) == {
        "forward/0/0": (b"abcd", "int8", (2, 2)),
        "forward/0/2": (bytes(range(8)), "int32", ()),
    }


def test_scales_inside_the_graph_are_found():
    scaled = {0: {0: scalar("h", 7), 3: scalar("I", 1)}, 1: scalar("B", 1), 2: {0: vector("f", [0.5, 0.25])}}
    graph = graph_of([{0: scalar("B", 2), 1: scaled}], [(0, 0, ""), (0, 8, "")])
    data = buffer(delegated(blob_of(graph, bytes(range(8)))), b"ET12")
    assert told(data) == {
        "forward/0/0": (bytes(range(8)), "int32", ()),
        "forward/0/0/scale": (struct.pack("<2f", 0.5, 0.25), "float32", ()),
    }


@pytest.mark.parametrize("place", [(5, b"Y"), (36, b"Z"), (0, b"")])
def test_a_delegate_of_another_kind_has_no_tensors(place):
    at, letter = place
    blob = blob_of(graph_of([inner(1)], [(0, 0, ""), (0, 4, "")]), b"abcd")
    blob = blob[:at] + letter + blob[at + len(letter) :] if letter else blob[:29]
    assert told(buffer(delegated(blob), b"ET12")) == {}


@pytest.mark.parametrize("number", [3, 1 << 31])
def test_a_delegate_that_is_nowhere_has_no_tensors(number):
    made = delegated(blob_of(graph_of([], [])))
    made[1] = [{0: "forward", 2: [], 7: [{1: {0: scalar("b", 1), 1: scalar("I", number)}}, {}]}]
    assert told(buffer(made, b"ET12")) == {}


def test_more_tensors_in_a_program_than_anybody_has_are_refused(monkeypatch):
    monkeypatch.setattr(pte, "MOST_TENSORS", 2)
    with pytest.raises(Refused, match="more than 2 tensors") as error:
        pte.index(program([value(1), value(1), value(1)], constants=[b"", b"abcd"]))
    assert error.value.where == ".pte"


FILES = {
    "tflite": model([tensor("w", 1, shape=(2, 2), quantization={2: vector("f", [0.5])})], [b"", b"abcd"]),
    "pte": buffer(delegated(blob_of(graph_of([inner(1)], [(0, 0, ""), (0, 4, "")]), b"abcd")), b"ET12"),
}


@settings(max_examples=50)
@given(st.sampled_from(sorted(FILES)), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_spoiled_byte_is_refused_or_tensors_stay_inside(name, part, flip):
    data = bytearray(FILES[name])
    data[int(part * len(data))] ^= flip
    try:
        found = index.FORMATS[name].index(bytes(data))
    except Refused as error:
        assert error.where == f".{name}"
        return
    assert all(one.length > 0 and one.start >= 0 and one.end <= len(data) for one in found)


@pytest.mark.parametrize("name", FILES)
def test_every_cut_is_refused_or_tells_of_what_is_there(name):
    data = FILES[name]
    for end in range(8, len(data)):
        try:
            found = index.FORMATS[name].index(data[:end])
        except Refused as error:
            assert error.where == f".{name}"
            continue
        assert all(one.end <= end for one in found)
