"""Tables of what is decided without a runtime: demands of graphs, biases, names of places, silence."""

from __future__ import annotations

import logging
import os
import sys
import warnings

import numpy as np
import pytest

from haversack.base.constraints import Ratio
from haversack.base.graph import Graph, Node, TensorSpec
from haversack.targets.executorch import parse
from haversack.targets.executorch.constraints import constraints
from haversack.targets.executorch.quiet import quiet
from haversack.tools.formats.flat import Spoiled
from haversack.tools.graph import injection


def node(op, *inputs, shape=("n", 4, 6, 6), dtype="float32", name=None, **attributes):
    """Return a node whose key is its op's, or a name's."""
    weight = f"{op}.weight" if op in ("conv2d", "linear") else None
    key = f":{name or op}#0"
    return Node(key, op, op, inputs, TensorSpec(shape, dtype), weight, attributes=attributes)


def graph(*nodes):
    return Graph(nodes, tuple(each.key for each in nodes if each.op == "input"), (nodes[-1].key,))


X, Y = ":x#0", ":y#0"


def two(*nodes, shape=("n", 4, 6, 6)):
    """Return a graph with two inputs."""
    return graph(node("input", name="x", shape=shape), node("input", name="y", shape=shape), *nodes)


def test_an_add_has_a_ratio_for_each_side():
    found = constraints(two(node("add", X, Y)))
    assert set(found.ratios) == {Ratio(f"{key}:out", ":add#0:out", multiple=1) for key in (X, Y)}
    assert found.integer_ops == {"add"}
    assert found.ties == ()


def test_an_add_of_a_tensor_to_itself_has_one_ratio():
    (ratio,) = constraints(two(node("add", X, X))).ratios
    assert (ratio.input, ratio.output) == (f"{X}:out", ":add#0:out")


@pytest.mark.parametrize("attributes", [{"alpha": 2}, {"alpha": -1}])
def test_a_scaled_add_is_none_for_integers(attributes):
    found = constraints(two(node("add", X, Y, **attributes)))
    assert (found.ratios, found.integer_ops) == ((), frozenset())


def test_an_add_behind_a_clamp_is_bound_at_the_clamp():
    found = constraints(two(node("add", X, Y), node("relu", ":add#0")))
    assert {ratio.output for ratio in found.ratios} == {":relu#0:out"}
    assert found.bounds == {":relu#0:out": (0.0, float("inf"))}


@pytest.mark.parametrize(
    ("height", "width", "multiple"),
    [(1, 1, 1), (2, 2, 4), (3, 5, 1), (6, 6, 4), (7, 7, 1), (8, 8, 64), (4, 3, 4), ("h", 4, 1), (4, "w", 1)],
)
def test_a_mean_has_the_power_of_two_in_its_size(height, width, multiple):
    shape = ("n", 4, height, width)
    pool = node("adaptive_avg_pool2d", X, shape=("n", 4, 1, 1), output_size=[1, 1])
    (ratio,) = constraints(two(pool, shape=shape)).ratios
    count = height * width if isinstance(height, int) and isinstance(width, int) else 0
    assert ratio == Ratio(f"{X}:out", f"{pool.key}:out", multiple=multiple, count=count)


def test_a_pool_to_more_than_one_value_is_no_mean():
    pool = node("adaptive_avg_pool2d", X, shape=("n", 4, 2, 2), output_size=[2, 2])
    found = constraints(two(pool))
    assert (found.ratios, found.integer_ops) == ((), frozenset())


@pytest.mark.parametrize("op", ["view", "reshape", "flatten", "permute", "transpose", "max_pool2d", "slice", "dropout"])
def test_moves_are_tied(op):
    found = constraints(two(node(op, X)))
    assert found.ties == (frozenset({f"{X}:out", f":{op}#0:out"}),)
    assert found.integer_ops == {op}


@pytest.mark.parametrize("op", ["expand", "channel_shuffle", "pixel_shuffle", "select", "max_pool1d"])
def test_moves_without_a_kernel_are_tied_all_the_same(op):
    found = constraints(two(node(op, X)))
    assert found.ties == (frozenset({f"{X}:out", f":{op}#0:out"}),)
    assert found.integer_ops == frozenset()


def test_indices_have_no_encoding_to_tie():
    found = constraints(graph(node("input", name="x", dtype="int64"), node("view", X, dtype="int64")))
    assert (found.ties, found.integer_ops) == ((), frozenset())


@pytest.mark.parametrize(
    ("inputs", "is_integer"), [((X, Y), True), ((Y, X), True), ((X, X), False), ((Y, Y, Y), False), ((X, Y, X), True)]
)
def test_a_concatenation_of_a_tensor_with_itself_leaves_integers(inputs, is_integer):
    found = constraints(two(node("cat", *inputs)))
    assert ("cat" in found.integer_ops) == is_integer
    assert found.ties == (frozenset({*(f"{key}:out" for key in inputs), ":cat#0:out"}),)


