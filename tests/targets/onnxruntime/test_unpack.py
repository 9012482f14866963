"""Weights of 1 to 7 bits: packed in the file, int8 once it is open, read back bit for bit; spoiled ones are refused."""

from __future__ import annotations

import zlib

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from haversack.base.encodings import Encodings, largest_code
from haversack.base.errors import VerificationError
from haversack.targets.onnxruntime import OnnxRuntime
from haversack.targets.onnxruntime.session import options, start
from haversack.targets.reference import Reference
from haversack.tools.graph.onnx import unpack
from haversack.tools.numerics import affine, planes

TARGET = OnnxRuntime()
STEM, POINT, HEAD = "0:conv2d#0:weight", "2:conv2d#0:weight", "6:linear#0:weight"
PACKED = sorted(planes.WIDTHS)


@pytest.fixture(scope="module")
def image(exported):
    """Convolutions, 3x3 and 1x1, and a linear layer whose weights are no multiple of eight."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(2, 3, 10, 10)).astype(np.float32)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 17, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(17, 5),
    )  # fmt: skip
    return exported(net, x), x


def narrow(model, encodings, bits):
    """Return encodings whose weights have some bits: one number for all, or one for each key."""
    tensors, integers = dict(encodings.tensors), dict(encodings.integers)
    for key in encodings.integers:
        width = bits[key] if isinstance(bits, dict) else bits
        weight = model.weights[model.graph.by_key[key.removesuffix(":weight")].weight]
        size = np.abs(weight.reshape(len(weight), -1)).max(1)
        tensors[key] = affine.symmetric(np.asarray(size / largest_code(width), np.float32), width, 0)
        integers[key] = affine.quantize(weight, tensors[key])
    return Encodings(tensors, integers)


@pytest.fixture(scope="module")
def made(image, encoded, tmp_path_factory):
    """Bits (a number, or a tuple for the three layers) -> encodings, artifact and path of the file, made once."""
    model, x = image
    wide, found = encoded(model, [(x,)]), {}

    def make(bits):
        if bits not in found:
            each = dict(zip((STEM, POINT, HEAD), bits, strict=True)) if isinstance(bits, tuple) else bits
            encodings = narrow(model, wide, each)
            folder = tmp_path_factory.mktemp("file")
            found[bits] = encodings, TARGET.lower(model, encodings, folder), folder / "model.onnx"
        return found[bits]

    return make


def ran(path, artifact, x):
    session = TARGET.open_session(path, artifact.session_options)
    return session.run({session.inputs[0].name: x})[session.outputs[0].name]


@pytest.mark.parametrize("bits", [*PACKED, (4, 3, 1), (8, 6, 2)])
def test_the_bits_are_the_references(image, made, bits):
    model, x = image
    encodings, artifact, path = made(bits)
    assert np.array_equal(ran(path, artifact, x), Reference().run(model, encodings, (x,))[0])
    assert artifact.injected == artifact.read_back > 400


@pytest.mark.parametrize("bits", [*PACKED, (4, 3, 1)])
def test_what_is_stored_is_read_back(made, bits):
    encodings, artifact, path = made(bits)
    found = TARGET.read(path, artifact)
    for key, codes in encodings.integers.items():
        assert found.affine(key).bits == encodings.affine(key).bits
        assert np.array_equal(found.integers[key], codes)


@pytest.mark.parametrize("bits", [*PACKED, (4, 3, 1)])
def test_nothing_of_the_unpacking_is_left_once_the_file_is_open(made, bits, tmp_path):
    _, artifact, path = made(bits)
    chosen = options(artifact.session_options, 1)
    chosen.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    start(str(path), chosen, "")
    opened = onnx.load(tmp_path / "optimised.onnx")
    ops = [node.op_type for node in opened.graph.node]
    assert (ops.count("QLinearConv"), ops.count("QGemm")) == (2, 1)
    assert not {"Cast", "Gather", "BitwiseOr", "Slice"} & set(ops)
    assert len(opened.functions) == 0
    weights = [one for one in opened.graph.initializer if len(one.dims) in (2, 4)]
    assert {one.data_type for one in weights} <= {TensorProto.INT8, TensorProto.UINT8}
    assert TARGET.unfused(path, artifact) == ()


@pytest.mark.parametrize("bits", PACKED)
def test_weights_take_their_bits_in_the_file(made, bits):
    _, _, path = made(bits)
    file = onnx.load(path)
    stored = {one.name: len(one.raw_data) for one in file.graph.initializer if one.name.startswith(f"{STEM}/codes")}
    assert 216 * planes.stored_bits(bits) / 8 <= sum(stored.values()) < 216 * planes.stored_bits(bits) / 8 + 1
    assert STEM + "/codes" in stored
    assert not any(one.name.startswith(STEM) and one.data_type == TensorProto.INT8 and len(one.dims) > 1
                   for one in file.graph.initializer)  # fmt: skip


@pytest.mark.parametrize("bits", [*PACKED, (4, 3, 1)])
def test_the_file_is_as_the_standard_wants_it_and_asks_for_no_newer_release_than_it_needs(made, bits):
    _, artifact, path = made(bits)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    four = max(bits if isinstance(bits, tuple) else (bits,)) >= 4
    assert (artifact.opset, artifact.runtime_version) == ((21, "1.23") if four else (20, "1.18"))


@pytest.mark.parametrize("precision", ["int8_weights", "int8_dynamic"])
@pytest.mark.parametrize("bits", [1, 2, 3, 6])
def test_weights_of_float_layers_are_held_so_as_well(exported, encoded, tmp_path, precision, bits):
    import torch
    from torch import nn

    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(2, 7, 33)).astype(np.float32)
    model = exported(nn.Sequential(nn.Linear(33, 21), nn.ReLU(), nn.Linear(21, 6)), x)
    encodings = narrow(model, encoded(model, [(x,)], precision), bits)
    artifact = TARGET.lower(model, encodings, tmp_path)
    meant, given = Reference().run(model, encodings, (x,))[0], ran(tmp_path / "model.onnx", artifact, x)
    assert np.linalg.norm(given - meant) < 1e-5 * np.linalg.norm(meant)
    found = TARGET.read(tmp_path / "model.onnx", artifact)
    assert all(np.array_equal(found.integers[key], codes) for key, codes in encodings.integers.items())


def initializer(file, name):
    return next(one for one in file.graph.initializer if one.name == name)


def put(name, array):
    def spoil(file):
        old = initializer(file, name)
        old.CopyFrom(numpy_helper.from_array(array, name))

    return spoil


def of_function(change):
    def spoil(file):
        change(file.functions[0])

    return spoil


def another_table(function):
    table = next(node for node in function.node if node.op_type == "Constant").attribute[0].t
    table.raw_data = bytes(reversed(table.raw_data))


def another_name(file):
    node = next(node for node in file.graph.node if node.domain == unpack.DOMAIN)
    node.op_type = "Unpack2"


def no_constant(file):
    node = next(node for node in file.graph.node if node.domain == unpack.DOMAIN)
    node.input[0] = file.graph.input[0].name


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (put(f"{STEM}/shape", np.array([8, 3, 3, 4], np.int64)), "digits for"),
        (put(f"{STEM}/shape", np.array([8, 3, 3, 2], np.int64)), "digits for"),
        (put(f"{STEM}/shape", np.array([-8, 3, 3, -3], np.int64)), "of shape"),
        (put(f"{STEM}/shape", np.array([1 << 40, 1 << 40], np.int64)), "of shape"),
        (put(f"{STEM}/shape", np.array(216, np.int64)), "Unpack3"),
        (put(f"{STEM}/codes", np.zeros(54, np.int8)), "Unpack3"),
        (put(f"{STEM}/codes", np.zeros((26, 2), np.uint8)), "planes of"),
        (put(f"{STEM}/codes", np.zeros(54, np.uint8)), "planes of"),
        (put(f"{STEM}/codes1", np.zeros((27, 1), np.uint8)), "planes of"),
        (of_function(another_table), "functions that are not ours"),
        (of_function(lambda function: function.node.pop()), "deserialize_function"),
        (of_function(lambda function: setattr(function, "name", "Other")), "functions that are not ours"),
        (another_name, "Unpack2"),
        (no_constant, "Unpack3 of 2 constants"),
    ],
)
def test_spoiled_packing_is_refused(made, tmp_path, spoil, says):
    _, artifact, path = made((3, 3, 3))
    file = onnx.load(path)
    spoil(file)
    (tmp_path / "bad.onnx").write_bytes(file.SerializeToString())
    with pytest.raises(VerificationError, match=says):
        TARGET.read(tmp_path / "bad.onnx", artifact)


def test_a_changed_byte_is_seen_as_other_codes_and_the_lowest_code_is_refused(made, tmp_path):
    encodings, artifact, path = made((3, 3, 3))
    file = onnx.load(path)
    stored = initializer(file, f"{STEM}/codes")
    stored.raw_data = bytes([stored.raw_data[0] ^ 1]) + stored.raw_data[1:]
    (tmp_path / "flipped.onnx").write_bytes(file.SerializeToString())
    try:
        found = TARGET.read(tmp_path / "flipped.onnx", artifact).integers[STEM]
        assert np.count_nonzero(found != encodings.integers[STEM]) == 1
    except VerificationError as error:
        assert "which no weight has" in str(error)
    low, high = initializer(file, f"{STEM}/codes"), initializer(file, f"{STEM}/codes1")
    low.raw_data, high.raw_data = bytes(len(low.raw_data)), b"\xff" * len(high.raw_data)  # 100 is -4
    (tmp_path / "lowest.onnx").write_bytes(file.SerializeToString())
    with pytest.raises(VerificationError, match="it holds -4, which no weight has"):
        TARGET.read(tmp_path / "lowest.onnx", artifact)


def test_a_file_that_brings_a_function_of_its_own_is_refused(made, tmp_path):
    """A function that bears the name of an operator would change what that operator computes."""
    _, artifact, path = made(3)
    file = onnx.load(path)
    body = [helper.make_node("Identity", ["x"], ["y"])]
    file.functions.append(helper.make_function("", "Conv", ["x", "w"], ["y"], body, [helper.make_opsetid("", 20)]))
    (tmp_path / "bad.onnx").write_bytes(file.SerializeToString())
    with pytest.raises(VerificationError, match="functions that are not ours"):
        TARGET.read(tmp_path / "bad.onnx", artifact)


@pytest.mark.parametrize("name", ["Unpack4", "Unpack8", "Unpack", "Unpack3Cut2", "unpack3", ""])
def test_other_names_unpack_nothing(name):
    assert unpack.bits_of(name) == 0
    with pytest.raises(ValueError, match="of 1 constants"):
        unpack.meaning(name, [np.zeros(1, np.uint8)])


@pytest.mark.parametrize("cut", ["", "Cut"])
@pytest.mark.parametrize("bits", PACKED)
def test_what_a_function_takes_is_forecast(bits, cut):
    name = f"Unpack{bits}{cut}"
    made = ir.to_proto(unpack.function(name, 21)).SerializeToString()
    size, download = unpack.function_bytes(name)
    assert size == pytest.approx(len(made), abs=30)
    assert download == pytest.approx(len(zlib.compress(made, 9)), rel=0.05)


@pytest.mark.parametrize("bits", PACKED)
def test_the_size_of_a_file_with_planes_is_forecast_to_a_hundred_bytes(image, made, bits):
    model, _ = image
    plain, packed, both = (made(kinds)[1].bytes for kinds in ((8, 8, 8), (bits, 8, 8), (bits, bits, 8)))
    counts = [model.weights[model.graph.by_key[key.removesuffix(":weight")].weight].size for key in (STEM, POINT)]
    names = {unpack.name_of(count, bits) for count in counts}
    assert len(names) == 1, "both layers use one function"
    stem, point = (
        count * (planes.stored_bits(bits) / 8 - 1) + unpack.use_bytes(key, bits)[0]
        for key, count in zip((STEM, POINT), counts, strict=True)
    )
    assert packed == pytest.approx(plain + stem + unpack.function_bytes(*names)[0], abs=50)
    assert both == pytest.approx(packed + point, abs=20)


def test_the_size_of_a_file_with_codes_of_four_bits_is_forecast(image, made):
    """Nothing is brought once for all of them: each has a node that widens it, with three names in it."""
    model, _ = image
    plain, one, two = (made(kinds)[1].bytes for kinds in ((8, 8, 8), (4, 8, 8), (4, 4, 8)))
    stem, point = (
        unpack.cast_bytes(key) - model.weights[model.graph.by_key[key.removesuffix(":weight")].weight].size / 2
        for key in (STEM, POINT)
    )
    assert one == pytest.approx(plain + stem, abs=12)
    assert two == pytest.approx(one + point, abs=12)
