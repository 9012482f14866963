"""Hostile files: cut, flipped, bombs of shared parts, offsets out of range; all end in an error of ours, and soon."""

from __future__ import annotations

import struct
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.base.encodings import Affine
from haversack.base.errors import ConversionError, VerificationError
from haversack.targets.litert import LiteRT
from haversack.targets.litert.flat import Operator, Subgraph, Tensor, pack, schema
from haversack.targets.litert.unflat import File, Foreign

TARGET = LiteRT()


@pytest.fixture(scope="module")
def written(zoo, encoded, tmp_path_factory):
    """(bytes, artifact) of the network with branches, in int8."""
    model, sample = zoo["branches"]
    folder = tmp_path_factory.mktemp("hostile")
    artifact = TARGET.lower(model, encoded(model, [sample]), folder)
    return (folder / "model.tflite").read_bytes(), artifact


@pytest.fixture
def told(written, tmp_path):
    """bytes -> what reading, and asking for detours, tells: "fine" or the error's text; anything else is a crash."""

    def tell(data):
        path = tmp_path / "spoiled.tflite"
        path.write_bytes(data)
        try:
            TARGET.read(path, written[1])
            TARGET.findings(path, written[1])
        except VerificationError as error:
            return str(error)
        return "fine"

    return tell


def table_of(builder, slots):
    """Write a table by hand: slot -> offset of what it points to."""
    builder.StartObject(8)
    for slot, (kind, value) in slots.items():
        if kind == "offset":
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        else:
            builder.PrependUint32Slot(slot, value, 0)
    return builder.EndObject()


def offsets(builder, targets):
    builder.StartVector(4, len(targets), 4)
    for target in reversed(targets):
        builder.PrependUOffsetTRelative(target)
    return builder.EndVector()


def finished(builder, slots):
    """Finish a model: version 3 and some of its vectors."""
    builder.Finish(table_of(builder, {0: ("number", 3), **slots}), file_identifier=b"TFL3")
    return bytes(builder.Output())


def started():
    import flatbuffers

    return flatbuffers.Builder(1 << 12)


def test_many_buffers_that_are_one_are_refused():
    """A file of 300 KB would else become tens of gigabytes."""
    builder = started()
    data = builder.CreateNumpyVector(np.zeros(1 << 20, np.uint8))
    buffer = table_of(builder, {0: ("offset", data)})
    file = finished(builder, {4: ("offset", offsets(builder, [buffer] * 50_000))})
    begin = time.perf_counter()
    with pytest.raises(Foreign, match="more data than"):
        File(file)
    assert time.perf_counter() - begin < 5


def test_many_subgraphs_that_are_one_are_refused():
    builder = started()
    names = builder.CreateString("x")
    tensor = table_of(builder, {3: ("offset", names)})
    graph = table_of(builder, {0: ("offset", offsets(builder, [tensor] * 20_000))})
    file = finished(builder, {2: ("offset", offsets(builder, [graph] * 20_000))})
    begin = time.perf_counter()
    with pytest.raises(Foreign, match="parts"):
        File(file)
    assert time.perf_counter() - begin < 60


def test_shapes_of_many_axes_are_refused():
    builder = started()
    shape = builder.CreateNumpyVector(np.ones(1 << 16, np.int32))
    tensor = table_of(builder, {0: ("offset", shape)})
    graph = table_of(builder, {0: ("offset", offsets(builder, [tensor] * 1000))})
    file = finished(builder, {2: ("offset", offsets(builder, [graph]))})
    with pytest.raises(Foreign, match="axes"):
        File(file)


def test_a_vtable_that_points_to_itself_ends(written, told):
    data = bytearray(written[0])
    (root,) = struct.unpack_from("<I", data, 0)
    struct.pack_into("<i", data, root, 0)
    assert told(bytes(data)) != "fine"


