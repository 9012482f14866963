"""Values and nodes of hand-made FlatBuffers, numbers of hand-made constants, and how much memory they may take."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest

from haversack.base.encodings import Dynamic
from haversack.targets.executorch import parse, read
from haversack.targets.executorch.parse import NOWHERE, Delegate, Program, Step, Value
from haversack.tools.formats.flat import Spoiled, root

NAME = b"XN01"


class Vector:
    """A vector of numbers."""

    def __init__(self, kind, *numbers):
        self.kind, self.numbers = kind, numbers


def table(*slots):
    """Return the root table of a buffer; a slot is None, (struct letter, number), a Vector or a list: a table."""
    data = bytearray(struct.pack("<I", 8) + NAME)
    _append(data, slots)
    return root(bytes(data), NAME)


def _append(data, slots):
    at, body, entries, later = len(data), bytearray(4), [], []
    for slot in slots:
        if slot is None:
            entries.append(0)
            continue
        entries.append(len(body))
        if not isinstance(slot, tuple):
            later.append((at + len(body), slot))
        kind, number = slot if isinstance(slot, tuple) else ("I", 0)
        body += struct.pack(f"<{kind}", number)
    struct.pack_into("<i", body, 0, -len(body))
    data += body + struct.pack(f"<HH{len(entries)}H", 4 + 2 * len(entries), len(body), *entries)
    for place, child in later:
        struct.pack_into("<I", data, place, len(data) - place)
        if isinstance(child, list):
            _append(data, child)
        else:
            data += struct.pack(f"<I{len(child.numbers)}{child.kind}", len(child.numbers), *child.numbers)


def tensor(datatype, *dims, constant=0):
    return [("h", datatype), None, Vector("I", *dims), ("I", constant)]


def value(*slots, constants=()):
    return parse._value(table(*slots), [memoryview(b""), *map(memoryview, constants)])


def test_a_plain_value():
    found = value(("B", 1), tensor(parse.FLOAT32, 1, 3, 4))
    assert found == Value(parse.FLOAT32, (1, 3, 4), 0)
    assert (found.scale, found.axis) == (None, None)


@pytest.mark.parametrize(("scale", "zero_point"), [(0.5, 0), (0.1, -128), (1e-30, 127), (3e38, 5)])
def test_one_scale_keeps_every_bit(scale, zero_point):
    found = value(("B", 2), [tensor(parse.QINT8, 2, 2), ("B", 2), [("f", scale), ("i", zero_point)]])
    assert found.scale.dtype == np.float32
    assert (float(found.scale), found.zero_point) == (float(np.float32(scale)), zero_point)
    assert found.axis is None


@pytest.mark.parametrize("axis", [0, 3])
def test_a_scale_for_each_channel(axis):
    scale = np.array([0.5, 0.25, 3], np.float32)
    quantized = [tensor(parse.QCINT8, 3, 2, constant=1), ("B", 1), [None, ("i", axis), ("I", 2), ("I", 3)]]
    found = value(("B", 2), quantized, constants=(bytes(6), scale.tobytes()))
    np.testing.assert_array_equal(found.scale, scale)
    assert (found.axis, found.constant, found.dims) == (axis, 1, (3, 2))


def test_dynamic_values_have_no_scale():
    found = value(("B", 2), [tensor(parse.QDINT8, 1, 4), ("B", 3), [("I", 1)]])
    assert found == Value(parse.QDINT8, (1, 4), 0)


@pytest.mark.parametrize(
    ("how", "index", "count"), [(1, 2, 4), (1, 3, 1), (1, NOWHERE, 1), (1, 2, NOWHERE), (4, 2, 3), (0, 2, 3)]
)
def test_scales_that_are_not_where_they_are_told(how, index, count):
    quantized = [tensor(parse.QCINT8, 3, 2, constant=1), ("B", how), [None, ("i", 0), ("I", index), ("I", count)]]
    with pytest.raises(Spoiled, match="not stored as we write it"):
        value(("B", 2), quantized, constants=(bytes(6), bytes(12)))


@pytest.mark.parametrize("slots", [(("B", 1),), (("B", 2), [None]), (("B", 2),)])
def test_a_value_without_a_tensor(slots):
    with pytest.raises(Spoiled, match="without a tensor"):
        value(*slots)


@pytest.mark.parametrize("constant", [1, 7, NOWHERE])
def test_a_constant_that_is_not_there(constant):
    with pytest.raises(Spoiled, match="there is no constant"):
        value(("B", 1), tensor(parse.FLOAT32, 1, constant=constant))


def step(kind, *slots, limits=None, count=9):
    found = [("B", parse.KINDS.index(kind)), list(slots), None]
    if limits is not None:
        found.append([("f", number) for number in limits])
    return parse._step(table(*found), count)


def numbers(*found):
    return [("I", number) for number in found]


@pytest.mark.parametrize("kind", ["Conv2d", "DepthwiseConv2d", "FullyConnected"])
@pytest.mark.parametrize("bias", [3, NOWHERE])
def test_layers(kind, bias):
    first = 0 if kind == "FullyConnected" else 15
    found = step(kind, *[None] * first, *numbers(1, 2, bias, 4), limits=(-1, 2))
    assert found == Step(kind, 4, (1,), 2, bias, (-1.0, 2.0))


@pytest.mark.parametrize("kind", ["Add", "Multiply", "Subtract", "Div", "Maximum", "BatchMatrixMultiply"])
def test_nodes_with_two_sides(kind):
    assert step(kind, *numbers(5, 6, 7)) == Step(kind, 7, (5, 6))


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_concatenations(count):
    slots = [("I", 0), *numbers(1, 2, 3, 4), ("I", 8), None, ("I", 5)]
    found = step(f"Concatenate{count}", *slots)
    assert found.inputs == (1, 2, 3, 4, 5)[:count]
    assert found.output == 8


@pytest.mark.parametrize(("kind", "at"), [("Clamp", 0), ("Convert", 0), ("StaticReshape", 2), ("MaxPooling2d", 10)])
def test_nodes_with_one_side(kind, at):
    assert step(kind, *[None] * at, *numbers(3, 6)) == Step(kind, 6, (3,))


@pytest.mark.parametrize("number", [0, len(parse.KINDS), 255])
def test_nodes_of_unknown_kinds(number):
    with pytest.raises(Spoiled, match=f"unknown kind {number}"):
        parse._step(table(("B", number), numbers(1, 2)), 9)


@pytest.mark.parametrize("wrong", range(4))
@pytest.mark.parametrize("value", [9, NOWHERE - 1])
def test_values_that_are_not_there(wrong, value):
    ids = [1, 2, 3, 4]
    ids[wrong] = value
    with pytest.raises(Spoiled, match=f"there is no value {value}"):
        step("FullyConnected", *numbers(*ids))


@pytest.mark.parametrize("wrong", [0, 1, 3])
def test_only_a_bias_may_be_left_out(wrong):
    ids = [1, 2, 3, 4]
    ids[wrong] = NOWHERE
    with pytest.raises(Spoiled, match="there is no value"):
        step("FullyConnected", *numbers(*ids))


def held(data, datatype, *dims):
    return Delegate((), (), (memoryview(b""), memoryview(data))).integers(Value(datatype, dims, 1))


def test_int8_and_int32_numbers():
    codes = np.arange(-6, 6, dtype=np.int8)
    np.testing.assert_array_equal(held(codes.tobytes(), parse.QCINT8, 3, 4), codes.reshape(3, 4))
    wide = np.array([2**31 - 1, -(2**31), 7], np.int32)
    found = held(wide.tobytes(), parse.QCINT32, 3)
    np.testing.assert_array_equal(found, wide)
    assert found.dtype == np.int32


def test_nibbles_lie_low_half_first():
    np.testing.assert_array_equal(held(bytes([0x80, 0xF1]), parse.QCINT4, 1, 4), [[-8, 0, -7, 7]])
    np.testing.assert_array_equal(held(bytes([0x80, 0xF1]), parse.QCINT4, 2, 1), [[-8], [-7]])


@pytest.mark.parametrize(
    ("datatype", "dims"),
    [
        (parse.QCINT8, (3, 3)),
        (parse.QINT8, (2**31, 2**31, 2**31)),
        (parse.QCINT32, (3,)),
        (parse.QCINT4, (3, 6)),
        (parse.QCINT4, (0, 4)),
        (parse.QCINT4, ()),
        (parse.QCINT4, (5, 1)),
    ],
)
def test_fewer_numbers_than_the_shape_says(datatype, dims):
    with pytest.raises(Spoiled, match="shape"):
        held(bytes(8), datatype, *dims)


ROWS, COLUMNS = 64, 256


def shared(count, dims=None):
    """Return a program whose layers share one weight, in one shape or in the shapes given, and its size."""
    data = np.random.default_rng(0).integers(-127, 128, ROWS * COLUMNS).astype(np.int8).tobytes()
    scale = np.array(0.5, np.float32)
    shapes = dims or [(ROWS, COLUMNS)]
    weights = tuple(Value(parse.QINT8, shape, 1, scale) for shape in shapes)
    values = (Value(parse.QDINT8, (1, COLUMNS), 0), Value(parse.FLOAT32, (1, ROWS), 0), *weights)
    steps = tuple(Step("FullyConnected", 1, (0,), 2 + index % len(shapes)) for index in range(count))
    about = {"layers": {f"0/{index}": f":linear#{index}" for index in range(count)}}
    return Program(about, (Delegate(values, steps, (memoryview(b""), memoryview(data))),), ()), len(data)


def content(program, size):
    return read._content(program, {}, read._Constants(size))


def test_layers_that_share_a_constant_share_its_memory():
    program, size = shared(200)
    tracemalloc.start()
    found = content(program, size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * size  # 200 copies are 800 times its size
    assert len(found.integers) == 200
    one, other = (found.integers[f":linear#{index}:weight"] for index in (0, 199))
    assert np.shares_memory(one, other)
    assert not one.flags.writeable
    assert found.tensors[":linear#7:in"] == Dynamic(8)
    assert found.encodings().integers.keys() == found.integers.keys()


def test_many_shapes_of_a_constant_are_refused():
    program, size = shared(100, [(ROWS - index % 8, COLUMNS - index) for index in range(100)])
    with pytest.raises(Spoiled, match="memory without end"):
        content(program, size)


def test_few_shapes_of_a_constant_are_taken():
    program, size = shared(8, [(ROWS, COLUMNS), (COLUMNS, ROWS), (1, ROWS * COLUMNS)])
    assert {codes.shape for codes in content(program, size).integers.values()} == {
        (ROWS, COLUMNS),
        (COLUMNS, ROWS),
        (1, ROWS * COLUMNS),
    }


def test_many_layers_that_share_their_scales_are_refused():
    scale = np.ones(4096, np.float32)
    data = memoryview(bytes(4096))
    values = (
        Value(parse.FLOAT32, (1, 1), 0),
        Value(parse.FLOAT32, (1, 4096), 0),
        Value(parse.QCINT8, (4096, 1), 1, scale, 0, 0),
    )
    steps = tuple(Step("FullyConnected", 1, (0,), 2) for _ in range(100))
    about = {"layers": {f"0/{index}": f":linear#{index}" for index in range(100)}}
    program = Program(about, (Delegate(values, steps, (memoryview(b""), data)),), ())
    with pytest.raises(Spoiled, match="memory without end"):
        content(program, 5 * 4096)
    assert len(content(program, 25 * 4096 + 4096).integers) == 100


def test_values_that_share_their_scales_do_not_copy_them():
    scale = np.ones(4096, np.float32).tobytes()
    quantized = [tensor(parse.QCINT8, 4096, constant=1), ("B", 1), [None, ("i", 0), ("I", 1), ("I", 4096)]]
    found = [value(("B", 2), quantized, constants=(scale,)) for _ in range(3)]
    assert np.shares_memory(found[0].scale, found[2].scale)
    assert np.shares_memory(found[0].scale, np.frombuffer(scale, np.float32))
