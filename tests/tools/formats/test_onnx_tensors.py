"""The .onnx indexer: any model of the onnx package, every way to write numbers, and messages that are none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from spoiled_bytes import flipped, well

from haversack.base.errors import EXIT_REFUSED, Refused
from haversack.tools.formats import index, onnx

DTYPES = ["float32", "float16", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "bool"]


def model(*tensors, nodes=(), sparse=()):
    graph = helper.make_graph(list(nodes), "g", [], [], list(tensors))
    graph.sparse_initializer.extend(sparse)
    return helper.make_model(graph).SerializeToString()


def told(data):
    """Return name -> (bytes, dtype, shape) of what is found in a file."""
    return {one.name: (data[one.start : one.end], one.dtype, one.shape) for one in index.index(data)}


def raw(name, kind, content, dims=()):
    return TensorProto(name=name, data_type=kind, dims=list(dims), raw_data=content)


@settings(max_examples=30)
@given(
    st.dictionaries(
        st.text("ab/é", min_size=1, max_size=4),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=4)),
        max_size=5,
    )
)
def test_what_the_package_writes_is_found(tensors):
    random = np.random.default_rng(0)
    arrays = {name: random.integers(0, 2, shape).astype(dtype) for name, (dtype, shape) in tensors.items()}
    data = model(*(numpy_helper.from_array(array, name) for name, array in arrays.items()))
    found = told(data)
    wanted = {name: array for name, array in arrays.items() if array.size}
    assert {name: one[0] for name, one in found.items()} == {name: one.tobytes() for name, one in wanted.items()}
    assert {name: one[2] for name, one in found.items()} == {name: one.shape for name, one in wanted.items()}


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(1, "float32"), (2, "uint8"), (3, "int8"), (4, "int16"), (5, "int16"), (6, "int32"), (7, "int64"), (9, "uint8"),
     (10, "float16"), (11, "float64"), (12, "int32"), (13, "int64"), (16, "bfloat16"), (17, "uint8"), (20, "uint8"),
     (21, "int4"), (22, "int4")],
)  # fmt: skip
def test_raw_bytes_have_the_words_of_their_type(kind, dtype):
    assert told(model(raw("w", kind, bytes(range(16))))) == {"w": (bytes(range(16)), dtype, ())}


@pytest.mark.parametrize("kind", [0, 8, 14, 15, 99])
def test_types_of_no_words_are_left_out(kind):
    assert told(model(raw("text", kind, b"abcdefgh"), raw("w", 3, b"abcd"))) == {"w": (b"abcd", "int8", ())}


def test_packed_floats_are_words_and_packed_integers_are_not():
    floats = helper.make_tensor("f", TensorProto.FLOAT, [2], [1.5, -2.0])
    doubles = helper.make_tensor("d", TensorProto.DOUBLE, [1], [0.5])
    integers = helper.make_tensor("i", TensorProto.INT64, [3], [1, 2, 3])
    assert told(model(floats, doubles, integers)) == {
        "f": (np.array([1.5, -2.0], "<f4").tobytes(), "float32", (2,)),
        "d": (np.array([0.5], "<f8").tobytes(), "float64", (1,)),
    }


def test_sparse_tensors_are_their_values_and_their_places():
    values = numpy_helper.from_array(np.array([1, 2], np.float32), "v")
    places = numpy_helper.from_array(np.array([3, 5], np.int64), "p")
    data = model(sparse=[helper.make_sparse_tensor(values, places, [8])])
    assert {name: one[:2] for name, one in told(data).items()} == {
        "v": (values.raw_data, "float32"),
        "p": (places.raw_data, "int64"),
    }


def test_a_tensor_without_a_name_bears_that_of_its_nodes_output():
    nodes = [
        helper.make_node("Constant", [], [output], value=raw("", 3, content))
        for output, content in (("one", b"1111"), ("two", b"2222"), ("one", b"3333"))
    ]
    assert {name: one[0] for name, one in told(model(nodes=nodes)).items()} == {
        "one": b"1111",
        "two": b"2222",
        "one#1": b"3333",
    }


def test_lists_of_tensors_in_attributes_are_found():
    node = helper.make_node("X", [], ["y"], many=[raw("a", 3, b"aaaa"), raw("b", 3, b"bbbb")])
    assert {name: one[0] for name, one in told(model(nodes=[node])).items()} == {"a": b"aaaa", "b": b"bbbb"}


@pytest.mark.parametrize("dims", [(1 << 62, 1 << 62), (0,), (-1,), (5,), (1,) * 17, tuple(range(1, 40))])
def test_a_shape_that_lies_is_dropped_and_the_bytes_stay(dims):
    assert told(model(raw("w", 3, b"abcd", dims))) == {"w": (b"abcd", "int8", ())}


def test_bytes_of_a_broken_word_are_left_out():
    assert told(model(raw("w", 1, b"abcde"), raw("v", 11, b"abcd"))) == {}


def test_a_name_longer_than_any_is_cut():
    (found,) = onnx.index(model(raw("n" * 5000, 3, b"abcd")))
    assert found.name == "n" * 1024


@pytest.mark.parametrize(
    ("tail", "cause"),
    [
        (b"\x3a", "leads out of its message"),
        (b"\x3a\x05abc", "field 7 leads out"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "field 7 leads out"),
        (b"\x3a" + b"\xff" * 11, "more than 64 bits"),
        (b"\x3b", "wire type 3"),
        (b"\x3f", "wire type 7"),
        (b"\x00\x00", "field 0 leads out"),
        (b"\x3d\0\0\0", "field 7 leads out"),
        (b"\x39" + bytes(7), "field 7 leads out"),
        (b"\x80", "leads out of its message"),
        (b"\x3a\x02\x2a\x05", "field 5 leads out"),
        (b"\x3a\x04\x2a\x02\x08\x80", "a number leads out"),
        (b"\x3a\x05\x2a\x03\x0a\x01\x80", "a number leads out"),
    ],
)
def test_messages_that_are_none_are_refused_with_their_byte(tail, cause):
    data = b"\x08\x0a" + tail
    with pytest.raises(Refused) as error:
        onnx.index(data)
    assert cause in error.value.cause
    assert 2 <= int(error.value.where.removeprefix("byte ")) <= max(len(data), 2)
    assert error.value.exit_code == EXIT_REFUSED


def test_more_tensors_than_anybody_has_are_refused(monkeypatch):
    monkeypatch.setattr(onnx, "MOST_TENSORS", 2)
    tensors = [raw(name, 3, b"abcd") for name in "abc"]
    assert len(onnx.index(model(*tensors[:2]))) == 2
    with pytest.raises(Refused, match="more than 2 tensors"):
        onnx.index(model(*tensors))


def test_fields_that_are_not_known_are_stepped_over():
    data = model(raw("w", 3, b"abcd")) + b"\xfa\x07\x03xyz\xf8\x07\x05\xfd\x07" + bytes(4) + b"\xf9\x07" + bytes(8)
    assert told(data) == {"w": (b"abcd", "int8", ())}


@pytest.mark.parametrize("data", [b"\x08", b"\x08\x0a", b"\x08\x80\x01", b"\x0a\x01\x01"])
def test_what_does_not_begin_with_a_small_version_is_no_model(data):
    assert not onnx.matches(data)


WHOLE = model(raw("a", 3, b"abcd", (2, 2)), raw("b", 1, bytes(8), (2,)))


@settings(max_examples=50)
@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_spoiled_byte_is_refused_or_tensors_stay_inside(at, flip):
    assert well(onnx.index, flipped(WHOLE, at, flip))


def test_every_cut_is_refused_or_tells_of_whole_tensors_only():
    for end in range(len(WHOLE)):
        try:
            found = onnx.index(WHOLE[:end])
        except Refused:
            continue
        assert all(one.end <= end for one in found)