@pytest.mark.parametrize("root", [0, 1, 7, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_root_elsewhere_is_told(written, told, root):
    data = bytearray(written[0])
    struct.pack_into("<I", data, 0, root)
    assert "not a LiteRT file that we have written" in told(bytes(data))


@pytest.mark.parametrize("value", [0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_words_of_the_skeleton_are_replaced(written, told, value):
    """Offsets, lengths and vtables of the whole file, every so many bytes, one at a time."""
    original = written[0]
    answers = set()
    for place in range(0, len(original) - 4, 4 * 101):
        data = bytearray(original)
        struct.pack_into("<I", data, place, value)
        answers.add(told(bytes(data)))
    assert len(answers) > 1, "some words matter"


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_several_flipped_bytes_never_crash_the_reader(written, tmp_path_factory, data):
    original, artifact = written
    spoiled = bytearray(original)
    for _ in range(data.draw(st.integers(2, 12))):
        spoiled[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "flipped.tflite"
    path.write_bytes(spoiled)
    for ask in (TARGET.read, TARGET.findings):
        try:
            found = ask(path, artifact)
        except VerificationError as error:
            assert "flipped.tflite" in str(error)
        else:
            assert found is not None


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_a_file_cut_anywhere_is_no_crash(written, tmp_path_factory, data):
    original, artifact = written
    path = tmp_path_factory.getbasetemp() / "short.tflite"
    path.write_bytes(original[: data.draw(st.integers(0, len(original) - 1))])
    with pytest.raises(VerificationError):
        TARGET.read(path, artifact)


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=300))
def test_noise_behind_the_identifier_is_foreign(noise):
    with pytest.raises(Foreign):
        File(struct.pack("<I", 8) + b"TFL3" + noise)


def graph_of(operators, tensors=3, buffer=0):
    found = Subgraph("main", [Tensor(f"t{n}", (2,), 0) for n in range(tensors)], operators, [("x", 0)], [("y", 1)])
    found.tensors[-1].buffer = buffer
    return found


@pytest.mark.parametrize(
    "operators",
    [
        [Operator(0, (0,), ())],
        [Operator(0, (), (1,))],
        [Operator(0, (-1,), (1,))],
        [Operator(0, (0,), (-1,))],
        [Operator(0, (0,), (1,)), Operator(0, (0,), (1,))],
        [Operator(0, (0,), (0,))],
        [Operator(0, (0,), (2,)), Operator(0, (2,), (1,))],
    ],
    ids=["no output", "no input", "absent first", "absent output", "made twice", "an input made", "a constant made"],
)
def test_operators_that_no_file_of_ours_has(operators):
    with pytest.raises(Foreign):
        File(pack([graph_of(operators, buffer=1)], [b"", bytes(8)]))


def test_a_file_as_simple_is_read():
    file = File(pack([graph_of([Operator(0, (0, 2), (1,))], buffer=1)], [b"", bytes(8)]))
    assert file.numbers(file.subgraphs[0].tensors[2]).tolist() == [0, 0]


@pytest.mark.parametrize(
    "shape, data",
    [((1 << 16,) * 4, b"\0" * 4), ((1 << 16,) * 4, b""), ((3,), b""), ((0,), b"\0"), ((1 << 30, 1 << 30), b"\0" * 8)],
)
def test_sizes_that_overflow_are_foreign(shape, data):
    graph = Subgraph("m", [Tensor("x", shape, 0, 1)], [], [("x", 0)], [("x", 0)])
    file = File(pack([graph], [b"", data]))
    with pytest.raises(Foreign):
        file.numbers(file.subgraphs[0].tensors[0])


@pytest.mark.parametrize("shift", [1 << 32, -(1 << 32), 1 << 40, 1 << 62])
def test_a_zero_point_beyond_32_bits_is_no_small_one(written, told, shift):
    from haversack.targets.litert.flat import Quantization

    file = File(written[0])
    name = next(iter(written[1].tensor_names.values()))
    tensor = next(one for one in file.subgraphs[0].tensors if one.name == name)
    tensor.quantization = Quantization(tensor.quantization.scale, tensor.quantization.zero_point + shift)
    assert told(pack(file.subgraphs, file.buffers)) != "fine"


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scales_that_are_none_are_told(written, told, scale):
    from haversack.targets.litert.flat import Quantization

    for pick in (lambda name: name.endswith("out/codes"), lambda name: name.endswith("weight/codes")):
        file = File(written[0])
        tensor = next(one for one in file.subgraphs[0].tensors if pick(one.name))
        old = tensor.quantization
        tensor.quantization = Quantization(np.full(old.scale.shape, scale, np.float32), old.zero_point, old.axis)
        assert told(pack(file.subgraphs, file.buffers)) != "fine"


def test_two_tensors_of_one_name_are_told(written, told):
    """Whoever looks a name up would find the last of them."""
    file = File(written[0])
    graph = file.subgraphs[0]
    names = list(written[1].tensor_names.values())
    codes = next(one for one in graph.tensors if one.name == names[0])
    graph.tensors.append(Tensor(codes.name, codes.shape, codes.type, 0, codes.quantization))
    assert told(pack(file.subgraphs, file.buffers)) != "fine"


def test_another_version_of_the_schema_is_told(written, told):
    data = bytearray(written[0])
    model = schema().Model.GetRootAs(data, 0)
    place = model._tab.Pos + model._tab.Offset(4)
    struct.pack_into("<I", data, place, 7)
    assert "version 7" in told(bytes(data))


def test_the_runtime_refuses_what_is_cut(written, tmp_path):
    (tmp_path / "cut.tflite").write_bytes(written[0][: len(written[0]) // 2])
    with pytest.raises(ConversionError, match="does not open"):
        TARGET.open_session(tmp_path / "cut.tflite")


def test_a_file_that_is_not_there_is_told(written, tmp_path):
    with pytest.raises(OSError):
        TARGET.read(tmp_path / "none.tflite", written[1])


def test_the_file_itself_is_fine(written, told, tmp_path):
    assert told(written[0]) == "fine"
    read = TARGET.read(tmp_path / "spoiled.tflite", written[1])
    assert any(isinstance(one, Affine) for one in read.tensors.values())
