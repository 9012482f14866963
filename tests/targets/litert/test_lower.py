"""Small networks of every kind: float files agree with PyTorch, int8 files equal the reference bit for bit."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from haversack.base.encodings import Affine, Dynamic, Encodings, Float
from haversack.base.errors import ConversionError
from haversack.targets.litert import LiteRT
from haversack.targets.litert.unflat import guarded
from haversack.tools.numerics import affine

NAMES = ("residual", "block", "depthwise", "branches", "sequence", "keywords", "squeeze")
WHOLE = ("residual", "block", "depthwise", "branches", "keywords")
"""Networks that run in integers from end to end."""


def ops(path):
    return guarded(path, lambda file: Counter(file.name(one) for graph in file.subgraphs for one in graph.operators))


@pytest.mark.parametrize("name", NAMES)
def test_float(zoo, both, name):
    model, sample = zoo[name]
    made = both(model)
    np.testing.assert_allclose(made.file(*sample)[0], made.reference(*sample)[0], rtol=1e-4, atol=2e-6)
    assert made.artifact.injected == made.artifact.read_back == 0
    assert set(ops(made.path)).isdisjoint({"QUANTIZE", "DEQUANTIZE"})


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("name", NAMES)
def test_int8_equals_the_reference(zoo, both, encoded, name, granularity):
    model, sample = zoo[name]
    encodings = encoded(model, [sample], "int8", granularity)
    made = both(model, encodings)
    found, wanted = made.file(*sample)[0], made.reference(*sample)[0]
    if name in WHOLE:
        assert found.tobytes() == wanted.tobytes()
    else:
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert made.artifact.injected == made.artifact.read_back > 100
    assert made.target.read(made.path, made.artifact).digest == encodings.digest
    assert made.target.unfused(made.path, made.artifact) == ()


@pytest.mark.parametrize("name", WHOLE)
def test_integers_from_end_to_end(zoo, both, encoded, name):
    model, sample = zoo[name]
    made = both(model, encoded(model, [sample]))
    count = ops(made.path)
    assert (count["QUANTIZE"], count["DEQUANTIZE"]) == (1, 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", ["float16", "int8_weights"])
def test_stored_weights(zoo, both, encoded, name, precision):
    model, sample = zoo[name]
    encodings = encoded(model, [sample], precision)
    made = both(model, encodings)
    np.testing.assert_allclose(made.file(*sample)[0], made.reference(*sample)[0], rtol=1e-4, atol=5e-6)
    assert made.target.read(made.path, made.artifact).digest == encodings.digest
    kinds = {type(encoding) for encoding in encodings.tensors.values()}
    assert kinds == {Float if precision == "float16" else Affine}


@pytest.mark.parametrize("name", ["residual", "block", "sequence"])
def test_dynamic(zoo, both, encoded, name):
    model, sample = zoo[name]
    encodings = encoded(model, [sample], "int8_dynamic")
    assert any(isinstance(encoding, Dynamic) for encoding in encodings.tensors.values())
    made = both(model, encodings)
    found, exact = made.file(*sample)[0], both(model).file(*sample)[0]
    assert np.linalg.norm(found - exact) < 0.03 * np.linalg.norm(exact)
    assert made.target.read(made.path, made.artifact).digest == encodings.digest


@pytest.mark.parametrize("name", ["residual", "depthwise", "keywords"])
def test_integers_at_the_interface(zoo, both, encoded, name):
    model, sample = zoo[name]
    encodings = encoded(model, [sample])
    made = both(model, encodings, LiteRT(integer_io=True))
    assert [port.spec.dtype for port in (*made.artifact.inputs, *made.artifact.outputs)] == ["int8", "int8"]
    assert set(ops(made.path)).isdisjoint({"QUANTIZE", "DEQUANTIZE"})
    source, out = (encodings.affine(f"{key}:out") for key in (model.graph.inputs[0], model.graph.outputs[0]))
    codes = (affine.quantize(sample[0], source) - 128).astype(np.int8)
    found = made.file(codes)[0].astype(np.int32) + 128
    np.testing.assert_array_equal(affine.dequantize(found, out), made.reference(*sample)[0])


@pytest.mark.parametrize(("precision", "idle"), [("int8", False), ("int8_dynamic", True), (None, True)])
def test_integers_at_the_interface_that_a_plan_has_no_codes_for_are_told(zoo, both, encoded, precision, idle):
    model, sample = zoo["keywords"]
    encodings = encoded(model, [sample], precision) if precision else Encodings.none()
    for asked in (True, False):
        made = both(model, encodings, LiteRT(integer_io=asked))
        told = [one for one in made.target.findings(made.path, made.artifact) if one.kind == "setting-idle"]
        ports = [*made.model.inputs, *made.model.outputs] if idle and asked else []
        assert [one.layer for one in told] == [port.name for port in ports]
        assert all(one.severity == "warning" and "integer_io" in one.text and "float32" in one.text for one in told)


def test_no_detours_where_pads_are_the_convolutions(zoo, both, encoded):
    model, sample = zoo["depthwise"]
    for encodings in (Encodings.none(), encoded(model, [sample])):
        made = both(model, encodings)
        assert made.target.findings(made.path, made.artifact) == ()
        assert set(ops(made.path)).isdisjoint({"PAD", "TRANSPOSE"})
    absorbed = made.artifact.absorbed["pad:pad#0:out"]
    assert absorbed.endswith("input#0:out/codes")


def test_a_pad_that_is_not_same_is_a_detour(zoo, both, encoded):
    model, sample = zoo["block"]
    made = both(model, encoded(model, [sample]))
    assert [(one.layer, "PAD" in one.text) for one in made.target.findings(made.path, made.artifact)] == [
        ("one:conv2d#0", True)
    ]


def test_layouts_tell_where_channels_are(zoo, both):
    made = both(zoo["branches"][0])
    port = made.artifact.inputs[0]
    assert made.artifact.layouts[port.name] == "NHWC"
    assert port.spec.shape == (1, 8, 8, 3)
    assert made.artifact.layouts["output"] == "NHWC"
    assert made.artifact.outputs[0].spec.shape == (1, 4, 4, 3)


def test_equal_files_and_sizes(zoo, both, encoded):
    model, sample = zoo["residual"]
    encodings = encoded(model, [sample])
    one, two = both(model, encodings), both(model, encodings)
    assert one.artifact.files == two.artifact.files
    assert one.artifact.bytes == one.path.stat().st_size


def test_the_batch_of_a_file_is_one_and_rows_run_in_turn(zoo, both):
    model, sample = zoo["residual"]
    made = both(model)
    rows = [made.file(sample[0][i : i + 1])[0] for i in range(len(sample[0]))]
    np.testing.assert_array_equal(made.file(*sample)[0], np.concatenate(rows))


def test_ops_that_have_no_writer_are_refused_together(exported):
    import torch
    from torch import nn

    class Odd(nn.Module):
        def forward(self, x):
            return torch.sort(torch.erfinv(x), 1)[0]

    model = exported(Odd(), np.zeros((2, 3), np.float32))
    found = LiteRT().refusals(model)
    assert sorted(fault.where for fault in found) == [":erfinv#0", ":sort#0"]


def test_a_large_model_is_refused(zoo, monkeypatch):
    monkeypatch.setattr("haversack.targets.litert._LARGEST", 100)
    (fault,) = LiteRT().refusals(zoo["residual"][0])
    assert "do not fit" in fault.cause


@pytest.mark.parametrize(
    "key, encoding, cause",
    [
        ("one:conv2d#0:out", "grid", "inside a fused unit"),
        ("head:linear#0:in", Dynamic(), "needs an integer weight"),
        ("one:conv2d#0:in", Dynamic(), "only a linear layer"),
        ("head:linear#0:in", Float(), "only Dynamic"),
        ("head:linear#0:out", Float(), "leave it out"),
        ("head:linear#0:out", Float("float16"), "held as Affine"),
        ("act:hardtanh#0:weight", Float("float16"), "no weight"),
    ],
)
def test_encodings_without_a_place_are_refused(zoo, encoded, tmp_path, key, encoding, cause):
    model, sample = zoo["residual"]
    base = encoded(model, [sample]) if encoding == "grid" else Encodings.none()
    value = base.affine("act:relu6#0:out") or base.affine("act:hardtanh#0:out") if encoding == "grid" else encoding
    with pytest.raises(ConversionError) as caught:
        LiteRT().lower(model, Encodings({**base.tensors, key: value}, base.integers), tmp_path)
    assert any(cause in fault.cause for fault in caught.value.faults)
    assert list(tmp_path.iterdir()) == []
