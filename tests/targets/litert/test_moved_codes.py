"""Ops that move codes and change none: between layers of integers they run on int8, bit for bit as the reference."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Affine
from haversack.tools.graph.roles import Role, role

MOVES = {
    "pixel_shuffle": ("F.pixel_shuffle(x, 2)", 2),
    "channel_shuffle": ("F.channel_shuffle(x, 4)", 8),
    "max_pool2d": ("F.max_pool2d(x, 3, 2, ceil_mode=True)", 8),
    "max_pool2d, padded": ("F.max_pool2d(x, 3, 2, 1, ceil_mode=True)", 8),
}


def between(code, channels):
    import torch
    from torch import nn
    from torch.nn import functional

    class Between(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(channels, 4, 1)

        def forward(self, x):
            return self.last(eval(code, {"F": functional, "x": self.first(x)}))  # noqa: S307 - the table above

    torch.manual_seed(3)
    return Between()


@pytest.mark.parametrize("name", MOVES)
def test_codes_go_through(exported, encoded, both, name):
    x = np.random.default_rng(0).normal(size=(3, 3, 6, 8)).astype(np.float32)
    model = exported(between(*MOVES[name]), x)
    encodings = encoded(model, [(x,)])
    moved = next(node for node in model.graph.nodes if node.op == name.partition(",")[0])
    assert role(moved) is Role.SAME
    assert isinstance(encodings.tensors[moved.out], Affine)
    made = both(model, encodings)
    rows = [made.file(x[row : row + 1])[0] for row in range(len(x))]
    wanted = made.reference(x)[0]
    assert np.array_equal(np.concatenate(rows), wanted)
    assert len(np.unique(wanted)) > 20, "it computes something"
