"""Palettes and float16 scales in plans: what a layer becomes, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from haversack.base.constraints import Constraints
from haversack.base.encodings import Affine, Codebook, Encodings
from haversack.base.errors import ConversionError, JobError, UsageError
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.compress.apply import apply
from haversack.compress.encode import encode
from haversack.compress.importance import importance
from haversack.compress.plans import uniform
from haversack.compress.rates import rates
from haversack.compress.weights import store
from haversack.targets.coreml import CoreML
from haversack.targets.executorch import ExecuTorch
from haversack.targets.litert import LiteRT
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
    for target in (LiteRT(), ExecuTorch()):
        with pytest.raises(ConversionError) as caught:
            target.lower(model, palettes, tmp_path)
        assert {fault.where for fault in caught.value.faults} == set(palettes.tensors)
        assert any("Codebook" in fault.cause for fault in caught.value.faults)


@pytest.mark.parametrize(
    ("step", "cause"),
    [
        (Step("mse"), "no palette named 'mse'"),
        (Step("kmeans", {"bits": 9}), r"bits must be in \[1, 8\], not 9"),
        (Step("kmeans", {"bits": 4, "x": 1}), "x"),
        (Step("kmeans", {"group": 3}), "groups of 3 rows do not divide the 8 rows"),
    ],
)
def test_other_settings_are_refused_and_the_layer_is_named(model, step, cause):
    with pytest.raises(UsageError, match=cause) as caught:
        store(model, model.graph.by_key["1:linear#0"], LayerPlan("palette", weights=step), None)
    assert caught.value.where == "1"


def test_weights_that_are_no_numbers(model):
    spoiled = model.with_weights({"1.weight": np.full((8, 6), np.nan, np.float32)})
    with pytest.raises(JobError, match="NaN") as caught:
        store(spoiled, model.graph.by_key["1:linear#0"], LayerPlan("palette", weights=KMEANS), None)
    assert caught.value.where == "1"


def test_core_ml_says_which_bits_it_holds(model, tmp_path):
    plan = Plan("coreml", uniform(model.graph, "palette", weights=Step("kmeans", {"bits": 5})))
    with pytest.raises(ConversionError) as caught:
        CoreML().lower(model, encode(model, plan, {}, Constraints())[0], tmp_path)
    assert all("1, 2, 4, 6, 8 bits" in fault.cause for fault in caught.value.faults)


def test_a_group_of_rows_is_for_layers_and_not_for_tables(model):
    layers = uniform(model.graph, "palette", weights=Step("kmeans", {"bits": 4, "group": 1}))
    found = encode(model, Plan("onnxruntime", layers), {}, Constraints())[0].tensors
    assert {key: book.group for key, book in found.items()} == {
        "0:embedding#0:weight": 0, "1:linear#0:weight": 1, "3:linear#0:weight": 1,
    }  # fmt: skip


def samples_of(model, seed=1):
    return lambda: iter([(np.random.default_rng(seed).integers(0, 20, (4, 4)),) for _ in range(4)])


def test_applying_a_plan_weights_its_palettes_by_what_they_do(model):
    layers = uniform(model.graph, "palette", weights=Step("kmeans", {"bits": 2}))
    plain = uniform(model.graph, "palette", weights=Step("kmeans", {"bits": 2, "weighted": False}))
    arguments = {"ranges": lambda _: {}, "constraints": Constraints(), "samples": samples_of(model)}
    weighted, even = (apply(model, Plan("onnxruntime", one), **arguments).encodings for one in (layers, plain))
    counts = importance(model, list(layers), samples_of(model))
    assert set(counts) == {"1:linear#0", "3:linear#0"}
    for key in ("1:linear#0", "3:linear#0"):
        weight = model.weights[f"{key[0]}.weight"]
        values = [
            palette.values(one.integers[f"{key}:weight"], one.tensors[f"{key}:weight"]) for one in (weighted, even)
        ]
        lost = [float((counts[key] * np.square(one - weight)).sum()) for one in values]
        assert lost[0] < lost[1]
    assert weighted.tensors["0:embedding#0:weight"].entries.tobytes() == (
        even.tensors["0:embedding#0:weight"].entries.tobytes()
    )


def test_a_bias_takes_the_mean_that_a_palette_moves(model):
    layers = uniform(model.graph, "palette", weights=Step("kmeans", {"bits": 2}))
    arguments = {"ranges": lambda _: {}, "constraints": Constraints(), "samples": samples_of(model)}
    inputs = list(samples_of(model)())
    exact = Simulator(model).run(Encodings.none(), inputs)
    errors = []
    for prepare in ((), (Step("bias_correct"),), (Step("gptq"),)):
        made = apply(model, Plan("onnxruntime", layers, prepare), **arguments)
        found = Simulator(made.model).run(made.encodings, inputs)
        errors.append(abs(float(np.mean([a[0] - b[0] for a, b in zip(found, exact, strict=True)]))))
    assert errors[1] < 0.1 * errors[0]
    assert errors[2] < 0.1 * errors[0]


def test_rates_count_indices_and_entries(model):
    ways = {"palette/kmeans/4": LayerPlan("palette", "tensor", KMEANS)}
    found = rates(model, lambda _: ways)["1:linear#0"]["palette/kmeans/4"]
    (book,) = store(model, model.graph.by_key["1:linear#0"], ways["palette/kmeans/4"], None).tensors.values()
    entries = book.entries
    assert found > entries.size * 8 / 48  # of a float32 entry hardly less than one byte says nothing
    assert found <= 4 + entries.size * 32 / 48


def test_float16_scales_where_they_are_demanded(model):
    plan = Plan("coreml", uniform(model.graph, "int8_weights"))
    plain, half = (encode(model, plan, {}, Constraints(half_scales=flag))[0] for flag in (False, True))
    for key, encoding in half.tensors.items():
        assert isinstance(encoding, Affine)
        assert np.array_equal(encoding.scale.astype(np.float16).astype(np.float32), encoding.scale)
        assert (encoding.scale >= plain.tensors[key].scale).all()
        assert np.allclose(encoding.scale, plain.tensors[key].scale, rtol=1e-3)
    assert half.digest != plain.digest
