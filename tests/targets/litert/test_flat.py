"""Files as bytes: equal parts are stored once, data are aligned, names are unique."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.errors import MissingExtra
from haversack.targets.litert import flat, naming
from haversack.targets.litert import order as orders
from haversack.targets.litert.flat import ALIGNMENT, IDENTIFIER, Operator, Quantization, Subgraph, Tensor, pack
from haversack.targets.litert.sheet import Sheet, Store
from haversack.targets.litert.unflat import File, Foreign


def chain(length, width=64, shared=True):
    """Return (subgraph, buffers) of some additions of constants, each with a quantization."""
    scale, zeros = np.linspace(0.1, 1, width, dtype=np.float32), np.zeros(width, np.int64)
    tensors = [Tensor("x", (width,), 9)]
    operators, buffers = [], [b""]
    for index in range(length):
        own = scale if shared else scale + np.float32(index)
        buffers.append(bytes([index + 101]) * width)
        tensors += [
            Tensor(f"c{index}", (width,), 9, len(buffers) - 1, Quantization(own, zeros)),
            Tensor(f"y{index}", (width,), 9),
        ]
        operators.append(Operator(0, (2 * index, 2 * index + 1), (2 * index + 2,)))
    return Subgraph("main", tensors, operators, [("in", 0)], [("out", 2 * length)]), buffers


def test_equal_vectors_are_stored_once():
    one, two = (len(pack([graph], buffers)) for graph, buffers in (chain(8), chain(8, shared=False)))
    assert two - one >= 7 * 64 * 4
    graph, buffers = chain(8)
    assert len(pack([graph], buffers)) < 8 * 64 + 64 * 12 + 8 * 200 + 600


def test_data_are_aligned():
    graph, buffers = chain(5, width=33)
    data = pack([graph], buffers)
    for index in range(1, len(buffers)):
        assert data.find(buffers[index]) % ALIGNMENT == 0
    assert data[4:8] == IDENTIFIER


def test_there_and_back():
    graph, buffers = chain(3)
    file = File(pack([graph], buffers))
    assert file.buffers == buffers
    (found,) = file.subgraphs
    assert [(one.name, one.shape, one.type, one.buffer) for one in found.tensors] == [
        (one.name, one.shape, one.type, one.buffer) for one in graph.tensors
    ]
    assert [(one.inputs, one.outputs, one.code) for one in found.operators] == [
        (one.inputs, one.outputs, one.code) for one in graph.operators
    ]
    assert (found.name, found.inputs, found.outputs) == ("main", graph.inputs, graph.outputs)
    np.testing.assert_array_equal(found.tensors[1].quantization.scale, graph.tensors[1].quantization.scale)


def test_free_axes_are_kept():
    graph = Subgraph("main", [Tensor("x", (1, 4), 0, free=(1,)), Tensor("y", (1, 4), 0)], [], [("x", 0)], [("x", 0)])
    (found,) = File(pack([graph], [b""])).subgraphs
    assert [one.free for one in found.tensors] == [(1,), ()]


def test_a_missing_package_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(MissingExtra, match="ai-edge-litert"):
        flat.schema()


def test_equal_constants_are_one_tensor_and_one_buffer():
    sheet = Sheet(Store(), "main")
    one, two = (sheet.constant(name, np.arange(3)) for name in ("a", "b"))
    other = sheet.constant("c", np.arange(3, dtype=np.int32))
    assert one == two != other
    meaning = Quantization(np.ones(1, np.float32), np.zeros(1, np.int64))
    first, second = (sheet.constant(name, np.zeros(4, np.int8), meaning) for name in ("d", "e"))
    assert first != second
    assert sheet.graph.tensors[first].buffer == sheet.graph.tensors[second].buffer


def test_names_are_unique():
    sheet = Sheet(Store(), "main")
    numbers = [sheet.tensor("same", (1,), "float32") for _ in range(3)]
    assert [sheet.graph.tensors[number].name for number in numbers] == ["same", "same.1", "same.2"]


def test_four_bits_are_packed_low_half_first():
    store = Store()
    sheet = Sheet(store, "main")
    number = sheet.constant("w", np.array([[1, -2, 7]], np.int8), dtype="int4")
    assert store.buffers[sheet.graph.tensors[number].buffer] == bytes([0xE1, 0x07])
    assert sheet.dtype(number) == "int4"


@pytest.mark.parametrize("shape, order, wanted", [((1, 8, 1, 1), orders.NHWC, 0), ((1, 8, 2, 1), orders.NHWC, 1)])
def test_moving_axes_of_length_one_needs_no_transposition(shape, order, wanted):
    sheet = Sheet(Store(), "main")
    value = sheet.value("x", shape, order)
    moved = sheet.ordered(value, orders.plain(4), "n:op#0")
    names = vars(sheet.classes.BuiltinOperator)
    assert [one.code == names["TRANSPOSE"] for one in sheet.graph.operators].count(True) == wanted
    assert moved.order == orders.plain(4)
    assert sheet.ordered(value, orders.plain(4), "n:op#0") == moved, "made once"


@pytest.mark.parametrize("dims", [(0, 2, 3, 1), (0, 3, 1, 2), (3, 2, 1, 0)])
def test_a_permuted_order_is_what_torch_means(dims):
    array = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    filed = array.transpose(orders.NHWC)
    order = orders.permuted(orders.NHWC, dims)
    wanted = array.transpose(dims)
    np.testing.assert_array_equal(filed.transpose(orders.steps(order, orders.plain(4))), wanted)


@pytest.mark.parametrize(
    "name, key",
    [
        ("a.b:conv2d#0:out", "a.b:conv2d#0"),
        ("a.b:conv2d#0/c:relu#1:out/codes", "a.b:conv2d#0"),
        (":add#12/RESHAPE.1", ":add#12"),
        ("a:conv2d#0:weight/codes/whole", "a:conv2d#0"),
        ("serving_default_x:0", ""),
        ("", ""),
    ],
)
def test_names_tell_their_key(name, key):
    assert naming.key_of(name) == key


def test_a_tensor_of_the_wrong_size_is_foreign():
    graph = Subgraph("m", [Tensor("x", (3,), 0, 1)], [], [("x", 0)], [("x", 0)])
    file = File(pack([graph], [b"", b"12345"]))
    with pytest.raises(Foreign, match="5 bytes are not 3 numbers of float32"):
        file.numbers(file.subgraphs[0].tensors[0])
