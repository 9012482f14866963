"""Multiply-accumulates by op, beside PyTorch's own counter of floating-point operations (two for each)."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode


class Calls(nn.Module):
    """A module of one expression over its inputs."""

    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, x, y=None):
        return self.call(x) if y is None else self.call(x, y)


IMAGE, WAVE, ROWS = (2, 6, 9, 7), (2, 6, 11), (2, 6)
LAYERS = {
    "a dense convolution": (nn.Conv2d(6, 4, 3, padding=1), IMAGE),
    "a stride": (nn.Conv2d(6, 4, 3, stride=2), IMAGE),
    "a kernel that is not square": (nn.Conv2d(6, 4, (1, 5), padding=(0, 2)), IMAGE),
    "a dilation": (nn.Conv2d(6, 4, 3, dilation=2), IMAGE),
    "groups": (nn.Conv2d(6, 4, 3, groups=2), IMAGE),
    "a depthwise convolution": (nn.Conv2d(6, 6, 3, groups=6), IMAGE),
    "more outputs than channels": (nn.Conv2d(6, 12, 3, groups=6, bias=False), IMAGE),
    "a point": (nn.Conv2d(6, 4, 1), IMAGE),
    "a wave": (nn.Conv1d(6, 4, 3, padding=1), WAVE),
    "a wave in groups": (nn.Conv1d(6, 4, 3, groups=2), WAVE),
    "a transposed convolution": (nn.ConvTranspose2d(6, 4, 3, stride=2), IMAGE),
    "a transposed convolution in groups": (nn.ConvTranspose2d(6, 4, 2, groups=2), IMAGE),
    "a transposed wave": (nn.ConvTranspose1d(6, 4, 3), WAVE),
    "a linear layer": (nn.Linear(6, 4), ROWS),
    "a linear layer over tokens": (nn.Linear(6, 4, bias=False), (2, 5, 6)),
    "a linear layer over places": (nn.Linear(7, 3), IMAGE),
}
PRODUCTS = {
    "matmul": (torch.matmul, (2, 3, 5, 4), (2, 3, 4, 6)),
    "a product of batches": (torch.bmm, (2, 5, 4), (2, 4, 6)),
    "a batch added to": (lambda x, y: torch.baddbmm(x.new_ones(2, 5, 6), x, y), (2, 5, 4), (2, 4, 6)),
    "an einsum": (lambda x, y: torch.einsum("bij,bjk->bik", x, y), (2, 5, 4), (2, 4, 6)),
    "an einsum that sums batches": (lambda x, y: torch.einsum("bij,bjk->ik", x, y), (2, 5, 4), (2, 4, 6)),
}
NOTHING = {
    "a relu": torch.relu,
    "a sum": lambda x: x.sum(1),
    "a pool": lambda x: functional.max_pool2d(x, 2),
    "a mean": lambda x: x.mean((2, 3)),
    "an einsum of one tensor": lambda x: torch.einsum("bchw->bhwc", x),
    "a softmax": lambda x: torch.softmax(x, 1),
}


def counted(module, *inputs):
    """Return half of what PyTorch counts, for one sample."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return counter.get_total_flops() // 2 // len(inputs[0])


@pytest.mark.parametrize("name", LAYERS)
def test_layers_count_as_pytorch_counts(model_of, name):
    module, shape = LAYERS[name]
    x = torch.randn(shape)
    model = model_of(module, x)
    assert model.macs == counted(module.eval(), x) > 0
    assert [node.macs for node in model.graph.nodes if node.op != "input"] == [model.macs]


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_two_tensors_count_as_pytorch_counts(model_of, name):
    call, *shapes = PRODUCTS[name]
    inputs = tuple(torch.randn(shape) for shape in shapes)
    module = Calls(call)
    assert model_of(module, *inputs, free=[{}, {}]).macs == counted(module, *inputs) > 0


@pytest.mark.parametrize("name", NOTHING)
def test_what_is_no_sum_of_products_counts_nothing(model_of, name):
    assert model_of(Calls(NOTHING[name]), torch.randn(IMAGE)).macs == 0


def test_attention_is_two_products(model_of):
    """PyTorch's counter does not see into the kernel of a CPU."""
    module = Calls(lambda x, y: functional.scaled_dot_product_attention(x, y, y))
    model = model_of(module, torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4), free=[{}, {}])
    assert model.macs == 3 * (5 * 7 * 4 + 5 * 7 * 4)


def test_the_batch_of_the_example_changes_nothing(model_of):
    module = nn.Sequential(nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(140, 3))
    counts = {model_of(module, torch.randn(size, 6, 9, 7)).macs for size in (2, 3, 5)}
    assert counts == {7 * 5 * 4 * 6 * 9 + 140 * 3}


def test_an_ellipsis_is_not_guessed_at(model_of):
    module = Calls(lambda x, y: torch.einsum("...ij,...jk->...ik", x, y))
    inputs = torch.randn(2, 5, 4), torch.randn(2, 4, 6)
    model = model_of(module, *inputs, free=[{}, {}])
    assert [node.op for node in model.graph.nodes if node.op == "einsum"] == ["einsum"]
    assert model.macs == 0
