"""Masks and spreading in fewer ops: what is a view becomes one, what always holds goes, all computes what it did."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from haversack.tools.graph.canonical import op_name, to_model
from haversack.tools.graph.execute import Executor
from haversack.tools.graph.masks import without_lookups


class Of(nn.Module):
    """A module that computes a function of a boolean mask [batch, length] and scores [batch, 2, length, length]."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, mask, scores):
        return self.function(mask, scores)


def places(mask):
    """Return indices of every place: rows with three axes of length 1 behind them, columns with three before."""
    rows = torch.arange(mask.shape[0])[:, None, None, None]
    columns = (torch.arange(mask.shape[1]) + 0)[None, None, None, :]
    return rows, columns


def padding(mask, scores):
    """As language models write a padding mask: looked up, and-ed with what a counter meets, spread."""
    rows, columns = places(mask)
    up = torch.arange(mask.shape[1])[None, None, :, None]
    seen = up.new_ones((), dtype=torch.bool) & (up >= 0) & mask[rows, columns]
    spread = seen.expand(mask.shape[0], -1, mask.shape[1], mask.shape[1])
    return torch.where(spread, scores, -1e9)


def whole(mask, scores):
    return scores * mask[torch.arange(mask.shape[0])[:, None], torch.arange(mask.shape[1])[None, :]][:, None, None, :]


def first_axis(mask, scores):
    return scores * mask[torch.arange(mask.shape[0])][:, None, None, :]


def causal(mask, scores):
    up = torch.arange(mask.shape[1])
    return torch.where((up[:, None] >= up[None, :])[None, None] & mask[:, None, None, :], scores, -1.0)


def shifted(mask, scores):
    rows, columns = places(mask)
    return scores * mask[rows, (columns + 1) % mask.shape[1]]


def from_one(mask, scores):
    rows = torch.arange(mask.shape[0])[:, None]
    return scores[:, :, 1:, 1:] * mask[rows, torch.arange(1, mask.shape[1])[None, :]][:, None, None, :]


def crossed(mask, scores):
    rows, columns = torch.arange(mask.shape[0])[None, :], torch.arange(mask.shape[1])[:, None]
    return scores.sum() * mask[rows, columns]


def above(mask, scores):
    return torch.where((torch.arange(mask.shape[1]) >= 1)[None, None, None, :] & mask[:, None, None, :], scores, -1.0)


def grown(mask, scores):
    """The reader of the ``and`` sees the shape that the condition gives it."""
    both = torch.ones(4, 1, 1, dtype=torch.bool) & mask
    return both.reshape(4, -1).float().sum(dim=1) + scores.sum()


def exported(function):
    length = torch.export.Dim("length", min=3, max=64)
    example = (torch.ones(2, 5, dtype=torch.bool), torch.zeros(2, 2, 5, 5))
    shapes = ({0: torch.export.Dim.AUTO, 1: length}, {0: torch.export.Dim.AUTO, 2: length, 3: length})
    return torch.export.export(Of(function).eval(), example, dynamic_shapes=(shapes,)[0], strict=False)


def ops(program):
    model = to_model(program, "m", input_names=["mask", "scores"], output_names=["y"])
    return [node.op for node in model.graph.nodes]


def run(program, seed=0, count=3, length=7):
    rng = np.random.default_rng(seed)
    mask = rng.random((count, length)) < 0.6
    scores = rng.normal(size=(count, 2, length, length)).astype(np.float32)
    model = to_model(program, "m", input_names=["mask", "scores"], output_names=["y"])
    return Executor(model).run((mask, scores))[0]


@pytest.mark.parametrize("function", [padding, whole, first_axis])
def test_a_lookup_of_every_place_becomes_a_view(function):
    program = exported(function)
    before, result = ops(program), run(program)
    after = ops(without_lookups(program))
    assert "index" in before
    assert not {"index", "arange", "ge", "__and"} & set(after), after
    np.testing.assert_array_equal(run(program), result)


@pytest.mark.parametrize("function", [shifted, from_one, crossed])
def test_a_lookup_of_other_places_stays(function):
    program = exported(function)
    result = run(program)
    assert "index" in ops(without_lookups(program))
    np.testing.assert_array_equal(run(program), result)


@pytest.mark.parametrize("function", [causal, above, grown])
def test_a_condition_that_does_not_always_hold_or_gives_the_shape_stays(function):
    program = exported(function)
    result = run(program)
    assert {"__and", "bitwise_and"} & set(ops(without_lookups(program)))
    np.testing.assert_array_equal(run(program), result)


