"""INT4 initializers: what they ask of a file, which kernels run, and that weights in float use them too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from haversack.base.encodings import Affine, Dynamic, Encodings
from haversack.base.errors import ConversionError, VerificationError
from haversack.targets.onnxruntime import OnnxRuntime
from haversack.targets.onnxruntime.session import options, start
from haversack.targets.reference import Reference
from haversack.tools.numerics import affine

TARGET = OnnxRuntime()


@pytest.fixture(scope="module")
def layers(exported):
    """Two linear layers on rows of a sequence."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(2, 7, 33)).astype(np.float32)
    return exported(nn.Sequential(nn.Linear(33, 21), nn.ReLU(), nn.Linear(21, 6)), x), x


@pytest.fixture(scope="module")
def image(exported):
    """Convolutions, 3x3 and 1x1, and what behind them moves values."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(2, 3, 10, 10)).astype(np.float32)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 5),
    )  # fmt: skip
    return exported(net, x), x


def narrow(model, encodings, keys=None):
    """Return encodings whose weights (or those of some node keys) have 4 bits, rounded to nearest."""
    tensors, integers = dict(encodings.tensors), dict(encodings.integers)
    for key in encodings.integers:
        node = key.removesuffix(":weight")
        if keys is None or node in keys:
            weight = model.weights[model.graph.by_key[node].weight]
            size = np.abs(weight.reshape(len(weight), -1)).max(1)
            tensors[key] = affine.symmetric(np.asarray(size / 7, np.float32), 4, 0)
            integers[key] = affine.quantize(weight, tensors[key])
    return Encodings(tensors, integers)


def ran(folder, artifact, x):
    session = TARGET.open_session(folder / "model.onnx", artifact.session_options)
    return session.run({session.inputs[0].name: x})[session.outputs[0].name]


def test_the_file_asks_for_the_operators_and_the_release_that_have_int4(image, encoded, tmp_path):
    model, x = image
    wide = encoded(model, [(x,)])
    made = {name: TARGET.lower(model, one, tmp_path / name) for name, one in (("8", wide), ("4", narrow(model, wide)))}
    assert made["8"].opset < 21 == made["4"].opset
    assert (made["8"].runtime_version, made["4"].runtime_version) == ("1.18", "1.23")
    stored = onnx.load(tmp_path / "4" / "model.onnx").graph.initializer
    sizes = {one.name: len(one.raw_data) for one in stored if one.data_type == TensorProto.INT4}
    assert sizes == {"0:conv2d#0:weight/codes": 108, "2:conv2d#0:weight/codes": 64, "6:linear#0:weight/codes": 40}


def test_the_integer_kernels_run_and_nothing_is_widened_per_call(image, encoded, tmp_path):
    model, x = image
    artifact = TARGET.lower(model, narrow(model, encoded(model, [(x,)])), tmp_path)
    chosen = options(artifact.session_options, 1)
    chosen.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    start(str(tmp_path / "model.onnx"), chosen, "")
    ops = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert (ops.count("QLinearConv"), ops.count("QGemm")) == (2, 1)
    assert "Cast" not in ops
    assert not any(
        one.data_type == TensorProto.INT4 for one in onnx.load(tmp_path / "optimised.onnx").graph.initializer
    )


@pytest.mark.parametrize("some", [None, {"0:conv2d#0"}, {"6:linear#0"}])
def test_the_bits_are_the_references(image, encoded, tmp_path, some):
    model, x = image
    encodings = narrow(model, encoded(model, [(x,)]), some)
    artifact = TARGET.lower(model, encodings, tmp_path)
    meant = Reference().run(model, encodings, (x,))[0]
    assert np.array_equal(ran(tmp_path, artifact, x), meant)
    assert {one.bits for key, one in encodings.tensors.items() if ":weight" in key} == ({4} if some is None else {4, 8})


@pytest.mark.parametrize("dynamic", [False, True])
def test_weights_of_float_layers_are_held_in_four_bits(layers, encoded, tmp_path, dynamic):
    model, x = layers
    encodings = narrow(model, encoded(model, [(x,)], "int8_dynamic" if dynamic else "int8_weights"))
    assert any(isinstance(one, Dynamic) for one in encodings.tensors.values()) is dynamic
    artifact = TARGET.lower(model, encodings, tmp_path)
    meant = Reference().run(model, encodings, (x,))[0]
    given = ran(tmp_path, artifact, x)
    assert np.linalg.norm(given - meant) < 1e-5 * np.linalg.norm(meant)
    found = TARGET.read(tmp_path / "model.onnx", artifact)
    assert all(np.array_equal(found.integers[key], codes) for key, codes in encodings.integers.items())
    assert {one.bits for key, one in found.tensors.items() if ":weight" in key} == {4}


def test_a_changed_nibble_is_seen_and_the_lowest_code_is_refused(image, encoded, tmp_path):
    model, x = image
    artifact = TARGET.lower(model, narrow(model, encoded(model, [(x,)])), tmp_path)
    path = tmp_path / "model.onnx"
    good = TARGET.read(path, artifact).integers["2:conv2d#0:weight"]
    file = onnx.load(path)
    (stored,) = (one for one in file.graph.initializer if one.name == "2:conv2d#0:weight/codes")
    for byte, told in ((0x21, False), (0x81, True)):
        stored.raw_data = bytes([byte]) + stored.raw_data[1:]
        onnx.save(file, path)
        if told:
            with pytest.raises(VerificationError, match="it holds -8, which no weight has"):
                TARGET.read(path, artifact)
        else:
            found = TARGET.read(path, artifact).integers["2:conv2d#0:weight"]
            assert list(found.reshape(-1)[:2]) == [1, 2] != list(good.reshape(-1)[:2])


def test_a_cast_to_something_else_is_no_weight_of_ours(image, encoded, tmp_path):
    model, x = image
    artifact = TARGET.lower(model, narrow(model, encoded(model, [(x,)])), tmp_path)
    path = tmp_path / "model.onnx"
    file = onnx.load(path)
    for node in file.graph.node:
        if node.op_type == "Cast":
            node.attribute[0].i = TensorProto.UINT8
    onnx.save(file, path)
    with pytest.raises(VerificationError):
        TARGET.read(path, artifact)


@pytest.mark.parametrize("bits", [9, 16])
def test_other_widths_have_no_place(image, encoded, tmp_path, bits):
    model, x = image
    encodings = encoded(model, [(x,)])
    key = "2:conv2d#0:weight"
    odd = replace(encodings.affine(key), bits=bits)
    codes = {**encodings.integers, key: np.zeros_like(encodings.integers[key])}
    with pytest.raises(ConversionError) as told:
        TARGET.lower(model, Encodings({**encodings.tensors, key: odd}, codes), tmp_path)
    assert "int8, or in 1 to 7 bits in a layer" in str(told.value)


def test_a_table_has_no_four_bits(exported, tmp_path):
    from torch import nn

    model = exported(nn.Embedding(6, 4), np.zeros((2, 3), np.int64))
    (key,) = (f"{node.key}:weight" for node in model.graph.nodes if node.op == "embedding")
    one = Affine(4, signed=True, axis=0, scale=np.ones(6, np.float32), zero_point=np.zeros(6, np.int32))
    with pytest.raises(ConversionError) as told:
        TARGET.lower(model, Encodings({key: one}, {key: np.ones((6, 4), np.int32)}), tmp_path)
    assert "1 to 7 bits in a layer" in str(told.value)
