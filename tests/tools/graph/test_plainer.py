"""Ops that few runtimes have, in plainer ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from haversack.tools.graph.canonical import op_name, to_model
from haversack.tools.graph.plainer import COMPOSED, plainer

X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
CALLS = {
    "einsum": lambda x: torch.einsum("nchw,ndhw->ncd", x, x),
    "tile": lambda x: torch.tile(x, (1, 1, 2, 1)),
    "outer": lambda x: torch.outer(x.mean((1, 2, 3)), torch.arange(3.0)),
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.5),
    "addcdiv": lambda x: torch.addcdiv(x, x, x.abs() + 1, value=0.5),
    "baddbmm": lambda x: torch.baddbmm(x[:, 0], x[:, 1], x[:, 2]),
    "logsumexp": lambda x: x.logsumexp(1),
    "cosine_similarity": lambda x: torch.cosine_similarity(x, x.flip(1), dim=1),
    "tril": lambda x: x.tril(),
    "triu": lambda x: x.triu(1),
}


class Net(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.first, self.call = nn.Conv2d(3, 3, 1), call

    def forward(self, x):
        return self.call(self.first(x))


def exported(call):
    return torch.export.export(Net(call).eval(), (X,), dynamic_shapes=({0: torch.export.Dim.AUTO},))


def ops(program):
    return {op_name(node) for node in program.graph.nodes if node.op == "call_function"}


@pytest.mark.parametrize("name", CALLS)
def test_it_is_written_by_others_and_computes_the_same(name):
    program = exported(CALLS[name])
    assert name in ops(program), "or the table tries nothing"
    made = plainer(program)
    assert not ops(made) & COMPOSED
    wide = X.repeat(3, 1, 1, 1)
    for rows in (X, wide):
        assert torch.allclose(made.module()(rows), program.module()(rows), atol=1e-5)
    keys = {node.key for node in to_model(made, "one").graph.nodes}
    assert "first:conv2d#0" in keys, "module paths stay"


def test_a_program_without_them_is_left_alone():
    program = exported(torch.relu)
    assert plainer(program) is program
