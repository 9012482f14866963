"""The vocabulary that this runtime's demands are stated in."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.constraints import Constraints
from haversack.targets.executorch import ExecuTorch
from haversack.targets.onnxruntime import OnnxRuntime

TARGET = ExecuTorch()


def test_adds_and_means_have_ratios(zoo):
    found = TARGET.constraints(zoo["resnet"][0].graph)
    outputs = {ratio.output for ratio in found.ratios}
    assert outputs == {
        "blocks.0:relu#1:out",
        "blocks.1:relu#1:out",
        ":adaptive_avg_pool2d#0:out",
    }
    (mean,) = [ratio for ratio in found.ratios if "pool" in ratio.output]
    assert (mean.denominator, mean.multiple) == (501, 4)  # 6 * 6 = 2^2 * 9 values


def test_clamps_bound_the_grid(zoo):
    found = TARGET.constraints(zoo["sequence"][0].graph)
    assert found.bounds == {"act:hardtanh#0:out": (-0.5, 0.5)}


def test_moved_values_are_tied(zoo):
    ties = TARGET.constraints(zoo["branches"][0].graph).ties
    assert any({":cat#0:out", "right:conv2d#0:out"} <= tie for tie in ties)
    assert any({":cat#0:out", ":max_pool2d#0:out"} == tie for tie in ties)


def test_the_union_with_onnx_runtime_is_no_contradiction(zoo):
    for name in ("resnet", "branches", "padded"):
        graph = zoo[name][0].graph
        both = Constraints.union([TARGET.constraints(graph), OnnxRuntime().constraints(graph)])
        assert {"conv2d"} <= both.integer_ops


@pytest.mark.parametrize("op", ["expand", "pixel_shuffle"])
def test_moves_without_a_kernel_are_no_integer_ops(exported, op):
    import torch

    class Move(torch.nn.Module):
        def forward(self, x):
            return x.expand(-1, 4, 2, 2) if op == "expand" else torch.nn.functional.pixel_shuffle(x, 2)

    shape = (2, 4, 1, 1) if op == "expand" else (2, 4, 2, 2)
    graph = exported(Move(), np.zeros(shape, np.float32)).graph
    assert op in {node.op for node in graph.nodes}
    assert op not in TARGET.constraints(graph).integer_ops
