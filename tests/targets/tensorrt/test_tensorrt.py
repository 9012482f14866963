"""ONNX files with explicit symmetric Q/DQ: their form, what they mean, and that planted faults are found in place."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Affine, Encodings, Float
from haversack.base.errors import ConversionError, VerificationError
from haversack.base.plan import Plan, Step
from haversack.compress import encode
from haversack.compress.plans import uniform
from haversack.profile.ranges import ranges
from haversack.targets.reference import Reference
from haversack.targets.tensorrt import TensorRT
from haversack.targets.tensorrt.read import checked
from haversack.tools.graph import canonical
from haversack.tools.graph.injection import count, differences

TARGET = TensorRT()
FIRST = "one:conv2d#0"


def exported(module, *examples):
    import torch

    tensors = tuple(torch.from_numpy(array) for array in examples)
    shapes = tuple({0: torch.export.Dim.AUTO} for _ in tensors)
    return canonical.to_model(torch.export.export(module.eval(), tensors, dynamic_shapes=shapes), "tiny")


def networks():
    import torch
    from torch import nn

    torch.manual_seed(5)

    class Images(nn.Module):
        """A residual block with clamps, a pad of its own, a pool and a concatenation."""

        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.side, self.head = nn.Conv2d(8, 4, 1), nn.Linear(12, 5)

        def forward(self, x):
            x = nn.functional.relu6(self.one(nn.functional.pad(x, (0, 1, 0, 1))))
            x = torch.relu(x + self.two(x))
            x = torch.cat([nn.functional.max_pool2d(x, 2), nn.functional.max_pool2d(self.side(x), 2)], 1)
            return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))

    class Rows(nn.Module):
        """As in a transformer: linear layers over three axes, a norm and a softmax in float, one table."""

        def __init__(self):
            super().__init__()
            self.table, self.up, self.down = nn.Embedding(9, 6), nn.Linear(6, 12), nn.Linear(12, 6, bias=False)
            self.norm = nn.LayerNorm(6)

        def forward(self, ids):
            x = self.norm(self.table(ids))
            return x + self.down(nn.functional.gelu(self.up(x)).softmax(-1))

    rng = np.random.default_rng(2)
    return {
        "images": (Images(), rng.normal(size=(8, 3, 12, 12)).astype(np.float32)),
        "rows": (Rows(), rng.integers(0, 9, (4, 5))),
    }


@pytest.fixture(scope="module")
def zoo():
    """Name -> (Model, sample)."""
    return {name: (exported(module, data), (data,)) for name, (module, data) in networks().items()}


def encoded(model, sample, precision="int8"):
    demands = TARGET.constraints(model.graph)
    layers = uniform(model.graph, precision, integer_ops=demands.integer_ops)
    plan = Plan("tensorrt", layers, (), Step("minmax"), ("tensorrt",))
    return encode.encode(model, plan, ranges(model, [sample]) if precision == "int8" else {}, demands)[0]


def run(path, sample, *, optimized=False):
    """Return what ONNX Runtime makes of a file as it stands: a plausibility check, for TensorRT is not here."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options)
    return session.run(None, dict(zip([port.name for port in session.get_inputs()], sample, strict=True)))[0]


@pytest.mark.parametrize(
    "name, precision", [("images", "int8"), ("rows", "int8"), ("images", "int8_weights"), ("rows", "int8_weights")]
)
def test_every_number_is_read_back_and_means_what_the_reference_says(zoo, tmp_path, name, precision):
    model, sample = zoo[name]
    encodings = encoded(model, sample, precision)
    artifact = TARGET.lower(model, encodings, tmp_path)
    path = tmp_path / "model.onnx"
    assert artifact.injected == artifact.read_back == count(encodings) > 50
    assert differences(encodings, TARGET.read(path, artifact)) == (count(encodings), ())
    (wanted,) = Reference().run(model, encodings, sample)
    (exact,) = Reference().run(model, Encodings.none(), sample)
    found = run(path, sample)
    step = max((float(one.scale) for key, one in encodings.tensors.items() if key.endswith(":out")), default=1e-4)
    assert np.abs(found - wanted).max() <= 1.01 * step  # float kernels may flip a code at a tie
    assert np.mean(np.abs(found - wanted) < 1e-4) > 0.9
    assert np.abs(wanted - exact).max() > 0


def test_the_form_is_the_one_that_its_parser_documents(zoo, tmp_path):
    import onnx
    from onnx import numpy_helper

    model, sample = zoo["images"]
    artifact = TARGET.lower(model, encoded(model, sample), tmp_path)
    graph = onnx.load(tmp_path / "model.onnx").graph
    held = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) > 10
    for node in pairs:
        scale, zero = held[node.input[1]], held[node.input[2]]
        assert (scale.dtype, zero.dtype) == (np.float32, np.int8)
        assert not zero.any()
        assert (scale > 0).all()
        assert scale.ndim == 0 or node.attribute[0].i == 0
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(layers) == 4
    for node in layers:
        source = next(one for one in pairs if one.output[0] == node.input[1])
        assert source.op_type == "DequantizeLinear"
        assert held[source.input[0]].dtype == np.int8
        assert held[source.input[0]].min() >= -127
        assert held[node.input[2]].dtype == np.float32
    assert {"Relu", "Clip"} <= {node.op_type for node in graph.node}
    assert 9 <= artifact.opset <= 25
    assert not any("uint8" in str(one.dtype) for one in held.values())


def test_the_float_file_is_float(zoo, tmp_path):
    model, sample = zoo["images"]
    artifact = TARGET.lower(model, Encodings.none(), tmp_path)
    np.testing.assert_allclose(
        run(tmp_path / "model.onnx", sample), Reference().run(model, Encodings.none(), sample)[0], rtol=1e-4, atol=1e-5
    )
    assert (artifact.injected, artifact.absorbed) == (0, {})


