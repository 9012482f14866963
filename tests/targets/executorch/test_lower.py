"""Files in float, with stored weights and inputs quantized at run time; what is refused and how."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Affine, Codebook, Dynamic, Encodings, Float
from haversack.base.errors import ConversionError
from haversack.targets.executorch import ExecuTorch
from haversack.targets.executorch.parse import parse
from haversack.targets.executorch.skeleton import skeleton
from haversack.targets.reference import Reference

TARGET = ExecuTorch()
NAMES = ("resnet", "keywords", "padded", "branches", "sequence", "words", "normed")


def run(model, path, sample):
    found = TARGET.open_session(path).run({model.inputs[0].name: sample[0]})
    return found[model.outputs[0].name]


@pytest.mark.parametrize("name", NAMES)
def test_float_networks_compute_what_pytorch_does(zoo, name, tmp_path):
    model, sample = zoo[name]
    artifact = TARGET.lower(model, Encodings.none(), tmp_path)
    wanted = Reference().run(model, Encodings.none(), sample)[0]
    np.testing.assert_allclose(run(model, tmp_path / "model.pte", sample), wanted, rtol=1e-4, atol=1e-5)
    assert artifact.injected == artifact.read_back == 0
    assert TARGET.read(tmp_path / "model.pte", artifact).tensors == {}


@pytest.mark.parametrize("name", ["resnet", "keywords", "padded", "branches", "sequence", "normed"])
def test_networks_of_convolutions_are_delegated_whole(zoo, name, tmp_path):
    model, _ = zoo[name]
    TARGET.lower(model, Encodings.none(), tmp_path)
    found = parse(tmp_path / "model.pte")
    assert (len(found.delegates), found.portable) == (1, ())
    assert skeleton(model).alone == ()


def test_what_is_not_delegated_is_told_by_its_key(zoo):
    alone = skeleton(zoo["words"][0]).alone
    assert alone[:2] == ("table:embedding#0", "norm:layer_norm#0")
    assert not any("linear" in key or "gelu" in key or "softmax" in key for key in alone)


@pytest.mark.parametrize("name", ["padded"])
def test_pads_are_done_by_the_convolutions(zoo, lowered, name, tmp_path):
    model, _ = zoo[name]
    TARGET.lower(model, Encodings.none(), tmp_path)
    for path in (tmp_path / "model.pte", lowered(name)[4]):
        kinds = [step.kind for step in parse(path).delegates[0].steps]
        assert "StaticConstantPad" not in kinds
        assert kinds.count("DepthwiseConv2d") == 1
    artifact = lowered(name)[3]
    assert set(artifact.absorbed) >= {"between:pad#0:out"}


def test_new_weights_need_no_new_skeleton(zoo, tmp_path):
    model, sample = zoo["resnet"]
    before = skeleton(model)
    other = model.with_weights({"head.weight": model.weights["head.weight"] * np.float32(2)})
    assert skeleton(other) is before
    TARGET.lower(other, Encodings.none(), tmp_path)
    wanted = Reference().run(other, Encodings.none(), sample)[0]
    np.testing.assert_allclose(run(other, tmp_path / "model.pte", sample), wanted, rtol=1e-4, atol=1e-5)


def test_a_folded_norm_makes_a_new_skeleton_when_its_numbers_change(zoo, tmp_path):
    model, sample = zoo["normed"]
    before = skeleton(model)
    other = model.with_weights({"norm.bias": model.weights["norm.bias"] + np.float32(1)})
    assert skeleton(other) is not before
    TARGET.lower(other, Encodings.none(), tmp_path)
    wanted = Reference().run(other, Encodings.none(), sample)[0]
    np.testing.assert_allclose(run(other, tmp_path / "model.pte", sample), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [8, 4])
def test_linear_weights_are_stored_in_integers(zoo, stored_weights, bits, tmp_path):
    model, sample = zoo["words"]
    encodings = stored_weights(model, bits=bits)
    artifact = TARGET.lower(model, encodings, tmp_path)
    assert artifact.read_back == artifact.injected > 1000
    wanted = Reference().run(model, encodings, sample)[0]
    np.testing.assert_allclose(run(model, tmp_path / "model.pte", sample), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [8, 4])
def test_inputs_are_quantized_at_run_time(zoo, stored_weights, bits, tmp_path):
    model, sample = zoo["words"]
    encodings = stored_weights(model, dynamic=True, bits=bits)
    artifact = TARGET.lower(model, encodings, tmp_path)
    assert TARGET.read(tmp_path / "model.pte", artifact).digest == encodings.digest
    wanted = Reference().run(model, encodings, sample)[0]
    error = np.linalg.norm(run(model, tmp_path / "model.pte", sample) - wanted) / np.linalg.norm(wanted)
    assert 0 < error < 0.02  # XNNPACK quantizes each row by itself, the reference the whole tensor


def test_dynamic_plans_store_the_table_of_words_and_no_float_layer(zoo):
    from haversack.compress.plans import uniform

    graph = zoo["words"][0].graph
    assert "int8_weights" not in TARGET.precisions
    kept = uniform(graph, "int8_dynamic", stores_integers=False)
    assert kept["table:embedding#0"].precision == "int8_weights"
    assert {plan.precision for key, plan in kept.items() if "embedding" not in key} == {"int8_dynamic"}
    assert len(kept) == 6


def affine(scale=0.1, zero_point=3, **changes):
    fields = {"bits": 8, "signed": False, "axis": None} | changes
    return Affine(scale=np.array(scale, np.float32), zero_point=np.array(zero_point, np.int32), **fields)


@pytest.mark.parametrize(
    ("key", "encoding", "cause"),
    [
        ("stem:conv2d#0:out", affine(bits=4), "8 bits with one scale"),
        ("stem:conv2d#0:out", Float("float32"), "leave it out"),
        ("stem:conv2d#0:out", Float("float16"), "not as Float"),
        ("head:linear#0:weight", Float("float16"), "no kernels for float16"),
        ("head:linear#0:weight", Codebook(1, np.zeros(2, np.float32)), "not as Codebook"),
        ("head:linear#0:in", Dynamic(), "needs an integer weight"),
        ("stem:conv2d#0:in", Dynamic(), "only a linear layer's input"),
        ("head:linear#0:in", affine(), "only Dynamic"),
    ],
)
def test_encodings_without_a_form_are_refused(zoo, key, encoding, cause, tmp_path):
    model, _ = zoo["resnet"]
    with pytest.raises(ConversionError) as caught:
        integers = {key: np.zeros_like(model.weights["head.weight"], np.int32)} if "Codebook" in cause else {}
        TARGET.lower(model, Encodings({key: encoding}, integers), tmp_path)
    assert [fault.where for fault in caught.value.faults] == [key]
    assert cause in caught.value.faults[0].cause
    assert list(tmp_path.iterdir()) == []


def test_integers_of_a_convolution_in_float_are_refused(zoo, encoded, tmp_path):
    model, sample = zoo["resnet"]
    whole = encoded(model, sample)
    key = "stem:conv2d#0:weight"
    with pytest.raises(ConversionError, match="linear layers only") as caught:
        TARGET.lower(model, Encodings({key: whole.tensors[key]}, {key: whole.integers[key]}), tmp_path)
    assert caught.value.where == "stem:conv2d#0"


def test_a_layer_outside_of_xnnpack_cannot_give_codes_to_another_one(zoo, tmp_path):
    model, _ = zoo["words"]
    with pytest.raises(ConversionError) as caught:
        TARGET.lower(model, Encodings({"table:embedding#0:out": affine()}), tmp_path)
    assert "XNNPACK does not take this layer" in caught.value.faults[0].cause


def test_a_graph_that_cannot_be_lowered_is_refused_by_name(exported):
    import torch

    class Odd(torch.nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)

    faults = TARGET.refusals(exported(Odd(), np.zeros((2, 8), np.float32)))
    assert len(faults) == 1
    assert "no kernel for aten::" in faults[0].cause
    assert faults[0].where == ":special_bessel_j0#0"
