"""Palettes and float16 scales in plans: what a layer becomes, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from haversack.base.constraints import Constraints
from haversack.base.encodings import Affine, Codebook, Encodings
from haversack.base.errors import ConversionError, JobError, UsageError
from haversack.base.plan import Plan, Step
from haversack.compress.encode import encode
from haversack.compress.palettize import palettized
from haversack.compress.plans import uniform
from haversack.targets.onnxruntime import OnnxRuntime
from haversack.targets.reference import Reference
from haversack.tools.formats import encodings_file
from haversack.tools.graph import canonical
from haversack.tools.graph.injection import differences
from haversack.tools.graph.simulate import Simulator
from haversack.tools.numerics import palette

KMEANS = Step("kmeans", {"bits": 4})


@pytest.fixture(scope="module")
def model():
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(20, 6), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    program = torch.export.export(net, (torch.zeros(2, 4, dtype=torch.long),))
    return canonical.to_model(program, "small")


@pytest.fixture
def palettes(model):
    return encode(model, Plan("coreml", uniform(model.graph, "palette", weights=KMEANS)), {}, Constraints())[0]


def test_every_layer_and_table_gets_a_palette(model, palettes):
    assert set(palettes.tensors) == {"0:embedding#0:weight", "1:linear#0:weight", "3:linear#0:weight"}
    assert all(isinstance(one, Codebook) and one.bits == 4 for one in palettes.tensors.values())
    for key, indices in palettes.integers.items():
        weight = model.weights[f"{key.partition(':')[0]}.weight"]
        assert np.abs(palette.values(indices, palettes.tensors[key]) - weight).max() < np.abs(weight).max() / 4


def test_reference_and_simulator_compute_with_the_palettes_values(model, palettes):
    ids = np.array([[1, 5, 7, 19], [0, 2, 2, 3]])
    changed = {
        f"{key.partition(':')[0]}.weight": palette.values(indices, palettes.tensors[key])
        for key, indices in palettes.integers.items()
    }
    (wanted,) = Reference().run(model.with_weights(changed), Encodings.none(), (ids,))
    np.testing.assert_allclose(Reference().run(model, palettes, (ids,))[0], wanted, rtol=1e-6)
    np.testing.assert_allclose(Simulator(model).run(palettes, [(ids,)])[0][0], wanted, rtol=1e-6)


def test_a_file_of_encodings_keeps_them(palettes):
    again = encodings_file.from_bytes(encodings_file.to_bytes(palettes))
    assert again.digest == palettes.digest
    assert differences(palettes, again)[1] == ()


def test_another_entry_or_index_is_a_difference(palettes):
    key = "3:linear#0:weight"
    book = palettes.tensors[key]
    other = Encodings({**palettes.tensors, key: replace(book, entries=book.entries + 1)}, palettes.integers)
    ((where, cause),) = [(fault.where, fault.cause) for fault in differences(palettes, other)[1]]
    assert where == key
    assert cause.startswith("palette [")
    moved = {**palettes.integers, key: palettes.integers[key] ^ 1}
    (fault,) = differences(palettes, Encodings(palettes.tensors, moved))[1]
    assert fault.cause == "24 of 24 integers differ"


def test_an_index_beyond_the_palette_is_no_encoding(palettes):
    key = "3:linear#0:weight"
    with pytest.raises(ValueError, match="none of 16 entries"):
        Encodings(palettes.tensors, {**palettes.integers, key: palettes.integers[key] + 16})


def test_a_runtime_without_palettes_refuses_them(model, palettes, tmp_path):
    with pytest.raises(ConversionError) as caught:
        OnnxRuntime().lower(model, palettes, tmp_path)
    assert all("Codebook" in fault.cause for fault in caught.value.faults)


@pytest.mark.parametrize(
    "step", [Step("mse"), Step("kmeans"), Step("kmeans", {"bits": 3}), Step("kmeans", {"bits": 4, "x": 1})]
)
def test_other_settings_are_refused(model, step):
    node = model.graph.by_key["1:linear#0"]
    with pytest.raises(UsageError, match="made by kmeans with bits of 1, 2, 4, 6, 8"):
        palettized(node, model.weights["1.weight"], step)


def test_weights_that_are_no_numbers(model):
    with pytest.raises(JobError, match="NaN"):
        palettized(model.graph.by_key["1:linear#0"], np.array([[np.nan, 1.0]], np.float32), KMEANS)


def test_float16_scales_where_they_are_demanded(model):
    plan = Plan("coreml", uniform(model.graph, "int8_weights"))
    plain, half = (encode(model, plan, {}, Constraints(half_scales=flag))[0] for flag in (False, True))
    for key, encoding in half.tensors.items():
        assert isinstance(encoding, Affine)
        assert np.array_equal(encoding.scale.astype(np.float16).astype(np.float32), encoding.scale)
        assert (encoding.scale >= plain.tensors[key].scale).all()
        assert np.allclose(encoding.scale, plain.tensors[key].scale, rtol=1e-3)
    assert half.digest != plain.digest
