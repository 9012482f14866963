"""The files while they are made: copies of blobs, names, shapes."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.targets.ncnn.blobs import read
from haversack.targets.ncnn.naming import key_of
from haversack.targets.ncnn.sheet import Sheet, Value, hint, sizes
from haversack.targets.ncnn.text import parse


@pytest.fixture
def sheet():
    made = Sheet()
    made.layer("Input", "x", (), Value("x", (2, 3)), {0: 3, 1: 2})
    return made


def lines(sheet):
    return parse(sheet.files()[0].encode(), "any")


@pytest.mark.parametrize("readers", [1, 2, 3, 5])
def test_a_blob_is_split_once_for_all_its_readers(sheet, readers):
    for number in range(readers):
        sheet.layer("ReLU", f"layer{number}", [Value("x", (2, 3))], Value(f"y{number}", (2, 3)))
    found = lines(sheet)
    splits = [line for line in found if line.type == "Split"]
    assert len(splits) == (readers > 1)
    if splits:
        assert splits[0].outputs == tuple(f"x/{number}" for number in range(readers))
        assert [line.inputs[0] for line in found if line.type == "ReLU"] == list(splits[0].outputs)
        assert found.index(splits[0]) == 1, "directly behind the layer that makes it"


def test_a_layer_that_reads_a_blob_twice_reads_two_copies(sheet):
    sheet.layer("BinaryOp", "twice", [Value("x", (2, 3))] * 2, Value("y", (2, 3)), {0: 0})
    assert lines(sheet)[-1].inputs == ("x/0", "x/1")


def test_files_are_the_same_when_they_are_asked_for_again(sheet):
    for number in range(2):
        sheet.layer("ReLU", f"layer{number}", [Value("x", (2, 3))], Value(f"y{number}", (2, 3)))
    assert sheet.files() == sheet.files()


def test_a_name_that_is_taken_gets_a_number(sheet):
    for number in range(3):
        sheet.layer("MemoryData", "same", (), Value(f"y{number}", (1,)))
    assert [line.name for line in sheet.lines] == ["x", "same", "same.1", "same.2"]


@pytest.mark.parametrize(
    "values, shape, wanted",
    [
        (np.arange(3.0), None, (3,)),
        (np.float32(7), None, (1,)),
        (np.arange(6.0), (2, 3), (2, 3)),
        (np.arange(6.0), (6, 1, 1), (6, 1, 1)),
    ],
)
def test_a_constant_has_its_values_and_its_shape(tmp_path, values, shape, wanted):
    sheet = Sheet()
    value = sheet.constant("c", np.asarray(values), shape)
    assert (value.shape, value.size) == (wanted, np.size(values))
    text, data = sheet.files()
    (tmp_path / "c.bin").write_bytes(data)
    found = read(tmp_path / "c.bin", parse(text.encode(), "any"))["c"]["data"].values
    np.testing.assert_array_equal(found, np.asarray(values, np.float32).reshape(-1))


SHAPES = [
    ((5,), {0: 5}, (1, 5, 1, 1)),
    ((4, 5), {0: 5, 1: 4}, (2, 5, 4, 1)),
    ((3, 4, 5), {0: 5, 1: 4, 2: 3}, (3, 5, 4, 3)),
]


@pytest.mark.parametrize("shape, parameters, told", SHAPES)
def test_a_shape_is_told_from_its_last_axis(shape, parameters, told):
    assert (sizes(shape), hint(shape)) == (parameters, told)


KEYS = {
    "one:conv2d#0": "one:conv2d#0",
    "one.two:conv2d#12/settle": "one.two:conv2d#12",
    ":add#0:out/codes": ":add#0",
    "one:conv2d#0:weight/scales": "one:conv2d#0",
    "input": "",
    "one:conv2d": "",
    "one:conv2d#": "",
    "one:conv2d#0x": "",
    "": "",
}


@pytest.mark.parametrize("name, key", KEYS.items())
def test_names_tell_the_node_that_they_are_of(name, key):
    assert key_of(name) == key
