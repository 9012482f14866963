"""Which layers are one product of matrices: what a 1x1 convolution must be like."""

import pytest
import torch
from torch import nn

from haversack.tools.graph.canonical import to_model
from haversack.tools.graph.demands import demands
from haversack.tools.graph.roles import Role, is_product, role

IMAGE = (2, 18, 6, 6)


@pytest.mark.parametrize(
    "module, shape, expected",
    [
        (nn.Conv2d(18, 5, 1), IMAGE, True),
        (nn.Conv2d(18, 5, 1, bias=False), IMAGE, True),
        (nn.Conv2d(18, 18, 3, padding=1), IMAGE, False),
        (nn.Conv2d(18, 18, 3, padding=1, groups=9), IMAGE, False),  # as many products as a plain 1x1 has
        (nn.Conv2d(18, 18, 1, groups=18), IMAGE, False),
        (nn.Conv2d(18, 18, 1, groups=2), IMAGE, False),
        (nn.Conv2d(18, 5, 1, stride=2), IMAGE, False),
        (nn.Conv2d(18, 5, 1, stride=2, padding=3), IMAGE, False),  # the size stays, the places do not
        (nn.Conv2d(18, 5, 1, padding=1), IMAGE, False),
        (nn.Conv2d(18, 5, (1, 3), padding=(0, 1)), IMAGE, False),
        (nn.Conv1d(18, 5, 1), (2, 18, 6), False),
        (nn.Linear(6, 3), IMAGE, True),
        (nn.Linear(18, 3), (2, 18), True),
        (nn.ReLU(), IMAGE, False),
    ],
)
def test_products(module, shape, expected):
    program = torch.export.export(module.eval(), (torch.zeros(shape),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    graph = to_model(program, "one").graph
    (node,) = (node for node in graph.nodes if role(node) is not Role.INPUT)
    assert is_product(graph, node) is expected
    assert demands(graph).widths == ({node.key: {4}} if expected else {})
    assert demands(graph, widths=(2, 3)).widths == ({node.key: {2, 3}} if expected else {})


def test_a_convolution_over_images_of_any_size_is_not_known_to_be_one():
    free = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    program = torch.export.export(nn.Conv2d(4, 5, 1).eval(), (torch.zeros(2, 4, 8, 9),), dynamic_shapes=(free,))
    graph = to_model(program, "free").graph
    assert not any(is_product(graph, node) for node in graph.nodes)


def test_a_layer_without_a_kernel_has_none_for_four_bits():
    program = torch.export.export(nn.Linear(4, 2).eval(), (torch.zeros(2, 4),))
    graph = to_model(program, "none").graph
    assert demands(graph, without=frozenset({"linear"})).widths == {}
    assert demands(graph, narrow=lambda _, node: node.op != "linear").widths == {}
