"""Ops that write into an argument: which are harmless, and which leak through a view."""

import pytest
import torch
from torch import nn

from haversack.tools.graph.writes import leaking, without_writes


class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def through_a_view(x):
    y = x * 2
    y[:, 0] = 1
    return y


def seen_twice(x):
    y = x * 2
    z = y.sigmoid()
    y.relu_()
    return y + z


def half_of_a_chunk(x):
    y = x * 2
    a, _ = y.chunk(2, 1)
    a.relu_()
    return y


def maybe_a_view(x):
    y = x * 2
    y.reshape(-1).relu_()
    return y


def seen_through_another_view(x):
    y = (x * 2).view(-1)
    y.view(2, 4).relu_()
    return y


def idle_dropout(x):
    return nn.functional.dropout((x * 2).flatten(1), 0.5, training=False, inplace=True)


LEAKS = [
    (lambda x: (x * 2).relu_(), 0),
    (lambda x: (x * 2).relu_().mul_(3).clamp_(0, 1), 0),
    (lambda x: x.relu_(), 0),
    (lambda x: x * 2, 0),
    (through_a_view, 1),
    (seen_twice, 1),
    (half_of_a_chunk, 1),
    (maybe_a_view, 1),
    (seen_through_another_view, 1),
    (lambda x: (x * 2).flatten().view(4, 2).relu_(), 0),
    (lambda x: (x * 2)[:, 1:3].relu_(), 0),
    (idle_dropout, 0),
]


@pytest.mark.parametrize("function, count", LEAKS)
def test_which_writes_leak(function, count):
    program = torch.export.export(Call(function), (torch.randn(2, 4),))
    assert len(leaking(program.graph)) == count


@pytest.mark.parametrize("function, count", LEAKS)
def test_values_stay_the_same(function, count):
    module = torch.export.export(Call(function), (torch.randn(2, 4),)).module(check_guards=False)
    x = torch.randn(2, 4)
    wanted = Call(function)(x.clone())
    without_writes(module)
    kept = x.clone()
    assert torch.equal(module(x), wanted)
    if not count:
        assert torch.equal(x, kept), "the caller's tensor is untouched"
        assert not any(str(node.target).endswith("_.default") for node in module.graph.nodes)


def test_functional_programs_leak_nothing():
    program = torch.export.export(Call(through_a_view), (torch.randn(2, 4),)).run_decompositions({})
    assert leaking(program.graph) == []
