from __future__ import annotations

import pytest

from haversack.base.plan import LayerPlan
from haversack.compress.perturb import perturb

KEY = "wide:conv2d#0"


@pytest.mark.parametrize(
    "precision, tensors",
    [
        ("float32", set()),
        ("float16", {f"{KEY}:weight"}),
        ("int8_weights", {f"{KEY}:weight"}),
        ("int8_dynamic", {f"{KEY}:weight", f"{KEY}:in"}),
        ("int8", {f"{KEY}:weight", "block:add#0:out", "relu:relu#0:out"}),
    ],
)
def test_only_this_layers_unit_is_touched(folded, folded_ranges, precision, tensors):
    assert set(perturb(folded, KEY, LayerPlan(precision), ranges=folded_ranges).tensors) == tensors


def test_what_it_cannot_have_is_empty(folded, folded_ranges):
    assert not perturb(folded, "block:add#0", LayerPlan("int8"), ranges=folded_ranges).tensors
