"""A network with two outputs, from sensitivities to the knapsack's choice: none is sold for another's units."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from haversack.base.plan import STATIC, LayerPlan
from haversack.base.profile import Profile
from haversack.choose import knapsack
from haversack.choose.knapsack import Limit
from haversack.choose.options import options, ways
from haversack.compress.perturb import perturb
from haversack.profile.ranges import ranges
from haversack.profile.sensitivity import sensitivity
from haversack.tools.graph.canonical import to_model

ROWS = [(np.random.default_rng(1).normal(size=(16, 24)).astype(np.float32),)]


class Heads(nn.Module):
    """Two heads of one shape, each of two layers; the second one's output in other units."""

    def __init__(self, scale):
        super().__init__()
        torch.manual_seed(0)
        self.scores = nn.Sequential(nn.Linear(24, 96), nn.ReLU(), nn.Linear(96, 5))
        self.boxes = nn.Sequential(nn.Linear(24, 96), nn.ReLU(), nn.Linear(96, 4))
        with torch.no_grad():
            self.boxes[2].weight *= scale
            self.boxes[2].bias *= scale

    def forward(self, x):
        return self.scores(x), self.boxes(x)


def chosen(scale, share):
    """Return the bits that each layer gets where the weights may take a share of their bytes in 8 bits."""
    example = (torch.zeros(2, 24),)
    program = torch.export.export(Heads(scale).eval(), example, dynamic_shapes=({0: torch.export.Dim.AUTO},))
    model = to_model(program, "heads")
    layers = {node.key: node for node in model.graph.nodes if node.weight}
    counts = {key: model.weights[node.weight].size for key, node in layers.items()}
    perturbed = partial(perturb, ranges=ranges(model, ROWS), widths=dict.fromkeys(layers, frozenset({4})))
    tried = ways(("int8", "w4a8"), light=False)
    profile = Profile({}, sensitivity(model, perturbed, ROWS, ways=lambda _: tried))
    base = {key: LayerPlan() for key in layers}
    speed = {"onnxruntime": dict.fromkeys(STATIC, 0.5)}
    items = options(
        model.graph, profile, base, weight_elements=counts, speed=speed, precisions=frozenset({"int8", "w4a8"})
    )
    found = knapsack.solve(items, [Limit("bytes", share * sum(counts.values()))])
    assert found.feasible
    return {key: option.plan.precision for key, option in found.chosen.items()}


@pytest.mark.parametrize("share", [0.65, 0.75, 0.95])
@pytest.mark.parametrize("scale", [2.0**-7, 2.0**7])
def test_the_choice_does_not_depend_on_an_outputs_units(scale, share):
    assert chosen(scale, share) == chosen(1.0, share)
