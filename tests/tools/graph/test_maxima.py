"""Maxima of whole axes of which only the values are read."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that the field uses

from haversack.tools.graph.canonical import op_name, to_model
from haversack.tools.graph.maxima import without_places

X = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
REPLACED = {
    "of an image": (lambda x: F.adaptive_max_pool2d(x, 1), "amax"),
    "of an image, both lengths said": (lambda x: F.adaptive_max_pool2d(x, (1, 1)), "amax"),
    "of a line": (lambda x: F.adaptive_max_pool1d(x.flatten(2), 1), "amax"),
    "along an axis": (lambda x: x.max(1)[0], "amax"),
    "along the last, kept": (lambda x: x.max(-1, keepdim=True).values, "amax"),
    "the least": (lambda x: x.min(2)[0], "amin"),
}
KEPT = {
    "places too": lambda x: x.max(1)[0] + x.max(1)[1],
    "values and places of one": lambda x: sum(x.max(1)),
    "to several places": lambda x: F.adaptive_max_pool2d(x, 2),
    "of all": lambda x: x.max() + x,
    "of two tensors": lambda x: torch.max(x, -x),
}


def exported(call):
    class Net(nn.Module):
        def forward(self, x):
            return call(x)

    return torch.export.export(Net(), (X,), dynamic_shapes=({0: torch.export.Dim.AUTO},))


def ops(program):
    return [op_name(node) for node in program.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("name", REPLACED)
def test_one_op_takes_the_place_of_two(name):
    call, wanted = REPLACED[name]
    program = without_places(exported(call))
    assert wanted in ops(program)
    assert "getitem" not in ops(program)
    assert to_model(program, "one").outputs, "what leaves the model is known by its new name"
    for rows in (X, X[:1].repeat(5, 1, 1, 1)):  # the batch stays free
        assert torch.equal(program.module()(rows), call(rows))


@pytest.mark.parametrize("name", KEPT)
def test_what_is_read_otherwise_stays(name):
    before = exported(KEPT[name])
    before.graph_module.graph.eliminate_dead_code()
    known = ops(before)
    program = without_places(before)
    if name == "places too":  # two calls, of which one gives a value alone
        assert "max" in ops(program)
    else:
        assert ops(program) == known
    assert torch.equal(program.module()(X), KEPT[name](X))


def test_where_it_stood_is_known():
    program = without_places(exported(REPLACED["of an image"][0]))
    (node,) = [node for node in program.graph.nodes if node.op == "call_function"]
    assert op_name(node) == "amax"
    assert node.meta["val"].shape[1:] == (3, 1, 1)
    assert "nn_module_stack" in node.meta
