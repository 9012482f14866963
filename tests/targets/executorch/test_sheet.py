"""Sheets: forms of a value are made once, what nobody reads is left out, constants are stored by content."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.encodings import Affine
from haversack.targets.executorch import parse
from haversack.targets.executorch.capture import Part, _layout
from haversack.targets.executorch.quiet import quiet
from haversack.targets.executorch.sheet import Sheet, inputs

with quiet():  # ExecuTorch warns while it is imported
    from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as schema


def grid(scale=0.5, zero_point=3):
    return Affine(8, False, None, np.array(scale, np.float32), np.array(zero_point, np.int32))


def tensor(index, dims, flags=0):
    value = schema.XNNTensorValue(schema.XNNDatatype(1), len(dims), list(dims), 0, index, flags, index)
    return schema.XValue(value)


@pytest.fixture
def sheet():
    """Return a sheet: 0 comes in, 1 goes out, 2 is inside, 3 holds the parameter w turned round."""
    values = [tensor(0, (2, 3), 1), tensor(1, (2, 3), 2), tensor(2, (2, 3)), tensor(3, (3, 2))]
    graph = schema.XNNGraph("0", [], values, 2, [0], [1], [schema.ConstantDataOffset(0, 0)])
    part = Part(0, graph, (), {1: "n"}, {0: "x"}, {3: "w"}, {3: ((2, 3), (1, 0))}, {3: b"old"})
    return Sheet(part, {"w": np.arange(6, dtype=np.float32)})


def kinds(sheet):
    return [type(node.xnode_union).__name__.removeprefix("XNN") for node, _ in sheet.nodes]


def test_parameters_are_put_in_as_they_lie(sheet):
    found = np.frombuffer(sheet.constants[3], np.float32).reshape(3, 2)
    np.testing.assert_array_equal(found, np.arange(6).reshape(2, 3).T)


def test_a_part_is_never_changed(sheet):
    sheet.tensor(2).dims = [9, 9]
    sheet.new((4,))
    assert list(sheet.part.graph.xvalues[2].xvalue_union.dims) == [2, 3]
    assert len(sheet.part.graph.xvalues) == 4


def test_what_flows_over_the_border_is_external(sheet):
    assert [sheet.is_external(value) for value in range(4)] == [True, True, False, False]


def test_codes_are_made_once_for_each_encoding(sheet):
    one = sheet.as_codes(2, grid())
    assert sheet.as_codes(2, grid()) == one
    assert sheet.as_codes(2, grid(zero_point=4)) != one
    assert sheet.as_codes(2, grid(scale=0.25)) != one
    assert kinds(sheet) == ["Convert"] * 3
    quantized = sheet.values[one].xvalue_union
    assert (quantized.quant_params.scale, quantized.quant_params.zero_point) == (0.5, 3 - 128)
    assert list(sheet.tensor(one).dims) == [2, 3]


def test_codes_that_are_there_are_not_made_again(sheet):
    held = sheet.grid((2, 3), grid())
    sheet.set_codes(2, held, grid())
    assert sheet.as_codes(2, grid()) == held
    assert sheet.nodes == []


def test_an_encoded_value_is_read_as_its_codes_mean(sheet):
    assert sheet.as_float(2) == 2
    held = sheet.grid((2, 3), grid())
    sheet.set_codes(2, held, grid())
    opened = sheet.as_float(2)
    assert opened not in (2, held)
    assert sheet.as_float(2) == opened
    (convert,) = [node.xnode_union for node, _ in sheet.nodes]
    assert (convert.input_id, convert.output_id) == (held, opened)


def test_another_encoding_goes_by_what_the_codes_mean(sheet):
    """The law: whoever reads an encoded tensor reads its codes' values, also to encode them anew."""
    held = sheet.grid((2, 3), grid())
    sheet.set_codes(2, held, grid())
    other = sheet.as_codes(2, grid(scale=0.25))
    first, second = (node.xnode_union for node, _ in sheet.nodes)
    assert (first.input_id, second.output_id) == (held, other)
    assert first.output_id == second.input_id


def test_new_codes_forget_the_old_meaning(sheet):
    sheet.set_codes(2, sheet.grid((2, 3), grid()), grid())
    old = sheet.as_float(2)
    sheet.set_codes(2, sheet.grid((2, 3), grid(scale=2.0)), grid(scale=2.0))
    assert sheet.as_float(2) != old