def test_what_takes_the_place_of_a_lookup_belongs_to_its_module():
    program = without_lookups(exported(padding))
    made = [node for node in program.graph.nodes if op_name(node) == "unsqueeze"]
    assert [node.meta["val"].dim() for node in made][-2:] == [3, 4]
    assert all("nn_module_stack" in node.meta for node in made)


def test_a_program_without_masks_stays_as_it_is():
    program = torch.export.export(nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval(), (torch.zeros(2, 4),))
    before = [node.name for node in program.graph.nodes]
    assert [node.name for node in without_lookups(program).graph.nodes] == before


class Typed(nn.Module):
    """Token embeddings with those of types that a buffer gives, as language models look them up when none are given."""

    def __init__(self, types, reader):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.kinds = nn.Embedding(11, 6), nn.Embedding(3, 6)
        self.register_buffer("types", torch.tensor([types]), persistent=False)
        self.reader = reader

    def forward(self, ids):
        places = torch.arange(ids.shape[1])[None, :]
        types = torch.gather(self.types.expand(1, -1), 1, places).expand(ids.shape[0], ids.shape[1])
        return self.reader(self.words(ids), self.kinds(types))


def typed(types, reader):
    ids = torch.zeros(2, 5, dtype=torch.int64)
    shapes = ({0: torch.export.Dim.AUTO, 1: torch.export.Dim("length", min=3, max=8)},)
    return torch.export.export(Typed(types, reader).eval(), (ids,), dynamic_shapes=shapes, strict=False)


def embedded(program):
    model = to_model(program, "m", input_names=["ids"], output_names=["y"])
    kinds = next(node for node in model.graph.nodes if node.key.startswith("kinds:embedding"))
    return kinds.output.shape, Executor(model).run((np.arange(21).reshape(3, 7) % 11,))[0]


def test_the_embedding_of_ids_that_are_the_same_everywhere_is_that_of_one():
    program = typed([2] * 8, torch.add)
    before, result = embedded(program)
    after, again = embedded(without_lookups(program))
    assert before == ("batch", "ids_1", 6)
    assert after == (1, 1, 6)
    assert "gather" not in [op_name(node) for node in program.graph.nodes]
    np.testing.assert_array_equal(again, result)


@pytest.mark.parametrize(
    "types, reader",
    [
        ([2] * 7 + [1], torch.add),
        ([2] * 8, lambda words, kinds: torch.cat([words, kinds], dim=2)),
        ([2] * 8, lambda words, kinds: words[:, :1] + kinds),
        ([2] * 8, lambda words, kinds: (kinds + kinds).sum(1) + words.sum(1)),
    ],
    ids=["ids differ", "a reader that spreads nothing", "no other operand has the shape", "no other operand"],
)
def test_an_embedding_that_gives_the_shape_or_differs_stays(types, reader):
    program = typed(types, reader)
    before, result = embedded(program)
    after, again = embedded(without_lookups(program))
    assert after == before
    np.testing.assert_array_equal(again, result)


def divided(mask, scores):
    """As ``normalize`` does it: norms of rows, spread to what they divide."""
    return nn.functional.normalize(scores * mask[:, None, None, :], dim=-1)


def read_twice(mask, scores):
    means = scores.mean(-1, keepdim=True).expand_as(scores)
    return (scores - means) * mask[:, None, None, :].expand(-1, 2, scores.shape[2], -1) * means


def by_itself(mask, scores):
    spread = mask[:, None, None, :].float().expand(-1, 2, scores.shape[2], -1)
    return (spread * spread).sum(1) + scores[:, 0]


def against_fewer(mask, scores):
    return (scores[:, :1] - scores.sum(1, keepdim=True).expand_as(scores)).sum(1)


def more_axes(mask, scores):
    return scores * mask.float().sum().expand_as(scores)


def joined(mask, scores):
    norms = scores.norm(dim=-1, keepdim=True).expand_as(scores)
    return torch.cat([scores / norms, norms], dim=1) * mask[:, None, None, :]


def added(mask, scores):
    return scores + (scores * mask[:, None, None, :]).sum(-1, keepdim=True).expand_as(scores)


@pytest.mark.parametrize("function", [divided, read_twice])
def test_what_an_op_spreads_by_itself_is_not_spread_before_it(function):
    program = exported(function)
    before, result = ops(program), run(program)
    after = ops(without_lookups(program))
    assert {"expand", "expand_as"} & set(before)
    assert not {"expand", "expand_as"} & set(after), after
    np.testing.assert_array_equal(run(program), result)


@pytest.mark.parametrize("function", [by_itself, against_fewer, more_axes, joined, added])
def test_what_gives_the_shape_or_is_read_otherwise_stays_spread(function):
    program = exported(function)
    result = run(program)
    assert {"expand", "expand_as"} & set(ops(without_lookups(program)))
    np.testing.assert_array_equal(run(program), result)
