"""What the target's files can hold, and how each thing that they cannot is refused: all at once, by tensor key."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from haversack.base.encodings import Affine, BlockAffine, Codebook, Dynamic, Encodings, Float
from haversack.base.errors import ConversionError
from haversack.targets.onnxruntime import OnnxRuntime
from haversack.targets.reference import Reference

TARGET = OnnxRuntime()
ONE = np.array(1.0, np.float32)
UINT8 = Affine(8, False, None, ONE, np.array(3, np.int32))


def refused(model, tensors, tmp_path, integers=None):
    with pytest.raises(ConversionError) as caught:
        TARGET.lower(model, Encodings(tensors, integers or {}), tmp_path)
    assert not list(tmp_path.iterdir())
    return {fault.where: fault.cause for fault in caught.value.faults}


@pytest.mark.parametrize(
    ("key", "encoding", "cause"),
    [
        ("one:conv2d#0:out", Affine(4, False, None, ONE, np.array(3, np.int32)), "in 8 bits with one scale"),
        ("one:conv2d#0:out", Affine(8, True, None, ONE, np.array(0, np.int32)), "in 8 bits with one scale"),
        ("one:conv2d#0:out", Float("float16"), "held as Affine, not as Float"),
        ("one:conv2d#0:out", Float("float32"), "leave it out"),
        ("one:conv2d#0:in", Dynamic(), "only a linear layer"),
        ("head:linear#0:in", Dynamic(4), "to 8 bits"),
        ("head:linear#0:in", Dynamic(), "needs an integer weight"),
        ("head:linear#0:in", UINT8, "only Dynamic"),
        ("head:linear#0:weight", BlockAffine(4, 4, np.ones((5, 2), np.float32)), "integers are missing"),
        ("nobody:linear#0:out", UINT8, "no such node"),
        (":add#0:weight", Float("float16"), "add has no weight"),
    ],
)
def test_what_a_file_cannot_hold(zoo, tmp_path, key, encoding, cause):
    model, _ = zoo["residual"]
    found = refused(model, {key: encoding}, tmp_path)
    assert list(found) == [key]
    assert cause in found[key]


def test_all_faults_are_told_together(zoo, tmp_path):
    model, _ = zoo["residual"]
    found = refused(model, {"one:conv2d#0:in": Dynamic(), "two:conv2d#0:out": Float("float16")}, tmp_path)
    assert set(found) == {"one:conv2d#0:in", "two:conv2d#0:out"}


@pytest.mark.parametrize(("codes", "cause"), [(None, "missing"), (np.zeros((2, 2), np.int32), "shape (2, 2)")])
def test_integers_that_do_not_fit(zoo, tmp_path, codes, cause):
    model, _ = zoo["residual"]
    key = "head:linear#0:weight"
    weight = Affine(8, True, None, ONE, np.array(0, np.int32))
    found = refused(model, {key: weight}, tmp_path, {} if codes is None else {key: codes})
    assert cause in found[key]


def test_scales_along_another_axis_are_refused(zoo, encoded, tmp_path):
    model, sample = zoo["residual"]
    encodings = encoded(model, [sample], "int8_weights")
    key = "head:linear#0:weight"
    inner = encodings.integers[key].shape[1]
    turned = dataclasses.replace(
        encodings.tensors[key], axis=1, scale=np.ones(inner, np.float32), zero_point=np.zeros(inner, np.int32)
    )
    found = refused(model, {**encodings.tensors, key: turned}, tmp_path, encodings.integers)
    assert list(found) == [key]
    assert "along axis 0, not 1" in found[key]


def test_a_table_has_one_palette(zoo, tmp_path):
    key = "table:embedding#0:weight"
    model, _ = zoo["words"]
    codes = np.zeros(model.weights["table.weight"].shape, np.int32)
    found = refused(model, {key: Codebook(2, np.zeros((2, 4), np.float32), len(codes) // 2)}, tmp_path, {key: codes})
    assert "one palette" in found[key]


def test_the_weight_of_a_norm_stays_float(zoo, tmp_path):
    model, _ = zoo["words"]
    key = next(node.key for node in model.graph.nodes if node.op == "layer_norm")
    found = refused(model, {f"{key}:weight": Float("float16")}, tmp_path)
    assert "stays in float32" in found[f"{key}:weight"]


def test_indices_have_no_codes(zoo, tmp_path):
    model, _ = zoo["words"]
    found = refused(model, {"tokens:input#0:out": UINT8}, tmp_path)
    assert "int64" in found["tokens:input#0:out"]


def test_the_inside_of_a_fused_unit_cannot_be_encoded(zoo, encoded, tmp_path):
    model, sample = zoo["residual"]
    encodings = encoded(model, [sample])
    found = refused(model, {**encodings.tensors, "one:conv2d#0:out": UINT8}, tmp_path, encodings.integers)
    assert "inside a fused unit" in found["one:conv2d#0:out"]


def test_a_bias_out_of_range_is_refused(zoo, encoded, tmp_path):
    model, sample = zoo["residual"]
    encodings = encoded(model, [sample])
    huge = model.with_weights({"head.bias": np.full(5, 1e9, np.float32)})
    with pytest.raises(ConversionError, match="head:linear#0"):
        TARGET.lower(huge, encodings, tmp_path)


def test_two_encodings_of_what_is_one_tensor_in_the_file(zoo, encoded, tmp_path):
    model, sample = zoo["depthwise"]
    encodings = encoded(model, [sample])
    pad = next(node.key for node in model.graph.nodes if node.op in ("pad", "constant_pad_nd"))
    source = model.graph.by_key[pad].inputs[0]
    other = dataclasses.replace(encodings.tensors[f"{pad}:out"], scale=np.array(9.0, np.float32))
    found = refused(model, {**encodings.tensors, f"{source}:out": other}, tmp_path, encodings.integers)
    assert list(found) == [f"{pad}:out"]
    assert f"one tensor with {source}:out" in found[f"{pad}:out"]


@pytest.mark.parametrize("both", [True, False])
def test_a_pad_inside_a_convolution_has_the_codes_of_its_source(zoo, encoded, tmp_path, both):
    model, sample = zoo["depthwise"]
    encodings = encoded(model, [sample])
    pad = next(node.key for node in model.graph.nodes if node.op in ("pad", "constant_pad_nd"))
    source = f"{model.graph.by_key[pad].inputs[0]}:out"
    tensors = dict(encodings.tensors)
    tensors.pop(source, None)
    if both:
        tensors[source] = tensors[f"{pad}:out"]
    wanted = Encodings(tensors, encodings.integers)
    artifact = TARGET.lower(model, wanted, tmp_path)
    assert f"{pad}:out" not in artifact.tensor_names
    assert artifact.absorbed == {f"{pad}:out": f"{source}/codes"}
    found = TARGET.read(tmp_path / "model.onnx", artifact)
    assert set(found.tensors) == set(tensors)
    session = TARGET.open_session(tmp_path / "model.onnx", artifact.session_options)
    y = session.run({"x": sample[0]})["output"]
    assert y.tobytes() == Reference().run(model, wanted, sample)[0].tobytes()


@pytest.mark.parametrize("name", ["residual", "depthwise", "branches", "words", "sequence"])
def test_demands_name_tensors_of_the_model(zoo, name):
    model, _ = zoo[name]
    found = TARGET.constraints(model.graph)
    named = {key for tie in found.ties for key in tie} | set(found.bounds) | {r.input for r in found.ratios}
    assert named <= {node.out for node in model.graph.nodes}
    assert named