@pytest.mark.parametrize("scale", [np.float32(0.5), np.array([0.5, 0.25, 2], np.float32)])
def test_constants_of_integers(sheet, scale):
    codes = np.arange(-3, 3, dtype=np.int8).reshape(3, 2)
    found = sheet.constant(codes, (3, 2), np.asarray(scale), 0, (parse.QINT8, parse.QCINT8))
    assert sheet.constants[found] == codes.tobytes()
    many = np.ndim(scale) == 1
    assert int(sheet.tensor(found).datatype) == (parse.QCINT8 if many else parse.QINT8)
    assert (found in sheet.scales) == many


def test_what_nobody_reads_is_left_out(sheet):
    lost = sheet.new((7, 7))
    sheet.add("Add", "n", input1_id=0, input2_id=3, output_id=1)
    made = sheet.finish()
    assert sorted(made.values) == [0, 1, 3]
    assert lost not in made.values
    assert list(made.data.values()) == [sheet.constants[3]]
    delegate = parse._delegate(memoryview(made.payload), lambda key: memoryview(made.data[key]))
    assert [value.dims for value in delegate.values] == [(2, 3), (2, 3), (3, 2)]
    assert [(step.kind, step.inputs, step.output) for step in delegate.steps] == [("Add", (0, 2), 1)]
    assert bytes(delegate.constants[delegate.values[2].constant]) == sheet.constants[3]


def test_equal_constants_are_stored_once(sheet):
    codes, scale = np.ones((2, 3), np.int8), np.ones(2, np.float32)
    one, two = (sheet.constant(codes, (2, 3), scale, 0, (parse.QINT8, parse.QCINT8)) for _ in range(2))
    assert one != two
    sheet.add("Add", "n", input1_id=one, input2_id=two, output_id=1)
    made = sheet.finish()
    assert sorted(made.data.values(), key=len) == [codes.tobytes(), scale.tobytes()]


def test_what_a_node_reads_by_its_fields():
    cat = schema.XNNConcatenate3(1, 4, 5, 6, parse.NOWHERE, 9, 0, parse.NOWHERE)
    assert [getattr(cat, name) for name in inputs(cat)] == [4, 5, 6]
    assert inputs(schema.XNNAdd(1, 2, 3, 0)) == ["input1_id", "input2_id"]
    assert inputs(schema.XNNClamp(7, 8, 0)) == ["input_id"]


SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@given(SHAPES, st.integers(0, 2), st.integers(0, 2**32 - 1))
def test_the_layout_of_a_parameter_is_found_by_its_bytes(shape, which, seed):
    own = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    every = [tuple(range(own.ndim))] + ([(0, 2, 3, 1), (1, 2, 3, 0)] if own.ndim == 4 else [])
    held = own.transpose(every[which % len(every)]).tobytes()
    found, axes = _layout(own, held)
    assert found == own.shape
    assert own.transpose(axes).tobytes() == held


def test_bytes_that_no_rule_leads_to():
    own = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert _layout(own, (own * 2).tobytes()) is None
    assert _layout(own, own.T.tobytes()) is None
    assert _layout(own.astype(np.float64), own.astype(np.float64).tobytes()) is None
    assert _layout(None, b"") is None


def names(sheet, *constants):
    """Return the names of a graph that adds so many constants to what comes in."""
    source = 0
    for constant in constants:
        held = sheet.new((4,))
        sheet.constants[held] = np.float32(constant).tobytes() * 4
        result = sheet.new((4,))
        sheet.add("Add", "n", input1_id=source, input2_id=held, output_id=result)
        source = result
    return list(sheet.finish().data)


@pytest.fixture
def again(sheet):
    """Return the sheet's twin."""
    return Sheet(sheet.part, {"w": np.arange(6, dtype=np.float32)})


def test_constants_are_numbered_under_one_digest_of_all(sheet):
    found = names(sheet, 3, 1, 2)
    assert [name.split(".")[1] for name in found] == ["0", "1", "2"]
    assert [len(name.split(".")[0]) for name in found] == [8] * 3
    assert len({name.split(".")[0] for name in found}) == 1


def test_no_name_stands_in_another_files_graph(sheet, again):
    # A runtime may keep what it has packed under a constant's name: another constant must not have it.
    assert not set(names(sheet, 3, 1)) & set(names(again, 3, 2))


def test_the_same_constants_have_the_same_names(sheet, again):
    assert names(sheet, 3, 1) == names(again, 3, 1)
