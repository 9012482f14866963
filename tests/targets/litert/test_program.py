"""The exported program at fixed lengths: shapes, arguments, and what is computed beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.tools.graph.program import Constant, Flow, Program


@pytest.fixture(scope="module")
def words(exported):
    import torch
    from torch import nn

    torch.manual_seed(0)

    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.place = nn.Embedding(9, 4), nn.Embedding(16, 4)
            self.register_buffer("places", torch.arange(16)[None])
            self.out = nn.Linear(4, 2)

        def forward(self, ids):
            here = self.places[:, : ids.shape[1]]
            far = torch.arange(ids.shape[1]).float() * 2
            x = self.table(ids) + self.place(here) + far[:, None]
            return self.out(x.view(ids.shape[0] * ids.shape[1], 4)), 1.0 - x

    return exported(Words(), np.zeros((2, 5), np.int64), free=(0, 1), names=("ids",), outputs=("a", "b"))


def by_op(model, op, index=0):
    return [node for node in model.graph.nodes if node.op == op][index]


@pytest.mark.parametrize("batch, length", [(1, 3), (2, 16), (1, 1)])
def test_shapes_are_numbers(words, batch, length):
    program = Program(words, {"batch": batch, "length": length})
    assert program.shape(by_op(words, "embedding")) == (batch, length, 4)
    assert program.shape(by_op(words, "view")) == (batch * length, 4)
    assert program.shape(by_op(words, "linear")) == (batch * length, 2)


def test_arguments_have_the_names_of_the_schema(words):
    program = Program(words, {"batch": 1, "length": 3})
    linear = program.arguments(by_op(words, "linear"))
    assert isinstance(linear["input"], Flow)
    assert linear["weight"].parameter == "out.weight"
    np.testing.assert_array_equal(linear["weight"].array, words.weights["out.weight"])
    assert program.arguments(by_op(words, "view"))["size"] == [3, 4]


def test_the_order_of_arguments_is_kept(words):
    """A number less a tensor is no tensor less a number."""
    program = Program(words, {"batch": 1, "length": 3})
    node = next(node for node in words.graph.nodes if node.op in ("rsub", "sub"))
    arguments = program.arguments(node)
    assert isinstance(arguments["self"], Flow)
    assert arguments["other"] in (1, 1.0)


def test_what_depends_on_lengths_alone_is_computed(words):
    program = Program(words, {"batch": 1, "length": 3})
    floats = [array for array in program.constants.values() if array.dtype == np.float32 and array.shape == (3, 1)]
    assert any(np.array_equal(array[:, 0], [0, 2, 4]) for array in floats)
    assert by_op(words, "linear").key not in program.constants


def test_tables_are_never_computed_beforehand(words):
    """Their weights may be stored in integers: the place of each token is known, its row is looked up all the same."""
    program = Program(words, {"batch": 1, "length": 3})
    place = by_op(words, "embedding", 1)
    assert place.key not in program.constants
    indices = program.arguments(place)["indices"]
    assert isinstance(indices, Constant)
    np.testing.assert_array_equal(indices.array, [[0, 1, 2]])


def test_the_current_weights_count(words):
    changed = words.with_weights({"out.weight": np.full((2, 4), 7, np.float32)})
    program = Program(changed, {"batch": 1, "length": 2})
    assert (program.arguments(by_op(changed, "linear"))["weight"].array == 7).all()


def test_several_outputs_have_several_shapes(exported):
    from torch import nn

    class Halves(nn.Module):
        def forward(self, x):
            one, two = x.split([1, 3], -1)
            return one + two

    model = exported(Halves(), np.zeros((2, 4), np.float32))
    program = Program(model, {"batch": 1})
    assert program.shapes(by_op(model, "split_with_sizes")) == [(1, 1), (1, 3)]
    assert isinstance(program.arguments(by_op(model, "getitem"))["arg0"], Flow)
