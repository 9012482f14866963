"""Reading back: what was injected is found, and every fault planted in a file is told, in the right place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from haversack.base.encodings import Affine, Dynamic, Float
from haversack.base.errors import VerificationError
from haversack.targets.onnxruntime import OnnxRuntime
from haversack.tools.graph.injection import differences
from haversack.verify.location import locate

TARGET = OnnxRuntime()


@pytest.fixture
def lowered(zoo, encoded, tmp_path):
    """name, precision -> (model, sample, encodings, artifact, path)."""

    def make(name="residual", precision="int8", granularity="channel"):
        model, sample = zoo[name]
        encodings = encoded(model, [sample], precision, granularity)
        artifact = TARGET.lower(model, encodings, tmp_path)
        return model, sample, encodings, artifact, tmp_path / "model.onnx"

    return make


def edit(path, change):
    """Change the file's graph in place."""
    import onnx

    proto = onnx.load(path)
    change(proto.graph)
    path.write_bytes(proto.SerializeToString())


def set_tensor(graph, name, change):
    """Replace an initializer by what ``change`` makes of its array."""
    from onnx import numpy_helper

    (tensor,) = [t for t in graph.initializer if t.name == name]
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))


def put(index, value):
    def change(array):
        array.flat[index] = value
        return array

    return change


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("precision", ["int8", "int8_dynamic", "int8_weights", "float16"])
@pytest.mark.parametrize("name", ["residual", "words"])
def test_all_that_was_injected_is_read(lowered, name, precision, granularity):
    _, _, encodings, artifact, path = lowered(name, precision, granularity)
    found = TARGET.read(path, artifact)
    assert set(found.tensors) == set(encodings.tensors)
    assert found.digest == encodings.digest
    same, faults = differences(encodings, found)
    assert (same, faults) == (len(encodings.tensors) + sum(v.size for v in encodings.integers.values()), ())


def test_the_kinds_that_are_read(lowered):
    _, _, _, artifact, path = lowered("words", "int8_dynamic")
    found = TARGET.read(path, artifact)
    kinds = {
        key.rpartition(":")[0].rpartition(".")[2] + ":" + key.rpartition(":")[2]: type(value)
        for key, value in found.tensors.items()
    }
    assert kinds == {
        "table:embedding#0:weight": Affine,
        "up:linear#0:weight": Affine,
        "up:linear#0:in": Dynamic,
        "down:linear#0:weight": Affine,
        "down:linear#0:in": Dynamic,
    }


def test_float16_is_read_as_float16(lowered):
    _, _, encodings, artifact, path = lowered("words", "float16")
    assert set(TARGET.read(path, artifact).tensors.values()) == {Float("float16")}
    assert len(encodings.tensors) == 3


def test_a_float_file_holds_no_encodings(zoo, tmp_path):
    from haversack.base.encodings import Encodings

    model, _ = zoo["residual"]
    artifact = TARGET.lower(model, Encodings.none(), tmp_path)
    assert TARGET.read(tmp_path / "model.onnx", artifact).tensors == {}


SCALES = [
    "x:input#0:out",
    "act:relu6#0:out",
    "act:hardtanh#0:out",
    ":add#0:out",
    ":mean#0:out",
    "head:linear#0:out",
]


@pytest.mark.parametrize("key", SCALES)
def test_a_doubled_scale_is_found_and_located(lowered, key):
    model, sample, encodings, artifact, path = lowered()
    if key not in encodings.tensors:
        assert key in {"act:relu6#0:out", "act:hardtanh#0:out"}, "relu6 has one of two names"
        return
    edit(path, lambda graph: set_tensor(graph, f"{key}/scale", lambda scale: scale * 2))
    found = TARGET.read(path, artifact)
    _, faults = differences(encodings, found)
    assert [fault.where for fault in faults] == [key]
    assert "scale" in faults[0].cause
    finding = locate(model, encodings, found, sample)
    assert (finding.kind, finding.layer) == ("scale-changed", key)


def test_a_shifted_zero_point_is_found(lowered):
    _, _, encodings, artifact, path = lowered()
    edit(path, lambda graph: set_tensor(graph, ":add#0:out/zero_point", lambda zero: np.asarray(zero + 1, np.uint8)))
    _, faults = differences(encodings, TARGET.read(path, artifact))
    assert [fault.where for fault in faults] == [":add#0:out"]
    assert "zero-point" in faults[0].cause


