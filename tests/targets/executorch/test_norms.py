"""Batch norms that nobody has folded: ExecuTorch folds them itself, so that no codes of their layers' weights fit."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Affine, Encodings
from haversack.base.errors import ConversionError
from haversack.targets.executorch import ExecuTorch
from haversack.targets.reference import Reference

TARGET = ExecuTorch()
CONV, NORM = "conv:conv2d#0", "norm:batch_norm#0"


@pytest.fixture(scope="module")
def normed(zoo):
    """Return (model whose norm does something, sample)."""
    model, sample = zoo["normed"]
    rng = np.random.default_rng(0)
    numbers = {
        "norm.weight": rng.uniform(0.5, 2, 4),
        "norm.bias": rng.normal(size=4),
        "norm.running_mean": rng.normal(size=4),
        "norm.running_var": rng.uniform(0.5, 2, 4),
    }
    return model.with_weights({name: value.astype(np.float32) for name, value in numbers.items()}), sample


def test_in_float_it_is_computed(normed, tmp_path):
    model, sample = normed
    TARGET.lower(model, Encodings.none(), tmp_path)
    found = TARGET.open_session(tmp_path / "model.pte").run({model.inputs[0].name: sample[0]})
    wanted = Reference().run(model, Encodings.none(), sample)[0]
    np.testing.assert_allclose(found[model.outputs[0].name], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("only", [None, {CONV}])
def test_in_integers_it_is_refused_and_says_why(normed, encoded, only, tmp_path):
    model, sample = normed
    with pytest.raises(ConversionError) as caught:
        TARGET.lower(model, encoded(model, sample, only=only), tmp_path)
    faults = {fault.where: fault.cause for fault in caught.value.faults}
    norm = next(node.key for node in model.graph.nodes if "batch_norm" in node.op)
    assert {f"{CONV}:weight", f"{CONV}:out"} <= faults.keys()
    assert f"folds the batch norm {norm}" in faults[f"{CONV}:weight"]
    assert "fold it before encoding" in faults[f"{CONV}:weight"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["layer", "norm"])
def test_an_activation_around_it_is_refused(normed, place, tmp_path):
    model, _ = normed
    norm = next(node for node in model.graph.nodes if "batch_norm" in node.op)
    key = f"{CONV}:out" if place == "layer" else norm.out
    grid = Affine(8, signed=False, axis=None, scale=np.array(0.1, np.float32), zero_point=np.array(128, np.int32))
    with pytest.raises(ConversionError, match="folds the batch norm") as caught:
        TARGET.lower(model, Encodings({key: grid}), tmp_path)
    assert [fault.where for fault in caught.value.faults] == [key]


def test_the_other_layers_are_still_encoded(normed, encoded, tmp_path):
    model, sample = normed
    encodings = encoded(model, sample, only={"head:linear#0"})
    kept = {key: value for key, value in encodings.tensors.items() if not key.startswith((CONV, "norm"))}
    encodings = Encodings(kept, encodings.integers)
    TARGET.lower(model, encodings, tmp_path)
    found = TARGET.open_session(tmp_path / "model.pte").run({model.inputs[0].name: sample[0]})
    wanted = Reference().run(model, encodings, sample)[0]
    assert "head:linear#0:weight" in encodings.integers
    np.testing.assert_allclose(found[model.outputs[0].name], wanted, rtol=0, atol=float(np.abs(wanted).max()) / 100)
