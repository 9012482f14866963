"""What a target's integers mean: the law's, or ncnn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from haversack.base.encodings import Affine, Encodings
from haversack.flow.meaning import meaning
from haversack.targets.contract import SHELF, Target
from haversack.tools.graph import canonical


@pytest.mark.parametrize("name", SHELF.names())
def test_every_target_has_a_meaning_and_ncnn_alone_its_own(name):
    target = SHELF.build(name)
    assert target.arithmetic == ("symmetric" if name == "ncnn" else "law")
    assert meaning(target).arithmetic == target.arithmetic


@pytest.mark.parametrize(
    "arithmetic, wanted", [("law", [0.0, 2.0, -2.0, -128.0]), ("symmetric", [1.0, 2.0, -3.0, -127.0])]
)
def test_it_decides_what_a_half_and_the_lowest_code_are(arithmetic, wanted):
    class Other(Target):
        pass

    Other.arithmetic = arithmetic
    model = canonical.to_model(torch.export.export(torch.nn.ReLU6(), (torch.zeros(1, 4),)), "one")
    (source,) = model.graph.inputs
    one = Affine(8, signed=False, axis=None, scale=np.array(1, np.float32), zero_point=np.array(128, np.int32))
    seen = {}
    meaning(Other()).run(
        model,
        Encodings({f"{source}:out": one}, {}),
        (np.array([[0.5, 1.5, -2.5, -200.0]], np.float32),),
        observe=lambda key, values: seen.update({key: values.copy()}),
    )
    np.testing.assert_array_equal(seen[f"{source}:out"], [wanted])