@pytest.mark.parametrize("precision", ["int8", "int8_weights", "int8_dynamic"])
@pytest.mark.parametrize("index", [0, 7, -1])
def test_a_flipped_weight_is_found_and_located(lowered, precision, index):
    model, sample, encodings, artifact, path = lowered("residual", precision)
    key = "head:linear#0:weight"
    edit(path, lambda graph: set_tensor(graph, f"{key}/codes", lambda codes: put(index, codes.flat[index] ^ 1)(codes)))
    found = TARGET.read(path, artifact)
    same, faults = differences(encodings, found)
    assert [fault.where for fault in faults] == [key]
    assert "1 of 40 integers differ" in faults[0].cause
    assert artifact.read_back - same <= 1 + sum(model.weights[n.bias].size for n in model.graph.nodes if n.bias)
    finding = locate(model, encodings, found, sample)
    assert (finding.kind, finding.layer) == ("weight-changed", key)


def test_a_changed_weight_scale_is_found(lowered):
    _, _, encodings, artifact, path = lowered()
    edit(path, lambda graph: set_tensor(graph, "two:conv2d#0:weight/scale", lambda s: put(3, s[3] * 2)(s)))
    _, faults = differences(encodings, TARGET.read(path, artifact))
    assert [fault.where for fault in faults] == ["two:conv2d#0:weight"]


def test_embedding_rows_are_read_row_by_row(lowered):
    _, _, encodings, artifact, path = lowered("words", "int8_weights")
    key = "table:embedding#0:weight"
    edit(path, lambda graph: set_tensor(graph, f"{key}/scale", lambda s: put(11, s.flat[11] * 2)(s)))
    found = TARGET.read(path, artifact)
    changed = np.flatnonzero(found.affine(key).scale != encodings.affine(key).scale)
    assert list(changed) == [11]


@pytest.mark.parametrize(
    ("name", "change", "cause"),
    [
        ("head:linear#0:weight/codes", put(0, -128), "-128"),
        ("head:linear#0:weight/zero_point", put(0, 5), "not symmetric integers of 1 to 8 bits"),
        ("head:linear#0:weight/scale", put(0, np.nan), "finite"),
        (":add#0:out/scale", put(0, 0.0), "finite and positive"),
        (":add#0:out/scale", put(0, -1.0), "finite and positive"),
    ],
)
def test_values_that_no_encoding_has(lowered, name, change, cause):
    *_, artifact, path = lowered()
    edit(path, lambda graph: set_tensor(graph, name, change))
    with pytest.raises(VerificationError) as caught:
        TARGET.read(path, artifact)
    assert any(cause in fault.cause for fault in caught.value.faults), caught.value
    assert caught.value.exit_code == 5


def test_a_quantize_node_that_we_did_not_write(lowered):
    import onnx

    *_, artifact, path = lowered()

    def add(graph):
        for node in graph.node:
            if node.op_type == "GlobalAveragePool":
                break
        scale, zero = ":add#0:out/scale", ":add#0:out/zero_point"
        graph.node.append(onnx.helper.make_node("QuantizeLinear", [node.output[0], scale, zero], ["stray"], "stray"))

    edit(path, add)
    with pytest.raises(VerificationError) as caught:
        TARGET.read(path, artifact)
    assert [(f.where, f.cause) for f in caught.value.faults] == [("stray", "QuantizeLinear that was not asked for")]


def test_a_missing_quantize_node(lowered):
    """The clamp's codes are gone: the reader of the convolution takes its float value."""
    *_, artifact, path = lowered()

    def remove(graph):
        kept = [n for n in graph.node if not n.name.startswith(":add#0/")]
        for node in kept:
            for index, name in enumerate(node.input):
                if name == ":add#0:out/value":
                    node.input[index] = ":add#0:out"
        del graph.node[:]
        graph.node.extend(kept)

    edit(path, remove)
    with pytest.raises(VerificationError) as caught:
        TARGET.read(path, artifact)
    assert [fault.where for fault in caught.value.faults] == [":add#0:out"]
    assert "the file has no tensor" in caught.value.faults[0].cause


def test_a_tensor_quantized_with_one_scale_and_read_with_another(lowered):
    *_, artifact, path = lowered()

    def split(graph):
        for node in graph.node:
            if node.name == ":add#0/DequantizeLinear":
                node.input[1] = ":mean#0:out/scale"

    edit(path, split)
    with pytest.raises(VerificationError, match="one scale and read with another"):
        TARGET.read(path, artifact)


def test_a_scale_that_is_computed_is_no_scale(lowered):
    import onnx

    *_, artifact, path = lowered()

    def compute(graph):
        node = onnx.helper.make_node("Identity", [":add#0:out/scale"], ["moving"], "moving")
        graph.node.insert(0, node)
        for each in graph.node:
            if each.name == ":add#0/QuantizeLinear":
                each.input[1] = "moving"

    edit(path, compute)
    with pytest.raises(VerificationError, match="constant scale"):
        TARGET.read(path, artifact)


