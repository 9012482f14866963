"""Batch norms that a decomposition wrote as another op are batch norms again, under the same keys and values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from haversack.load.quiet import quiet
from haversack.tools.graph.canonical import op_name, to_model
from haversack.tools.graph.execute import Executor
from haversack.tools.graph.norms import name_norms
from haversack.tools.graph.rewrite import rewrite

WRITTEN_OUT = "_native_batch_norm_legit_no_training"


def shaken(module):
    torch.manual_seed(3)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.uniform_(-1, 1)
            part.running_var.uniform_(0.3, 3)
    return module.eval()


def exported(module, x):
    with quiet():
        return torch.export.export(shaken(module), (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},), strict=False)


def decomposed(module, x):
    with quiet():
        return exported(module, x).run_decompositions({})


def ops(program):
    return [op_name(node) for node in program.graph.nodes if node.op == "call_function"]


NETS = {
    "behind a convolution": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), (3, 6, 6)),
    "of a line": (nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4, eps=0.1), nn.ReLU()), (3, 6)),
    "without scale": (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False), nn.ReLU()), (3,)),
    "as the output": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), (3, 6, 6)),
    "twice": (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), (3, 5, 5)),
}


@pytest.mark.parametrize("name", NETS)
def test_a_decomposed_model_is_the_model(name):
    module, shape = NETS[name]
    x = torch.randn(2, *shape)
    program = decomposed(module, x)
    assert WRITTEN_OUT in ops(program)
    found, wanted = to_model(program, "net"), to_model(exported(module, x), "net")
    assert ops(found.program) == ops(wanted.program)
    assert [node.key for node in found.graph.nodes] == [node.key for node in wanted.graph.nodes]
    for one, other in zip(found.graph.nodes, wanted.graph.nodes, strict=True):
        assert (one.op, one.inputs, one.output) == (other.op, other.inputs, other.output)
        assert (one.weight, one.bias, one.parameters) == (other.weight, other.bias, other.parameters)
        assert one.attributes == other.attributes
    array = np.random.default_rng(0).normal(size=(5, *shape)).astype(np.float32)
    np.testing.assert_array_equal(Executor(found).run((array,))[0], Executor(wanted).run((array,))[0])
    np.testing.assert_allclose(
        Executor(found).run((array,))[0], module(torch.from_numpy(array)).detach().numpy(), atol=1e-6
    )


def test_the_model_can_be_rewritten():
    module, shape = NETS["behind a convolution"]
    model = to_model(decomposed(module, torch.randn(2, *shape)), "net")
    again = rewrite(model, lambda _: None, "as it was")
    assert [node.key for node in again.graph.nodes] == [node.key for node in model.graph.nodes]


def test_a_norm_by_the_batchs_own_statistics_stays():
    class Own(nn.Module):
        def forward(self, x):
            return torch.ops.aten.native_batch_norm(x, None, None, None, None, True, 0.1, 1e-5)[0]

    program = exported(Own(), torch.randn(2, 3, 4))
    before = ops(program)
    name_norms(program)
    assert ops(program) == before
    assert "batch_norm" not in before


def test_a_norm_whose_statistics_are_read_stays_beside():
    class Read(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x):
            one = self.norm
            found, mean, _ = torch.ops.aten.native_batch_norm(
                x, one.weight, one.bias, one.running_mean, one.running_var, False, 0.1, 1e-5
            )
            return found, mean + 1

    x = torch.randn(2, 3, 4)
    module = Read()
    program = exported(module, x)
    name_norms(program)
    assert ops(program).count("batch_norm") == 1
    assert "native_batch_norm" in ops(program)
    with quiet():
        found = program.module(check_guards=False)(x)
    for one, other in zip(found, module(x), strict=True):
        torch.testing.assert_close(one, other)


def test_nothing_to_name_changes_nothing():
    program = exported(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), torch.randn(2, 3))
    graph = str(program.graph)
    name_norms(program)
    assert str(program.graph) == graph
