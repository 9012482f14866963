"""Indexers: every tensor of a file is where other readers find it, and no spoiled file makes one believe anything."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spoiled_bytes import in_order, well

from haversack.base.errors import Refused
from haversack.base.stored import Stored
from haversack.tools.formats import encodings_file, gguf, index, onnx, placed, pte, safetensors, tflite

NAMES = ("encodings.safetensors", "model.onnx", "model.tflite", "model.pte", "model.gguf")


def text(value):
    return struct.pack("<Q", len(value)) + value


def gguf_file(alignment=64):
    """Return (a file of every kind of value with three tensors, name -> bytes of the tensors)."""
    pairs = [
        text(b"general.alignment") + struct.pack("<II", 4, alignment),
        text(b"a.name") + struct.pack("<I", 8) + text("näme".encode()),
        text(b"some.words") + struct.pack("<IIQ", 9, 8, 2) + text(b"one") + text(b"two"),
        text(b"some.numbers") + struct.pack("<IIQ3i", 9, 5, 3, 1, -2, 3),
        text(b"lists") + struct.pack("<IIQIQ2B", 9, 9, 1, 7, 2, 0, 1),
        text(b"wide") + struct.pack("<Id", 12, 0.5),
    ]
    tensors = {
        "floats": (0, (3, 2), np.arange(6, dtype=np.float32).tobytes()),
        "blocks": (8, (32, 2), bytes(range(68))),
        "halves": (1, (5,), np.arange(5, dtype=np.float16).tobytes()),
    }
    listed, data = b"", b""
    for name, (kind, shape, content) in tensors.items():
        data += bytes(-len(data) % alignment)
        listed += text(name.encode()) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += content
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs) + listed
    return head + bytes(-len(head) % alignment) + data, {name: one[2] for name, one in tensors.items()}


@pytest.fixture(scope="session")
def files(model_files):
    return {**model_files, "model.gguf": gguf_file()[0]}


def slices(data, found):
    return {one.name: bytes(data[one.start : one.end]) for one in found}


@pytest.mark.parametrize("name", NAMES)
def test_tensors_follow_each_other_and_are_most_of_the_file(files, name):
    data = files[name]
    found = index.index(data)
    assert index.format_of(data) == name.rpartition(".")[2]
    assert in_order(found, len(data))
    assert index.index(memoryview(data)) == found
    assert sum(one.length for one in found) > 100


def test_safetensors_as_its_own_library_reads_them(files):
    from safetensors.numpy import load

    data = files["encodings.safetensors"]
    found = safetensors.index(data)
    theirs = load(data)
    assert slices(data, found) == {name: array.tobytes() for name, array in theirs.items()}
    assert {one.name: one.shape for one in found} == {name: array.shape for name, array in theirs.items()}
    assert {one.name: one.dtype for one in found} == {name: str(array.dtype) for name, array in theirs.items()}


def test_onnx_as_its_own_library_reads_it(files):
    from onnx import load_model_from_string, numpy_helper

    data = files["model.onnx"]
    model = load_model_from_string(data)
    found = slices(data, onnx.index(data))
    theirs = {one.name: one.raw_data for one in model.graph.initializer if one.raw_data}
    theirs |= {
        node.output[0]: attribute.t.raw_data
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.t.raw_data
    }
    assert len(theirs) > 20
    assert {name: found[name] for name in theirs} == theirs
    shapes = {one.name: numpy_helper.to_array(one).shape for one in model.graph.initializer}
    assert {one.name: one.shape for one in onnx.index(data) if one.shape} == {n: s for n, s in shapes.items() if s}


def test_onnx_inside_nodes_and_functions_packed_and_elsewhere():
    from onnx import TensorProto, helper

    inner = helper.make_graph([], "inner", [], [], [helper.make_tensor("deep", TensorProto.FLOAT, [2], [1.5, -2.0])])
    packed = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    packed.external_data.add(key="location", value="/etc/passwd")
    fours = TensorProto(name="fours", data_type=TensorProto.INT4, dims=[3], raw_data=b"\x21\x03")
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner),
        helper.make_node("Constant", [], ["k"], value=TensorProto(data_type=1, dims=[1], raw_data=b"abcd")),
    ]
    function = helper.make_function("own", "f", [], ["z"], [
        helper.make_node("Constant", [], ["z"], value=TensorProto(data_type=7, dims=[1], raw_data=b"12345678")),
    ], [])  # fmt: skip
    graph = helper.make_graph(nodes, "g", [], [], [packed, fours])
    data = helper.make_model(graph, functions=[function]).SerializeToString()
    found = slices(data, onnx.index(data))
    assert found["deep"] == found["deep#1"] == struct.pack("<2f", 1.5, -2.0)
    assert {name: found[name] for name in ("k", "z", "fours")} == {"k": b"abcd", "z": b"12345678", "fours": b"\x21\x03"}
    assert "far" not in found
    assert {one.name: (one.dtype, one.shape) for one in onnx.index(data)}["fours"] == ("int4", (3,))


def test_tflite_as_the_schema_reads_it(files):
    from ai_edge_litert import schema_py_generated as schema

    data = files["model.tflite"]
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    held = set(slices(data, tflite.index(data)).values())
    named = {one.name: one for one in tflite.index(data)}
    buffers = [bytes(buffer.data) for buffer in model.buffers if buffer.data is not None and len(buffer.data)]
    assert set(buffers) <= held
    scales = 0
    for tensor in model.subgraphs[0].tensors:
        if tensor.quantization is not None and tensor.quantization.scale is not None:
            assert np.asarray(tensor.quantization.scale, np.float32).tobytes() in held
            scales += 1
        content = model.buffers[tensor.buffer].data
        if content is not None and len(content) and tensor.name.decode() in named:
            assert named[tensor.name.decode()].shape == tuple(tensor.shape)
    assert scales > 5
    assert any(name.endswith("/scale") for name in named)


def test_pte_holds_the_integers_and_scales_that_were_injected(files):
    data = files["model.pte"]
    encodings = encodings_file.from_bytes(files["encodings.safetensors"])
    held = slices(data, pte.index(data))
    for key, integers in encodings.integers.items():
        moved = np.moveaxis(integers, 1, -1) if integers.ndim == 4 else integers
        assert moved.astype(np.int8).tobytes() in held.values()
        assert encodings.tensors[key].scale.tobytes() in held.values()
    assert any(name.endswith("/scale") for name in held)
    assert {one.dtype for one in pte.index(data)} == {"int8", "int32", "float32"}


def test_gguf_as_it_was_written():
    data, tensors = gguf_file()
    found = gguf.index(data)
    assert slices(data, found) == tensors
    assert [(one.dtype, one.shape) for one in found] == [("float32", (2, 3)), ("blocks", (2, 32)), ("float16", (5,))]
    assert slices(gguf_file(alignment=8)[0], gguf.index(gguf_file(alignment=8)[0])) == tensors


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b"", "byte 0"),
        (struct.pack("<Q", 1 << 40) + b"{}", "byte 0"),
        (struct.pack("<Q", 3) + b"[1]", "byte 8"),
        (struct.pack("<Q", 200) + b"[" * 200, "byte 8"),
        (struct.pack("<Q", 5) + b'{"a":', "byte 8"),
        (struct.pack("<Q", 30) + b'{"a": ' + b"1" * 23 + b"}", "byte 8"),
    ],
)
def test_a_malformed_safetensors_header(data, where):
    with pytest.raises(Refused) as told:
        safetensors.index(data)
    assert told.value.where.startswith(where)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 1 << 40]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 3]},
        {"dtype": "F32", "shape": [1], "data_offsets": [-4, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [True, 4]},
        {"dtype": "F32", "shape": None, "data_offsets": [0, 4]},
        {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "Q9", "shape": [1], "data_offsets": [0, 4]},
        [],
    ],
)
def test_a_safetensors_entry_that_cannot_be_is_left_out(entry):
    good = {"dtype": "I8", "shape": [4], "data_offsets": [4, 8]}
    header = json.dumps({"__metadata__": {"a": "b"}, "bad": entry, "good": good}).encode()
    found = safetensors.index(struct.pack("<Q", len(header)) + header + bytes(8))
    assert [one.name for one in found if one.start >= 8 + len(header) + 4] == ["good"]
    assert [one.name for one in found] == ["good"]


def test_of_tensors_one_over_the_other_one_is_told_and_names_are_made_unlike():
    given = [Stored("a", 4, 4, "int8"), Stored("a", 0, 4, "int8"), Stored("b", 2, 4, "int8"), Stored("c", 4, 8, "int8")]
    found = placed.placed(given, 12)
    assert [(one.name, one.start, one.length) for one in found] == [("a", 0, 4), ("c", 4, 8)]
    twice = placed.placed([Stored("x", 0, 1, "int8"), Stored("x", 1, 1, "int8"), Stored("x", 2, 2, "int16")], 4)
    assert [one.name for one in twice] == ["x", "x#1", "x#2"]
    assert placed.placed([Stored("x", 0, 5, "int8"), Stored("y", 0, 3, "int16"), Stored("z", 1, 0, "int8")], 4) == ()


def test_a_shape_that_does_not_go_with_the_bytes_is_not_believed():
    assert placed.stored("a", 0, 8, "int8", (2, 4)).shape == (2, 4)
    assert placed.stored("a", 0, 8, "int8", (2, 5)).shape == ()
    assert placed.stored("a", 0, 8, "int4", (3, 5)).shape == (3, 5)
    assert placed.stored("a", 0, 8, "int8", (1 << 62, 1 << 62)).shape == ()
    assert placed.stored("a" * 5000, 0, 8, "int8", ()).name == "a" * 1024


def test_bytes_of_no_format_have_no_tensors():
    for data in (b"", b"x", b"haversack" * 30, io.BytesIO(b"PK\x03\x04").getvalue(), bytes(64)):
        assert index.format_of(data) == ""
        assert index.index(data) == ()


def test_messages_within_messages_end_somewhere():
    from onnx import helper

    graph = helper.make_graph([], "g", [], [])
    for _ in range(9):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph)], "g", [], [])
    with pytest.raises(Refused, match="nested deeper"):
        onnx.index(helper.make_model(graph).SerializeToString())


@settings(max_examples=100)
@given(st.sampled_from(NAMES), st.data())
def test_no_spoiled_file_makes_an_indexer_fail(files, name, drawn):
    data = bytearray(files[name])
    head = drawn.draw(st.sampled_from([64, 2048, len(data)]), label="within")
    for _ in range(drawn.draw(st.integers(1, 8), label="faults")):
        at = drawn.draw(st.integers(0, min(head, len(data)) - 1), label="at")
        if drawn.draw(st.booleans(), label="flip"):
            data[at] ^= 1 << drawn.draw(st.integers(0, 7), label="bit")
        else:
            number = drawn.draw(st.sampled_from([0, 1, 2**31, 2**32 - 1, 0x80000000]) | st.integers(0, 2**32 - 1))
            data[at : at + 4] = struct.pack("<I", number)
    assert well(index.FORMATS[name.rpartition(".")[2]].index, bytes(data))


@settings(max_examples=60)
@given(st.sampled_from(NAMES), st.floats(0, 1))
def test_no_cut_file_makes_an_indexer_fail(files, name, part):
    assert well(index.FORMATS[name.rpartition(".")[2]].index, files[name][: int(part * len(files[name]))])


@given(st.sampled_from(sorted(index.FORMATS)), st.binary(max_size=200))
def test_no_bytes_make_an_indexer_fail(name, data):
    magic = {"gguf": b"GGUF\3\0\0\0", "tflite": b"\x08\0\0\0TFL3", "pte": b"\x08\0\0\0ET12", "onnx": b"\x08\x0a"}
    assert well(index.FORMATS[name].index, data)
    assert well(index.FORMATS[name].index, magic.get(name, b"\x40" + bytes(7) + b"{") + data)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_file_states_takes_no_memory(files, name):
    data = files[name]
    reader = index.FORMATS[name.rpartition(".")[2]].index
    tracemalloc.start()
    for at in range(0, min(len(data), 4096), 131):
        assert well(reader, data[:at] + struct.pack("<I", 0x7FFFFFF0) + data[at + 4 :])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000 + 64 * len(data)


def test_hints_are_the_index_and_nothing_of_what_is_malformed():
    from safetensors.numpy import save

    data = save({"a.weight": np.zeros((3, 4), np.int8)})
    assert index.hints(data) == index.index(data) != ()
    assert index.hints(b"words that no model has") == ()
    cut = b"\xff\xff\xff\x7fTFL3" + bytes(40)  # a tflite file whose root lies outside
    with pytest.raises(Refused):
        index.index(cut)
    assert index.hints(cut) == ()