def test_a_dynamic_layer_without_its_quantization(lowered):
    *_, artifact, path = lowered("words", "int8_dynamic")

    def break_off(graph):
        for node in graph.node:
            if node.op_type == "Mul" and node.name.endswith("/Scale"):
                node.op_type = "Div"

    edit(path, break_off)
    with pytest.raises(VerificationError) as caught:
        TARGET.read(path, artifact)
    assert {"up:linear#0", "down:linear#0"} <= {fault.where for fault in caught.value.faults}


@pytest.mark.parametrize("data", [b"", b"not an onnx file at all", b"\x08\x0a" * 9])
def test_a_foreign_file(lowered, data):
    *_, artifact, path = lowered()
    path.write_bytes(data)
    with pytest.raises(VerificationError):
        TARGET.read(path, artifact)


def test_a_truncated_file(lowered):
    *_, artifact, path = lowered()
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(VerificationError):
        TARGET.read(path, artifact)


def as_float(graph):
    """Let a convolution read its bias as float32, with the values that the integers had."""
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.zeros(8, np.float32), "float_bias"))
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == "one:conv2d#0:bias/value":
                node.input[index] = "float_bias"
    kept = [node for node in graph.node if node.name != "one:conv2d#0:bias/DequantizeLinear"]
    del graph.node[:]
    graph.node.extend(kept)


def without(graph):
    """Let a convolution have no bias."""
    for node in graph.node:
        if "one:conv2d#0:bias/value" in node.input:
            del node.input[2]
    kept = [node for node in graph.node if node.name != "one:conv2d#0:bias/DequantizeLinear"]
    del graph.node[:]
    graph.node.extend(kept)


BIAS_FAULTS = {
    "scale doubled": (lambda graph: set_tensor(graph, "one:conv2d#0:bias/scale", lambda s: s * 2), "or the scale"),
    "one scale": (lambda graph: set_tensor(graph, "one:conv2d#0:bias/scale", lambda s: put(3, s[3] * 2)(s)), "or the"),
    "one code": (lambda graph: set_tensor(graph, "one:conv2d#0:bias/codes", lambda b: put(2, b[2] + 1)(b)), "a code"),
    "float": (as_float, "not stored as int32 codes"),
    "none": (without, "not stored as int32 codes"),
}


@pytest.mark.parametrize("how", BIAS_FAULTS)
def test_a_bias_that_is_not_the_one_written_names_its_layer(lowered, how):
    *_, artifact, path = lowered()
    change, cause = BIAS_FAULTS[how]
    edit(path, change)
    with pytest.raises(VerificationError) as caught:
        TARGET.read(path, artifact)
    assert [fault.where for fault in caught.value.faults] == ["one:conv2d#0"]
    assert cause in caught.value.faults[0].cause
    assert caught.value.exit_code == 5


def test_every_bias_in_integers_has_its_digest(lowered):
    model, _, _, artifact, _ = lowered()
    assert set(artifact.bias_digests) == {node.key for node in model.graph.nodes if node.bias}
    assert len(set(artifact.bias_digests.values())) == len(artifact.bias_digests)


@pytest.mark.parametrize("precision", ["int8_weights", "int8_dynamic", "float16"])
def test_a_float_bias_has_no_digest(lowered, precision):
    *_, artifact, _ = lowered("residual", precision)
    assert artifact.bias_digests == {}


def test_a_bias_that_nobody_asked_for(lowered):
    *_, artifact, path = lowered()
    told = {key: value for key, value in artifact.bias_digests.items() if key != "one:conv2d#0"}
    with pytest.raises(VerificationError) as caught:
        TARGET.read(path, replace(artifact, bias_digests=told))
    assert [(f.where, f.cause) for f in caught.value.faults] == [
        ("one:conv2d#0", "it has a bias in integers that nobody asked for")
    ]


def test_a_changed_bias_is_located_by_the_tensors_of_the_runtime(lowered):
    """What a kernel adds wrongly shows as a changed bias would, in a file that reads back well."""
    model, sample, encodings, artifact, path = lowered()
    edit(path, lambda graph: set_tensor(graph, "one:conv2d#0:bias/codes", lambda b: put(2, b[2] + 50000)(b)))
    finding = locate(
        model,
        encodings,
        encodings,
        sample,
        tensors=lambda inputs, keys: TARGET.tensors(path, artifact, inputs, keys),
    )
    assert finding.kind == "large-error-at"
    assert finding.layer.startswith("act:")


def test_nothing_is_located_in_a_good_file(lowered):
    model, sample, encodings, artifact, path = lowered()
    finding = locate(
        model,
        encodings,
        TARGET.read(path, artifact),
        sample,
        tensors=lambda inputs, keys: TARGET.tensors(path, artifact, inputs, keys),
    )
    assert finding is None
