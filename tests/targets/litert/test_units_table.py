"""Small parts, row by row: constraints of a graph, names, sides of pads, a site's values, orders."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from haversack.base.encodings import Affine, Dynamic, Encodings
from haversack.base.errors import ConversionError
from haversack.base.graph import Graph, Node, TensorSpec
from haversack.targets.litert import naming, padding
from haversack.targets.litert import order as orders
from haversack.targets.litert.sheet import Sheet, Store
from haversack.targets.litert.site import Site, Values
from haversack.tools.graph.demands import demands
from haversack.tools.graph.program import Constant, Flow

GRID = Affine(8, False, None, np.array(0.5, np.float32), np.array(3, np.int32))


def node(op, *inputs, shape=(1, 4, 6, 6), dtype="float32", **attributes):
    """Return a node whose key is made of its op."""
    weight = f"{op}.weight" if op in ("conv2d", "linear") else None
    return Node(f"m:{op}#0", op, op, inputs, TensorSpec(shape, dtype), attributes=attributes, weight=weight)


def graph(*nodes):
    sources = dict.fromkeys(key for one in nodes for key in one.inputs if key.endswith(":input#0"))
    made = [Node(key, key.split(":")[0], "input", (), TensorSpec((1, 4, 6, 6), "float32")) for key in sources]
    return Graph((*made, *nodes), tuple(sources), (nodes[-1].key,))


X, Y = "x:input#0", "y:input#0"


@pytest.mark.parametrize(
    "one, tied",
    [
        (node("max_pool2d", X), {f"{X}:out", "m:max_pool2d#0:out"}),
        (node("reshape", X), {f"{X}:out", "m:reshape#0:out"}),
        (node("permute", X), {f"{X}:out", "m:permute#0:out"}),
        (node("cat", X, Y), {f"{X}:out", f"{Y}:out", "m:cat#0:out"}),
        (node("cat", X, X), {f"{X}:out", "m:cat#0:out"}),
        (node("reshape", X, dtype="int64"), None),
        (node("softmax", X), None),
        (node("conv2d", X), None),
        (node("add", X, Y), None),
    ],
    ids=lambda one: one.op if isinstance(one, Node) else "",
)
def test_ties(one, tied):
    assert demands(graph(one)).ties == (() if tied is None else (frozenset(tied),))


@pytest.mark.parametrize(
    "sizes, multiple",
    [((6, 6), 4), ((7, 7), 1), ((8, 4), 32), ((1, 1), 1), ((3, 2), 2), (("length", 6), 1), ((12, 1), 4)],
)
def test_a_mean_has_the_twos_of_its_places(sizes, multiple):
    source = Node(X, "x", "input", (), TensorSpec((1, 4, *sizes), "float32"))
    mean = node("mean", X, shape=(1, 4), dim=[2, 3], keepdim=False)
    found = demands(Graph((source, mean), (X,), (mean.key,)))
    assert [(one.input, one.output, one.multiple) for one in found.ratios] == [(f"{X}:out", mean.out, multiple)]


def test_an_add_of_one_tensor_has_one_ratio():
    found = demands(graph(node("add", X, X))).ratios
    assert [(one.input, one.multiple) for one in found] == [(f"{X}:out", 1)]


@pytest.mark.parametrize(
    "name, key",
    [
        ("conv:conv2d#0:out", "conv:conv2d#0"),
        ("conv:conv2d#0:out/codes", "conv:conv2d#0"),
        ("conv:conv2d#12/act:relu#0:out", "conv:conv2d#12"),
        ("a.b.0:linear#3:weight/codes/whole", "a.b.0:linear#3"),
        (":add#0/PAD.1", ":add#0"),
        ("n:_op2#0", "n:_op2#0"),
        ("conv:conv2d", ""),
        ("conv:2d#0:out", ""),
        ("conv:conv2d#x:out", ""),
        ("a:b:conv2d#0:out", ""),
        ("a#1:conv2d#0:out", ""),
        ("conv:conv2d#0out", ""),
        ("serving_default_x:0", ""),
        ("", ""),
    ],
)
def test_names_tell_their_key(name, key):
    assert naming.key_of(name) == key


@pytest.mark.parametrize(
    "value, rank, wanted", [(2, 2, [2, 2]), ([3], 2, [3, 3]), ((1, 2), 2, [1, 2]), ([4], 1, [4]), (0, 3, [0, 0, 0])]
)
def test_numbers_are_spread(value, rank, wanted):
    assert padding.spread(value, rank) == wanted


@pytest.mark.parametrize("size", [5, 6, 9])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_gives_as_many_places_as_its_sides_do(size, kernel, stride, dilation):
    """Whatever sides are called SAME give ceil(size / stride) places, as LiteRT counts them."""
    reach = dilation * (kernel - 1) + 1
    for before in range(reach):
        for after in range(reach):
            name = padding.scheme([size], [kernel], [stride], [dilation], ((before, after),))
            places = (size + before + after - reach) // stride + 1
            assert name in ("SAME", "VALID", "")
            assert (name == "VALID") == (before == after == 0)
            if name == "SAME":
                assert places == -(-size // stride)
                assert 0 <= after - before <= 1


@pytest.mark.parametrize("dims", [(0, 2, 1), (2, 0, 1), (1, 0, 2), (0, 1, 2)])
@pytest.mark.parametrize("order", [orders.NWC, orders.plain(3), (1, 2, 0)])
def test_a_way_there_and_back_is_no_way(order, dims):
    back = tuple(dims.index(axis) for axis in range(3))
    assert orders.permuted(orders.permuted(order, dims), back) == order
    assert orders.steps(order, order) == orders.plain(3)
    assert orders.filed(orders.filed((2, 3, 4), order), orders.steps(order, orders.plain(3))) == (2, 3, 4)


@pytest.fixture
def site():
    """A linear layer's site, where its input has codes and no floats."""
    sheet = Sheet(Store(), "main")
    values = Values(sheet)
    values.codes[X] = sheet.value(f"{X}:out/codes", (1, 4), (0, 1), grid=GRID)
    one = node("linear", X, shape=(1, 4))
    arguments = {"flow": Flow(X), "number": 2, "array": Constant(np.arange(3)), "text": "same", "none": None}
    return Site(values, SimpleNamespace(shape=lambda _: (1, 4)), Encodings.none(), one, arguments)


