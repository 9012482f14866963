"""Files that anybody may have spoiled: each is a VerificationError that says what is strange, and never more."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from haversack.base.errors import VerificationError
from haversack.targets.onnxruntime import OnnxRuntime
from haversack.tools.graph.onnx.foreign import Foreign, axis, constant, guarded

TARGET = OnnxRuntime()


@pytest.fixture
def saved(tmp_path):
    """nodes, initializers -> path of a model whose input is x and whose output is y."""

    def make(*nodes, tensors=()):
        ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
        graph = helper.make_graph(list(nodes), "g", ports[:1], ports[1:], initializer=list(tensors))
        (tmp_path / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
        return tmp_path / "m.onnx"

    return make


def told(path, read=list):
    with pytest.raises(VerificationError) as caught:
        guarded(path, read)
    assert caught.value.where == str(path)
    assert "not an ONNX file that we have written" in caught.value.cause
    return caught.value.cause


def first_constant(graph):
    return next(constant(value) for node in graph for value in node.inputs if value.is_initializer())


def test_a_sound_file_is_read(saved):
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "node")
    path = saved(node, tensors=[numpy_helper.from_array(numbers, "w")])
    assert np.array_equal(guarded(path, first_constant), numbers)
    assert guarded(path, lambda graph: [node.name for node in graph]) == ["node"]


def test_what_has_no_numbers_has_no_constant(saved):
    path = saved(helper.make_node("Identity", ["x"], ["y"]))
    assert guarded(path, lambda graph: [constant(node.inputs[0]) for node in graph]) == [None]
    assert constant(None) is None


@pytest.mark.parametrize("data", [b"\x08", b"no file of any kind", b"\x0a" * 40])
def test_bytes_that_are_no_message(tmp_path, data):
    (tmp_path / "m.onnx").write_bytes(data)
    assert "DecodeError" in told(tmp_path / "m.onnx")


@pytest.mark.parametrize("where", [b"nnnn", b"Identity", b"middle"])
def test_text_that_is_none(saved, where):
    path = saved(
        helper.make_node("Identity", ["x"], ["middle"], "nnnn"), helper.make_node("Identity", ["middle"], ["y"], "last")
    )
    path.write_bytes(path.read_bytes().replace(where, b"\xff" * len(where)))
    assert "text" in told(path) or "SerdeError" in told(path)


@pytest.mark.parametrize(
    "op, inputs",
    [
        ("DequantizeLinear", ["x"]),
        ("DequantizeLinear", ["", "x"]),
        ("QuantizeLinear", []),
        ("Conv", ["x"]),
        ("Mul", ["x", ""]),
        ("Cast", []),
        ("MatMulInteger", ["x"]),
        ("Transpose", [""]),
        ("Gather", ["x"]),
    ],
)
def test_an_operator_without_its_inputs(saved, op, inputs):
    assert f"stray: {op} without its inputs" in told(saved(helper.make_node(op, inputs, ["y"], "stray")))


def test_an_operator_without_an_output(saved):
    assert "without its inputs or its output" in told(saved(helper.make_node("Relu", ["x"], [], "stray")))


def test_a_circle(saved):
    ring = [helper.make_node("Relu", [a], [b], f"{a}{b}") for a, b in (("b", "a"), ("a", "b"))]
    assert "makes only later" in told(saved(*ring, helper.make_node("Identity", ["a"], ["y"])))


def spoiled(change):
    tensor = numpy_helper.from_array(np.arange(6, dtype=np.float32), "w")
    change(tensor)
    return tensor


@pytest.mark.parametrize(
    "change, cause",
    [
        (lambda tensor: tensor.dims.append(5), "w: cannot reshape"),
        (lambda tensor: setattr(tensor, "raw_data", b"123"), "w: "),
        (lambda tensor: setattr(tensor, "data_type", 0), "w: "),
        (lambda tensor: (tensor.ClearField("raw_data"), tensor.float_data.extend(range(6))), "not raw bytes"),
        (lambda tensor: (tensor.ClearField("raw_data"), setattr(tensor, "data_type", 6)), "not raw bytes"),
    ],
)
def test_numbers_that_are_none(saved, change, cause):
    path = saved(helper.make_node("MatMul", ["x", "w"], ["y"]), tensors=[spoiled(change)])
    assert cause in told(path, first_constant)


def test_numbers_in_another_file_are_not_fetched(saved, tmp_path):
    (tmp_path / "secret").write_bytes(np.arange(6, dtype=np.float32).tobytes())

    def outside(tensor):
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="secret")

    path = saved(helper.make_node("MatMul", ["x", "w"], ["y"]), tensors=[spoiled(outside)])
    assert "which is no file of ours" in told(path, first_constant)


@pytest.mark.parametrize("value, expected", [(None, None), (1, 1), (-1, -1), (0.5, Foreign), ([1], Foreign)])
def test_an_axis_is_an_integer(saved, value, expected):
    settings = {} if value is None else {"axis": value}
    path = saved(helper.make_node("Softmax", ["x"], ["y"], "node", **settings))
    if expected is Foreign:
        assert "node: its axis is no integer" in told(path, lambda graph: [axis(node) for node in graph])
    else:
        assert guarded(path, lambda graph: [axis(node) for node in graph]) == [expected]


def test_an_error_of_the_reader_itself_is_not_called_a_foreign_file(saved):
    path = saved(helper.make_node("Identity", ["x"], ["y"]))
    with pytest.raises(LookupError):
        guarded(path, lambda graph: {}["a mistake of ours"])


@pytest.mark.parametrize(
    "name, precision", [("residual", "int8"), ("words", "int8_dynamic"), ("words", "int8_weights")]
)
def test_no_flipped_byte_is_more_than_a_fault(zoo, encoded, tmp_path, name, precision):
    model, sample = zoo[name]
    artifact = TARGET.lower(model, encoded(model, [sample], precision), tmp_path)
    path = tmp_path / "model.onnx"
    data, random, faults = path.read_bytes(), np.random.default_rng(11), 0
    for place in random.integers(0, len(data), 250):
        wrong = bytearray(data)
        wrong[place] = int(random.integers(0, 256))
        path.write_bytes(wrong)
        try:
            TARGET.read(path, artifact)
        except VerificationError:
            faults += 1
    assert faults > 50


def test_a_long_chain_of_moves_is_followed_without_depth(zoo, encoded, tmp_path):
    model, sample = zoo["residual"]
    encodings = encoded(model, [sample])
    artifact = TARGET.lower(model, encodings, tmp_path)
    proto = onnx.load(tmp_path / "model.onnx")
    key = "head:linear#0:weight/value"
    at = next(index for index, node in enumerate(proto.graph.node) if key in node.output)
    proto.graph.node[at].output[0] = "t0"
    chain = [helper.make_node("Transpose", [f"t{n}"], [f"t{n + 1}"], perm=[0, 1]) for n in range(1500)]
    chain[-1].output[0] = key
    for node in reversed(chain):
        proto.graph.node.insert(at + 1, node)
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    assert TARGET.read(tmp_path / "model.onnx", artifact).digest == encodings.digest