def test_one_doubled_concatenation_takes_all_of_them_out():
    found = constraints(two(node("cat", X, Y), node("cat", ":cat#0", ":cat#0", name="cat_1")))
    assert "cat" not in found.integer_ops
    assert len(found.ties) == 2


@pytest.mark.parametrize(
    ("op", "attributes", "limits"),
    [
        ("relu", {}, (0.0, float("inf"))),
        ("relu6", {}, (0.0, 6.0)),
        ("hardtanh", {"min_val": -0.5, "max_val": 0.25}, (-0.5, 0.25)),
        ("clamp", {"min": -1}, (-1.0, float("inf"))),
        ("clamp", {"max": 2}, (float("-inf"), 2.0)),
    ],
)
def test_bounds_of_clamps(op, attributes, limits):
    assert constraints(two(node(op, X, **attributes))).bounds == {f":{op}#0:out": limits}


@pytest.mark.parametrize("op", ["gelu", "sigmoid", "softmax", "mul", "layer_norm"])
def test_float_ops_demand_nothing(op):
    found = constraints(two(node(op, X)))
    assert (found.ties, found.ratios, found.bounds, found.integer_ops) == ((), (), {}, frozenset())


CODES, SCALE = np.array([1, -2, 3], np.int32), np.array([0.5, 0.25, 1], np.float32)


def test_digests_tell_codes_and_scales_apart():
    forms = {
        "as it is": (CODES, SCALE),
        "another code": (CODES + np.int32(1), SCALE),
        "another scale": (CODES, SCALE * np.float32(2)),
        "another order": (CODES[::-1].copy(), SCALE),
        "one scale": (CODES, SCALE[0]),
        "wider codes": (CODES.astype(np.int64), SCALE),
    }
    found = injection.bias_digests(forms)
    assert len(set(found.values())) == len(forms)
    assert injection.bias_digests({"as it is": (CODES.copy(), SCALE.copy())})["as it is"] == found["as it is"]


def test_differences_of_biases():
    wanted = injection.bias_digests({"a": (CODES, SCALE), "b": (CODES, SCALE), "d": (CODES, SCALE)})
    found = {"a": (CODES, SCALE), "b": (CODES + np.int32(1), SCALE), "c": (CODES, SCALE)}
    faults = injection.bias_differences(wanted, found)
    assert [fault.where for fault in faults] == ["b", "c", "d"]
    for fault, words in zip(faults, ("not the one", "nobody asked", "not stored as int32"), strict=True):
        assert words in fault.cause
    assert injection.bias_differences(wanted, dict.fromkeys(wanted, (CODES, SCALE))) == ()


def test_no_biases_are_no_fault():
    assert injection.bias_digests({}) == {}
    assert injection.bias_differences({}, {}) == ()


@pytest.mark.parametrize(("name", "wanted"), [("0/0", (0, 0)), ("3/17", (3, 17)), ("00/07", (0, 7))])
def test_places(name, wanted):
    assert parse.place(name) == wanted


@pytest.mark.parametrize("name", ["", "/", "1", "1/", "/1", "a/1", "1/a", "-1/1", "1/-1", "1/1/1", " 1/1", None, 3.5])
def test_names_that_are_no_places(name):
    with pytest.raises(Spoiled, match="no place"):
        parse.place(name)


def test_a_long_name_is_not_told_whole():
    with pytest.raises(Spoiled) as caught:
        parse.place("9" * 10_000)
    assert len(str(caught.value)) < 80


@pytest.mark.parametrize("text", ["{}", '{"layers":{}}', '{"layers":{"0/1":"a"},"format":1}'])
def test_what_a_file_may_say(text):
    assert set(parse.told(text)) <= {"layers", "format"}


@pytest.mark.parametrize("text", ["", "[]", "7", "null", '{"layers":null}', '{"layers":[]}', '{"layers":{"0/1":[]}}'])
def test_what_a_file_may_not_say(text):
    with pytest.raises(Spoiled, match="says about itself"):
        parse.told(text)


def test_quiet_keeps_every_stream_away(capfd):
    with quiet():
        sys.stdout.write("one")
        sys.stderr.write("two")
        os.write(1, b"three")
        os.write(2, b"four")
        warnings.warn("five", stacklevel=1)
        logging.getLogger("haversack.tests").warning("six")
    assert capfd.readouterr() == ("", "")
    os.write(1, b"after")
    assert capfd.readouterr().out == "after"


def test_quiet_puts_all_back_after_an_error(capfd):
    before = logging.root.manager.disable, list(logging.root.handlers)
    added = logging.NullHandler()

    def fail():
        with quiet():
            logging.root.addHandler(added)
            os.write(1, b"lost")
            raise KeyError("its own")

    with pytest.raises(KeyError, match="its own"):
        fail()
    assert (logging.root.manager.disable, logging.root.handlers) == before
    os.write(2, b"heard")
    assert capfd.readouterr() == ("", "heard")


def test_quiet_leaves_no_descriptors_open():
    def lowest():
        number = os.dup(1)
        os.close(number)
        return number

    before = lowest()
    for _ in range(20):
        with quiet(), quiet():
            assert lowest() > before
    assert lowest() == before
