"""Which files an .onnx file refers to: every place where a tensor may stand, held against the onnx package."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from haversack.base.errors import Refused
from haversack.tools.formats import onnx_outside
from haversack.tools.formats.onnx_outside import outside


def tensor(location: str) -> TensorProto:
    found = numpy_helper.from_array(np.ones(4, np.float32), "w")
    found.ClearField("raw_data")
    found.data_location = TensorProto.EXTERNAL
    for key, value in (("offset", "0"), ("location", location), ("length", "16")):
        found.external_data.add(key=key, value=value)
    return found


def graph(nodes=(), tensors=(), name="g"):
    return helper.make_graph(list(nodes), name, [], [], list(tensors))


def sparse(location: str):
    return helper.make_sparse_tensor(tensor(location), numpy_helper.from_array(np.zeros(4, np.int64), "i"), [16])


def of_graph(place: str, node=None):
    """Return a model with a graph that names a file in its first tensor, or in a node."""
    return helper.make_model(graph([node] if node else (), () if node else [tensor(place)]))


def in_sparse(place: str):
    found = helper.make_model(graph())
    found.graph.sparse_initializer.append(sparse(place))
    return found


def in_sparse_attribute(place: str):
    node = helper.make_node("Constant", [], ["y"])
    node.attribute.append(helper.make_attribute("sparse_value", sparse(place)))
    return helper.make_model(graph([node]))


def in_function(place: str, *, attribute: bool):
    nodes = [] if attribute else [helper.make_node("Constant", [], ["y"], value=tensor(place))]
    made = helper.make_function("d", "F", [], ["y"] * len(nodes), nodes, [helper.make_opsetid("", 20)])
    if attribute:
        made.attribute_proto.append(helper.make_attribute("value", tensor(place)))
    found = helper.make_model(graph())
    found.functions.append(made)
    return found


def in_training(place: str, part: str):
    found = helper.make_model(graph())
    getattr(found.training_info.add(), part).CopyFrom(graph(tensors=[tensor(place)]))
    return found


def branch(inner):
    return helper.make_node("If", ["c"], ["y"], then_branch=inner)


MADE = {
    "initializer": of_graph,
    "constant": lambda place: of_graph(place, helper.make_node("Constant", [], ["y"], value=tensor(place))),
    "constants": lambda place: of_graph(place, helper.make_node("X", [], ["y"], values=[tensor(place)])),
    "graph": lambda place: of_graph(place, branch(graph(tensors=[tensor(place)]))),
    "graphs": lambda place: of_graph(
        place, branch(graph([helper.make_node("X", [], ["y"], bodies=[graph(tensors=[tensor(place)])])]))
    ),
    "sparse": in_sparse,
    "sparse attribute": in_sparse_attribute,
    "function": lambda place: in_function(place, attribute=False),
    "function attribute": lambda place: in_function(place, attribute=True),
    "training": lambda place: in_training(place, "initialization"),
    "algorithm": lambda place: in_training(place, "algorithm"),
}
"""Where a tensor may stand -> what makes a model with one there."""


def model(place: str):
    return MADE[place](place)


@pytest.mark.parametrize("place", MADE)
def test_a_file_is_found_wherever_it_is_named(place):
    assert outside(model(place).SerializeToString()) == {place}


def test_a_model_that_holds_its_weights_names_nothing():
    whole = helper.make_model(graph(tensors=[numpy_helper.from_array(np.ones((64, 64), np.float32), "w")]))
    assert outside(whole.SerializeToString()) == frozenset()


def test_every_place_that_the_library_has_is_looked_at():
    """Hold the table against the descriptors of the onnx package: no message that may hold a tensor is left out."""
    names = {"model": "ModelProto", "graph": "GraphProto", "node": "NodeProto", "attribute": "AttributeProto"}
    names |= {"training": "TrainingInfoProto", "function": "FunctionProto", "sparse": "SparseTensorProto"}
    names |= {"tensor": "TensorProto"}
    holding = set(names.values())
    for ours, theirs in names.items():
        fields = getattr(onnx, theirs).DESCRIPTOR.fields
        inside = {one.number: one.message_type.name for one in fields if one.message_type}
        wanted = {number: name for number, name in inside.items() if name in holding}
        found = {number: names[one] for number, one in onnx_outside._INSIDE.get(ours, {}).items()}
        assert found == wanted, theirs


def test_a_place_that_is_named_twice_or_merged_counts():
    data = model("initializer").SerializeToString() + model("graph").SerializeToString()  # readers merge messages
    assert outside(data) == {"initializer", "graph"}


def test_a_tensor_outside_of_nowhere_is_refused():
    found = model("initializer")
    del found.graph.initializer[0].external_data[:]
    with pytest.raises(Refused, match="none is named"):
        outside(found.SerializeToString())


@pytest.mark.parametrize("data", [b"", b"ORTM", b"\x08\x0a", b"TFL3" * 10, b"\x3a\x05abc"])
def test_what_no_model_is(data):
    with pytest.raises(Refused):
        outside(data)


def test_graphs_without_end_are_refused():
    inner = graph(tensors=[tensor("deep")])
    for _ in range(20):
        inner = graph([helper.make_node("If", ["c"], ["y"], then_branch=inner)])
    with pytest.raises(Refused, match="nested deeper"):
        outside(helper.make_model(inner).SerializeToString())


def test_more_fields_than_anybody_writes_are_refused(monkeypatch):
    monkeypatch.setattr(onnx_outside, "_MOST_FIELDS", 100)
    with pytest.raises(Refused, match="more than 100 fields"):
        outside(b"\x08\x01" * 200)


WHOLE = model("graphs").SerializeToString()


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_no_spoiled_model_is_more_than_refused(place, value):
    spoiled = bytearray(WHOLE)
    spoiled[place] = value
    for data in (bytes(spoiled), WHOLE[:place]):
        try:
            found = outside(data)
        except Refused:
            continue
        assert all(isinstance(one, str) for one in found)