def test_a_pad_that_left_the_graph_is_served_by_its_source(zoo, tmp_path):
    model, sample = zoo["images"]
    encodings = encoded(model, sample)
    artifact = TARGET.lower(model, encodings, tmp_path)
    assert set(artifact.absorbed) | set(artifact.tensor_names) >= {k for k in encodings.tensors if k.endswith(":out")}


def edited(path, edit):
    import onnx

    file = onnx.load(path)
    edit({one.name: one for one in file.graph.initializer}, file.graph)
    onnx.save(file, path)


def one_more(name):
    def edit(held, _):
        data = np.frombuffer(held[name].raw_data, np.int8).copy()
        data[3] += 1 if data[3] < 127 else -1
        held[name].raw_data = data.tobytes()

    return edit


def scaled(name):
    def edit(held, _):
        data = np.frombuffer(held[name].raw_data, np.float32).copy()
        held[name].raw_data = np.nextafter(data, np.float32(9)).tobytes()

    return edit


@pytest.mark.parametrize(
    "edit, where, cause",
    [
        (one_more(f"{FIRST}:weight/codes"), f"{FIRST}:weight", "1 of 216 integers differ"),
        (scaled(f"{FIRST}:weight/scale"), f"{FIRST}:weight", "scale"),
        (scaled("side:conv2d#0:out/scale"), "side:conv2d#0:out", "scale"),
    ],
    ids=("a code", "a weight's scale", "an activation's scale"),
)
def test_a_changed_number_is_found_in_its_place(zoo, tmp_path, edit, where, cause):
    model, sample = zoo["images"]
    encodings = encoded(model, sample)
    artifact = TARGET.lower(model, encodings, tmp_path)
    edited(tmp_path / "model.onnx", edit)
    _, faults = differences(encodings, TARGET.read(tmp_path / "model.onnx", artifact))
    assert [fault.where for fault in faults] == [where]
    assert cause in faults[0].cause


def shifted(held, _):
    held["side:conv2d#0:out/zero_point"].raw_data = b"\x05"


def lowest(held, _):
    name = f"{FIRST}:weight/codes"
    held[name].raw_data = b"\x80" + held[name].raw_data[1:]


def apart(held, graph):
    import onnx

    other = onnx.TensorProto()
    other.CopyFrom(held["side:conv2d#0:out/scale"])
    other.name, other.raw_data = "other", np.float32(3).tobytes()
    graph.initializer.append(other)
    next(node for node in graph.node if node.name == "side:conv2d#0/DequantizeLinear").input[1] = "other"


def stray(_, graph):
    import onnx

    node = onnx.helper.make_node("QuantizeLinear", list(graph.node[0].input), ["lonely"], name="lonely")
    graph.node.insert(0, node)


def unquantized(_, graph):
    next(node for node in graph.node if node.name == "side:conv2d#0/QuantizeLinear").op_type = "Identity"


@pytest.mark.parametrize(
    "edit, where, cause",
    [
        (shifted, "side:conv2d#0:out", "not symmetric"),
        (lowest, f"{FIRST}:weight", "-128"),
        (apart, "side:conv2d#0:out", "quantized with one scale and read with another"),
        (stray, "lonely", "that was not asked for"),
        (unquantized, "side:conv2d#0:out", "no QuantizeLinear"),
    ],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_a_form_that_is_not_ours(zoo, tmp_path, edit, where, cause):
    model, sample = zoo["images"]
    artifact = TARGET.lower(model, encoded(model, sample), tmp_path)
    edited(tmp_path / "model.onnx", edit)
    with pytest.raises(VerificationError) as caught:
        TARGET.read(tmp_path / "model.onnx", artifact)
    assert any(fault.where == where and cause in fault.cause for fault in caught.value.faults)


def test_onnx_own_checker_and_the_interface(zoo, tmp_path):
    import onnx

    model, _ = zoo["images"]
    TARGET.lower(model, Encodings.none(), tmp_path)
    path = tmp_path / "model.onnx"
    checked(path, model)
    file = onnx.load(path)
    file.graph.output[0].name = "other"
    onnx.save(file, path)
    with pytest.raises(VerificationError, match="checker refuses it"):
        checked(path, model)
    file.graph.node[-1].output[0] = "other"
    onnx.save(file, path)
    with pytest.raises(VerificationError, match="its interface is"):
        checked(path, model)


def test_what_it_cannot_hold_is_told_together(zoo, tmp_path):
    model, sample = zoo["images"]
    whole = encoded(model, sample)
    clamped = Affine(8, False, None, np.array(0.02, np.float32), np.array(0, np.int32))
    tensors = {**whole.tensors, "side:conv2d#0:out": clamped, "head:linear#0:weight": Float("float16")}
    integers = {key: codes for key, codes in whole.integers.items() if not key.startswith("head")}
    with pytest.raises(ConversionError) as caught:
        TARGET.lower(model, Encodings(tensors, integers), tmp_path)
    told = {fault.where: fault.cause for fault in caught.value.faults}
    assert "zero-point 128 (0 as int8), not 0" in told["side:conv2d#0:out"]
    assert "held as Affine, not as Float" in told["head:linear#0:weight"]
    assert len(told) == 2


def test_constraints_are_symmetric_and_otherwise_the_law(zoo):
    model, _ = zoo["images"]
    found = TARGET.constraints(model.graph)
    assert found.symmetric
    assert {"conv2d", "linear", "add"} <= found.integer_ops