def test_codes_are_made_float_once_for_all_who_compute_in_float(site):
    one, two = site.value("flow"), site.value("flow")
    assert (one, one.dtype, one.grid) == (two, "float32", None)
    assert len(site.sheet.graph.operators) == 1
    site.grid = GRID
    assert site.value("flow").dtype == "int8"
    assert len(site.sheet.graph.operators) == 1


@pytest.mark.parametrize("name, shape, dtype", [("number", (), "float32"), ("array", (3,), "int64")])
def test_numbers_are_constants(site, name, shape, dtype):
    found = site.value(name)
    assert (found.shape, found.dtype, found.grid) == (shape, dtype, None)
    assert site.sheet.graph.tensors[found.tensor].buffer > 0


@pytest.mark.parametrize("name, kind", [("text", "str"), ("none", "NoneType")])
def test_what_is_no_number_is_refused_by_key(site, name, kind):
    with pytest.raises(ConversionError, match=f"linear: an argument is {kind}") as caught:
        site.value(name)
    assert caught.value.where == "m:linear#0"


@pytest.mark.parametrize("encoding, wanted", [(Dynamic(), True), (GRID, False), (None, False)])
def test_a_site_is_dynamic_by_its_input(site, encoding, wanted):
    site.encodings = Encodings({} if encoding is None else {"m:linear#0:in": encoding})
    assert site.dynamic is wanted


@pytest.mark.parametrize("shape, added", [((1, 4), 0), ((4,), 1), ((2, 2), 1)])
def test_a_reshape_costs_only_where_the_file_sees_it(site, shape, added):
    value = site.sheet.value("v", (1, 4), (0, 1))
    made = site.reshape(value, shape)
    assert (made.shape, len(site.sheet.graph.operators)) == (shape, added)


@pytest.mark.parametrize("grid, dtype, wanted", [(None, "float32", "float32"), (GRID, "float32", "int8")])
def test_what_is_emitted_has_codes_where_floats_are_meant(site, grid, dtype, wanted):
    site.grid = grid
    made = site.emit("RELU", [site.value("flow").tensor], (1, 4), dtype=dtype)
    assert (made.dtype, made.grid) == (wanted, grid)
    assert site.emit("RELU", [made.tensor], (1, 4), dtype="bool").grid is None
    assert not site.fused
    site.activation = "RELU6"
    assert site.fuse() == site.sheet.options("ActivationFunctionType")["RELU6"]
    assert site.fused
