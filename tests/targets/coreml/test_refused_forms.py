"""Arguments that have no form in a Core ML program, and weights that have none: told by their place, all together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from haversack.base.encodings import Affine, Codebook, Encodings, Float
from haversack.base.errors import ConversionError
from haversack.targets.coreml import CoreML

IMAGE = (2, 6, 8, 8)
REFUSED = {
    "a pad that cuts": lambda m, x: functional.pad(x, (-1, 0)),
    "windows with holes": lambda m, x: functional.max_pool2d(x, 2, dilation=2),
    "a divisor of its own": lambda m, x: functional.avg_pool2d(x, 2, divisor_override=3),
    "more than one axis is indexed": lambda m, x: x[:, torch.tensor([0, 1]), torch.tensor([2, 3])],
    "indices that are computed": lambda m, x: x[:, (x[0, :, 0, 0] > 0).long()],
    "limits that are tensors": lambda m, x: torch.clamp(x, min=m.p),
    "constants other than 1": lambda m, x: torch.ops.aten.elu(x, 1.0, 1.5),
    "a factor alpha": lambda m, x: torch.rsub(x, x, alpha=2),
    "a product with a vector": lambda m, x: x @ m.p.reshape(-1)[:8],
    "its weight is computed": lambda m, x: functional.linear(x, x[0, 0, :4]),
    "dropout, a causal flag or grouped": lambda m, x: functional.scaled_dot_product_attention(x, x, x, is_causal=True),
}


class Call(nn.Module):
    """One function of one input and one parameter."""

    def __init__(self, function):
        super().__init__()
        self.function, self.p = function, nn.Parameter(torch.ones(2, 6, 1, 1))

    def forward(self, x):
        return self.function(self, x)


@pytest.mark.parametrize("cause", REFUSED)
def test_a_form_that_is_not_there_is_told_with_its_cause(exported, tmp_path, cause):
    model = exported(Call(REFUSED[cause]), np.ones(IMAGE, np.float32), free=())
    found = CoreML().refusals(model)
    assert any(cause in fault.cause for fault in found), found or [node.op for node in model.graph.nodes]
    assert all(fault.where in model.graph.by_key for fault in found)
    with pytest.raises(ConversionError):
        CoreML().lower(model, Encodings.none(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def grid(*scales, bits=8, axis=0, signed=True):
    scale = np.array(scales, np.float32) if axis is not None else np.array(scales[0], np.float32)
    return Affine(bits, signed, axis, scale, np.zeros(scale.shape, np.int32))


UNSTORABLE = {
    "four bits": (grid(0.5, 0.5, bits=4), "symmetric int8, its scales along axis 0"),
    "along its inputs": (grid(0.5, 0.5, 0.5, axis=1), "symmetric int8, its scales along axis 0"),
    "unsigned": (grid(0.5, axis=None, signed=False), "symmetric int8, its scales along axis 0"),
    "a scale of more digits": (grid(0.5, 0.1), "no float16 numbers"),
    "a scale too large": (grid(0.5, 1e5), "no float16 numbers"),
    "a palette of three bits": (Codebook(3, np.arange(8, dtype=np.float32)), "indices of 1, 2, 4, 6, 8 bits"),
    "a palette of more digits": (Codebook(1, np.array([0.1, 0.2], np.float32)), "no float16 numbers"),
    "float32 said aloud": (Float("float32"), "leave it out"),
}


@pytest.mark.parametrize("name", UNSTORABLE)
def test_a_weight_that_cannot_be_stored_is_told_by_its_key(exported, tmp_path, name):
    encoding, cause = UNSTORABLE[name]
    model = exported(nn.Linear(3, 2), np.ones((2, 3), np.float32))
    (node,) = [one for one in model.graph.nodes if one.weight]
    key = f"{node.key}:weight"
    integers = {} if isinstance(encoding, Float) else {key: np.zeros((2, 3), np.int32)}
    with pytest.raises(ConversionError, match="Core ML cannot hold these encodings") as caught:
        CoreML().lower(model, Encodings({key: encoding}, integers), tmp_path)
    assert [(fault.where, cause in fault.cause) for fault in caught.value.faults] == [(key, True)]
