"""Every op that has a writer gives what PyTorch gives; what has none is refused by its key, with what replaces it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as f

from haversack.base.encodings import Encodings
from haversack.base.errors import ConversionError
from haversack.targets.ncnn import Ncnn


class Calls(nn.Module):
    """Functions of one input as a module with one parameter: an output each."""

    def __init__(self, functions):
        super().__init__()
        self.functions = tuple(functions)
        self.p = nn.Parameter(torch.linspace(-1, 1, 6).reshape(1, 6, 1, 1))

    def forward(self, x):
        return tuple(function(self, x) for function in self.functions)


class Pair(nn.Module):
    """Two inputs, three outputs."""

    def forward(self, x, y):
        return x + y, x - y, y


ONE = {
    "activations": lambda m, x: f.hardswish(x) + f.silu(x) - f.gelu(x) / 2 + torch.sigmoid(x) * torch.tanh(x),
    "more": lambda m, x: f.hardsigmoid(x) + f.elu(x) + f.leaky_relu(x, 0.2) + f.gelu(x, approximate="tanh"),
    "clamps": lambda m, x: torch.clamp(x, max=0.5) + torch.clamp(x, min=-0.25) + f.relu6(x) + f.hardtanh(x),
    "numbers": lambda m, x: 1.0 - (x + 2) * 3 - x / 4,
    "unary": lambda m, x: torch.sqrt(torch.abs(x)) + torch.exp(-x) + torch.log(torch.exp(x)),
    "parameter": lambda m, x: x * m.p + m.p,
    "broadcast": lambda m, x: x * x.mean((2, 3), keepdim=True),
    "pools": lambda m, x: f.max_pool2d(x, 2, padding=1) + f.avg_pool2d(x, 2, stride=2, padding=1),
    "average": lambda m, x: f.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False),
    "adaptive": lambda m, x: f.adaptive_avg_pool2d(x, (4, 2)),
    "means": lambda m, x: x.mean(1, keepdim=True) + x.mean(3, keepdim=True),
    "flat mean": lambda m, x: x.mean((2, 3)),
    "pad": lambda m, x: f.pad(x, (1, 2, 0, 3, 1, 0), value=0.5),
    "slices": lambda m, x: x[:, 1:5:1, 2:, :-1],
    "concat": lambda m, x: torch.cat([x, x * 2, x], 1),
    "permute": lambda m, x: x.permute(0, 2, 3, 1),
    "transpose": lambda m, x: x.transpose(1, 3).contiguous().flatten(1),
    "reshape": lambda m, x: x.reshape(-1, 12, 32).transpose(1, 2),
    "softmax": lambda m, x: torch.softmax(x, 1) + torch.softmax(x, -1),
}


@pytest.fixture(scope="module")
def answers(exported, picture, lowered_once):
    """What ncnn and torch give for every function."""
    x = picture(3, 2, 6, 8, 8)
    net = Calls(ONE.values())
    one = lowered_once(exported(net, x), Encodings.none())
    with torch.no_grad():
        wanted = [value.numpy() for value in net(torch.from_numpy(x))]
    return dict(zip(ONE, zip(one.file(x), wanted, strict=True), strict=True))


@pytest.mark.parametrize("name", ONE)
def test_an_op_gives_what_torch_gives(name, answers):
    found, wanted = answers[name]
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-5)


def test_layers_in_float_and_with_a_clamp(exported, picture, lower):
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(0, 2), dilation=(2, 1)), nn.Hardtanh(-0.5, 0.5), nn.Dropout(),
        nn.Conv2d(8, 8, 4, padding="same", groups=4), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(2),
        nn.Conv1d(8, 6, 3, padding=2), nn.Conv1d(6, 6, 3, groups=6, bias=False), nn.LayerNorm(24), nn.Linear(24, 4),
    )  # fmt: skip
    x = picture(4, 2, 3, 10, 8)
    one = lower(exported(net, x), Encodings.none())
    assert "1:hardtanh#0:out" in one.artifact.tensor_names
    assert "0:conv2d#0:out" not in one.artifact.tensor_names
    np.testing.assert_allclose(one.file(x)[0], one.reference(x)[0], rtol=1e-4, atol=1e-5)


def test_several_inputs_and_outputs_some_read_twice(exported, picture, lower):
    model = exported(Pair(), picture(0, 2, 5), picture(1, 2, 5), outputs=("a", "b", "c"))
    one = lower(model, Encodings.none())
    x, y = picture(5, 3, 5), picture(6, 3, 5)
    for mine, wanted in zip(one.file(x, y), (x + y, x - y, y), strict=True):
        np.testing.assert_array_equal(mine, wanted)
    assert [port.name for port in one.artifact.outputs] == ["a", "b", "c"]


REFUSED = {
    "ncnn has no matmul here: use litert": lambda m, x: torch.matmul(x, x.transpose(2, 3)),
    "upsample_nearest2d here: resize outside": lambda m, x: f.interpolate(x, scale_factor=2),
    "ceil_mode": lambda m, x: f.max_pool2d(x, 3, ceil_mode=True),
    "it leaves places out": lambda m, x: x[:, ::2],
    "mode reflect": lambda m, x: f.pad(x, (1, 1, 1, 1), mode="reflect"),
    "ncnn has 1 to 3": lambda m, x: x.reshape(-1, 2, 3, 8, 8) * 2,
    "computes in float32": lambda m, x: (x > 0).float(),
    "first axis is not the batch": lambda m, x: x.permute(1, 0, 2, 3) * 2,
}


def test_what_has_no_form_is_refused_by_its_key_all_at_once(exported, picture, tmp_path):
    model = exported(Calls(REFUSED.values()), picture(3, 2, 6, 8, 8))
    faults = Ncnn().refusals(model)
    assert {fault.where for fault in faults} <= {node.key for node in model.graph.nodes}
    causes = [fault.cause for fault in faults]
    assert [words for words in REFUSED if not any(words in cause for cause in causes)] == []
    with pytest.raises(ConversionError, match="does not write") as caught:
        Ncnn().lower(model, Encodings.none(), tmp_path)
    assert caught.value.faults == faults
    assert list(tmp_path.iterdir()) == []


def test_lengths_that_are_not_fixed_are_refused(exported, picture):
    flipped = Calls([lambda m, x: x.permute(1, 0, 2, 3)])
    (fault,) = Ncnn().refusals(exported(flipped, picture(3, 2, 6, 8, 8)))
    assert (fault.where, fault.cause[:15]) == (":permute#0", "its first axis ")


def test_names_that_ncnn_cannot_read_are_refused(exported, picture):
    twice = Calls([lambda m, x: x * 2])
    model = exported(twice, picture(0, 2, 4), outputs=("two words",))
    assert [fault.where for fault in Ncnn().refusals(model)] == ["two words"]
    model = exported(twice, picture(0, 2, 4), outputs=(model.inputs[0].name,))
    assert [fault.cause for fault in Ncnn().refusals(model)] == ["an input and an output have one name"]
