"""Every kind of model at every precision: what is written opens, reads back, fuses, and equals the reference."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.base.errors import ConversionError, EnvironmentFault, VerificationError
from haversack.targets.onnxruntime import OnnxRuntime
from haversack.targets.reference import Reference
from haversack.tools.graph.roles import Role, role

TARGET = OnnxRuntime()
NAMES = ("residual", "depthwise", "branches", "words", "sequence")
STORED = ("int8_weights", "float16", "int8_dynamic")


def run(folder, artifact, model, sample, threads=1):
    session = TARGET.open_session(folder / artifact.files[0].path, artifact.session_options, threads)
    feeds = {port.name: array for port, array in zip(model.inputs, sample, strict=True)}
    return tuple(session.run(feeds)[port.name] for port in model.outputs)


def operators(path):
    import onnx

    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("name", NAMES)
def test_static_int8_equals_the_reference_bit_for_bit(zoo, encoded, tmp_path, name, granularity):
    model, sample = zoo[name]
    encodings = encoded(model, [sample], "int8", granularity)
    artifact = TARGET.lower(model, encodings, tmp_path)
    got = run(tmp_path, artifact, model, sample)
    wanted = Reference().run(model, encodings, sample)
    assert [y.tobytes() for y in got] == [y.tobytes() for y in wanted]
    assert TARGET.unfused(tmp_path / artifact.files[0].path, artifact) == ()


@pytest.mark.parametrize("name", NAMES)
def test_static_int8_is_near_float(zoo, encoded, tmp_path, name):
    model, sample = zoo[name]
    whole = TARGET.lower(model, Encodings.none(), tmp_path / "float")
    small = TARGET.lower(model, encoded(model, [sample]), tmp_path / "int8")
    exact = run(tmp_path / "float", whole, model, sample)[0]
    y = run(tmp_path / "int8", small, model, sample)[0]
    assert 0 < np.linalg.norm(y - exact) / np.linalg.norm(exact) < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_what_torch_computes(zoo, tmp_path, name):
    model, sample = zoo[name]
    artifact = TARGET.lower(model, Encodings.none(), tmp_path)
    got = run(tmp_path, artifact, model, sample)[0]
    wanted = Reference().run(model, Encodings.none(), sample)[0]
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)
    assert (artifact.injected, artifact.session_options) == (0, {})


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("precision", STORED)
@pytest.mark.parametrize("name", NAMES)
def test_stored_weights_compute_what_the_reference_does(zoo, encoded, tmp_path, name, precision, granularity):
    model, sample = zoo[name]
    encodings = encoded(model, [sample], precision, granularity)
    artifact = TARGET.lower(model, encodings, tmp_path)
    got = run(tmp_path, artifact, model, sample)[0]
    wanted = Reference().run(model, encodings, sample)[0]
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-6)
    weights = sum(codes.size for codes in encodings.integers.values())
    assert artifact.injected == artifact.read_back == len(encodings.tensors) + weights


def test_the_operators_of_static_int8(zoo, encoded, tmp_path):
    model, sample = zoo["residual"]
    artifact = TARGET.lower(model, encoded(model, [sample]), tmp_path)
    found = operators(tmp_path / artifact.files[0].path)
    assert "Clip" not in found, "relu6 is the grid"
    assert found.count("QuantizeLinear") == 6, "input, two convolutions, add, mean, logits: one pair each"
    assert found.count("DequantizeLinear") == 6 + 3 + 2, "activations, weights, and the biases of two layers"


def test_one_pair_serves_all_readers(zoo, encoded, tmp_path):
    import onnx

    model, sample = zoo["branches"]
    artifact = TARGET.lower(model, encoded(model, [sample]), tmp_path)
    graph = onnx.load(tmp_path / artifact.files[0].path).graph
    value = "x:input#0:out/value"
    readers = [node for node in graph.node if value in node.input]
    makers = [node for node in graph.node if value in node.output]
    assert (len(readers), len(makers)) == (2, 1)


def test_values_that_are_only_moved_stay_codes(zoo, encoded, tmp_path):
    import onnx

    model, sample = zoo["branches"]
    artifact = TARGET.lower(model, encoded(model, [sample]), tmp_path)
    graph = onnx.load(tmp_path / artifact.files[0].path).graph
    by_type = {node.op_type: node for node in graph.node}
    assert all(name.endswith("/codes") for name in by_type["Concat"].input)
    assert by_type["MaxPool"].input[0].endswith("/codes")


def test_the_codes_of_a_moved_tensor_have_their_own_reader(zoo, encoded, tmp_path):
    model, sample = zoo["branches"]
    encodings = encoded(model, [sample])
    artifact = TARGET.lower(model, encodings, tmp_path)
    found = TARGET.read(tmp_path / artifact.files[0].path, artifact)
    pools = [key for key in encodings.tensors if ":max_pool2d#0:out" in key or ":cat#0:out" in key]
    assert len(pools) == 2
    assert all(found.affine(key).scale == encodings.affine(key).scale for key in pools)


def test_a_mixed_plan_leaves_the_other_layers_in_float(zoo, encoded, tmp_path):
    model, sample = zoo["residual"]
    layers = [node.key for node in model.graph.nodes if role(node) is Role.LAYER]
    for chosen in layers:
        encodings = encoded(model, [sample], only={chosen})
        folder = tmp_path / str(layers.index(chosen))
        artifact = TARGET.lower(model, encodings, folder)
        got = run(folder, artifact, model, sample)[0]
        wanted = Reference().run(model, encodings, sample)[0]
        step = max(float(e.scale.max()) for k, e in encodings.tensors.items() if k.endswith(":out"))
        assert np.abs(got - wanted).max() <= 2 * step, "float may differ by rounding, hence by a code"
        assert TARGET.unfused(folder / "model.onnx", artifact) == ()


def test_two_precisions_in_one_file(zoo, encoded, tmp_path):
    model, sample = zoo["words"]
    tables = encoded(model, [sample], "int8_weights", only={n.key for n in model.graph.nodes if n.op == "embedding"})
    layers = encoded(model, [sample], "int8_dynamic", only={n.key for n in model.graph.nodes if n.op == "linear"})
    both = Encodings({**tables.tensors, **layers.tensors}, {**tables.integers, **layers.integers})
    artifact = TARGET.lower(model, both, tmp_path)
    got = run(tmp_path, artifact, model, sample)[0]
    np.testing.assert_allclose(got, Reference().run(model, both, sample)[0], rtol=1e-4, atol=1e-6)
    assert {"MatMulInteger", "Gather"} <= set(operators(tmp_path / "model.onnx"))


@pytest.mark.parametrize("rows", [1, 3, 9])
def test_the_batch_stays_free(zoo, encoded, tmp_path, rows):
    model, sample = zoo["residual"]
    encodings = encoded(model, [sample])
    artifact = TARGET.lower(model, encodings, tmp_path)
    x = np.resize(sample[0], (rows, *sample[0].shape[1:])).astype(np.float32)
    y = run(tmp_path, artifact, model, (x,))[0]
    assert y.shape == (rows, 5)
    assert y.tobytes() == Reference().run(model, encodings, (x,))[0].tobytes()
    assert artifact.inputs[0].spec.shape[0] == "batch" == artifact.outputs[0].spec.shape[0]


def test_a_free_length_stays_free(exported, encoded, tmp_path):
    import torch
    from torch import nn

    torch.manual_seed(0)
    tokens = np.random.default_rng(0).normal(size=(2, 6, 8)).astype(np.float32)
    model = exported(nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 4)), tokens, axes=(0, 1))
    encodings = encoded(model, [(tokens,)])
    artifact = TARGET.lower(model, encodings, tmp_path)
    longer = np.random.default_rng(1).normal(size=(3, 11, 8)).astype(np.float32)
    got = run(tmp_path, artifact, model, (longer,))[0]
    assert got.tobytes() == Reference().run(model, encodings, (longer,))[0].tobytes()
    assert [isinstance(size, str) for size in artifact.inputs[0].spec.shape] == [True, True, False]


def test_threads_do_not_change_integers(zoo, encoded, tmp_path):
    model, sample = zoo["depthwise"]
    artifact = TARGET.lower(model, encoded(model, [sample]), tmp_path)
    one, two = (run(tmp_path, artifact, model, sample, threads)[0] for threads in (1, 2))
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("precision", ["int8", "int8_dynamic", "int8_weights", "float16", "float32"])
def test_the_same_model_gives_the_same_bytes(zoo, encoded, tmp_path, precision):
    from haversack.tools.graph.onnx import skeleton

    model, sample = zoo["words"]
    encodings = Encodings.none() if precision == "float32" else encoded(model, [sample], precision)
    first = TARGET.lower(model, encodings, tmp_path / "one")
    skeleton._cache.clear()
    second = TARGET.lower(model, encodings, tmp_path / "two")
    assert first.files == second.files
    assert (tmp_path / "one/model.onnx").read_bytes() == (tmp_path / "two/model.onnx").read_bytes()


def test_nothing_of_the_workshop_is_in_the_file(zoo, encoded, tmp_path):
    import onnx

    model, sample = zoo["residual"]
    TARGET.lower(model, encoded(model, [sample]), tmp_path)
    data = (tmp_path / "model.onnx").read_bytes()
    proto = onnx.ModelProto.FromString(data)
    assert (proto.producer_name, len(proto.metadata_props), proto.doc_string) == ("haversack", 0, "")
    assert not any(node.doc_string or node.metadata_props for node in proto.graph.node)
    assert not proto.graph.value_info
    for word in (b".py", b"pkg.torch", b"File ", os.sep.encode() + b"home", b"site-packages"):
        assert word not in data


def test_the_artifact_tells_what_was_written(zoo, encoded, tmp_path):
    from haversack.base import digest

    model, sample = zoo["residual"]
    encodings = encoded(model, [sample])
    artifact = TARGET.lower(model, encodings, tmp_path)
    path = tmp_path / "model.onnx"
    assert [(f.path, f.bytes, f.sha256) for f in artifact.files] == [
        ("model.onnx", path.stat().st_size, digest.of_file(path))
    ]
    assert 0 < artifact.download_bytes < artifact.bytes
    assert (artifact.target, artifact.opset >= 17, artifact.runtime_version) == ("onnxruntime", True, "1.18")
    biases = sum(model.weights[n.bias].size for n in model.graph.nodes if n.bias)
    assert artifact.injected == len(encodings.tensors) + sum(v.size for v in encodings.integers.values()) + biases
    assert [port.name for port in artifact.inputs] == [port.name for port in model.inputs]
    assert artifact.outputs[0].spec == model.outputs[0].spec
    assert artifact.cpu_features
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"], "no drafts are left"


def test_other_weights_go_into_the_same_graph(zoo, encoded, tmp_path):
    model, sample = zoo["residual"]
    changed = model.with_weights({name: -value for name, value in model.weights.items()}, "negated")
    encodings = encoded(changed, [sample])
    artifact = TARGET.lower(changed, encodings, tmp_path)
    got = run(tmp_path, artifact, changed, sample)[0]
    assert got.tobytes() == Reference().run(changed, encodings, sample)[0].tobytes()


def test_a_file_name_is_a_setting(zoo, tmp_path):
    model, _ = zoo["residual"]
    artifact = OnnxRuntime(file="net.onnx").lower(model, Encodings.none(), tmp_path)
    assert artifact.files[0].path == "net.onnx"
    assert (tmp_path / "net.onnx").exists()


def test_a_folder_that_is_a_file_is_the_machines_fault(zoo, tmp_path):
    model, _ = zoo["residual"]
    (tmp_path / "taken").write_text("here")
    with pytest.raises(EnvironmentFault) as caught:
        TARGET.lower(model, Encodings.none(), tmp_path / "taken")
    assert caught.value.exit_code == 6
    assert "taken" in str(caught.value)


def test_a_full_disk_leaves_the_file_that_was_there(zoo, encoded, tmp_path):
    import resource

    model, sample = zoo["residual"]
    encodings = encoded(model, [sample])
    size = TARGET.lower(model, encodings, tmp_path / "elsewhere").bytes
    TARGET.lower(model, Encodings.none(), tmp_path / "here")
    before = (tmp_path / "here" / "model.onnx").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, hard))
    try:
        with pytest.raises(EnvironmentFault, match="limit on file sizes"):
            TARGET.lower(model, encodings, tmp_path / "here")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "here").iterdir()] == [("model.onnx", before)]


def test_a_model_over_two_gigabytes_is_refused(zoo, monkeypatch):
    from haversack.targets import onnxruntime

    model, _ = zoo["residual"]
    monkeypatch.setattr(onnxruntime, "_LARGEST", 100)
    faults = TARGET.refusals(model)
    assert len(faults) == 1
    assert "do not fit one ONNX file" in faults[0].cause


def test_what_can_be_taken_is_not_refused(zoo):
    assert [TARGET.refusals(model) for model, _ in zoo.values()] == [()] * len(zoo)


def test_a_writer_that_lies_is_caught(zoo, encoded, tmp_path, monkeypatch):
    """A planted fault in our own writer: one integer off by one."""
    from haversack.targets.onnxruntime import integers

    model, sample = zoo["residual"]
    encodings = encoded(model, [sample])
    real = integers.Codes.weight

    def wrong(self, node):
        value = real(self, node)
        codes = value.producer().inputs[0]
        array = codes.const_value.numpy().copy()
        array.flat[0] ^= 1
        import onnx_ir as ir

        codes.const_value = ir.tensor(array, name=codes.name)
        return value

    monkeypatch.setattr(integers.Codes, "weight", wrong)
    with pytest.raises(VerificationError) as caught:
        TARGET.lower(model, encodings, tmp_path)
    assert len(caught.value.faults) == 3, "one for each layer"
    assert "1 of" in caught.value.faults[0].cause


@pytest.mark.parametrize("how", ["moved", "left out", "in float"])
def test_a_writer_that_spoils_biases_is_caught(zoo, encoded, tmp_path, monkeypatch, how):
    from haversack.targets.onnxruntime import integers

    model, sample = zoo["residual"]
    real = integers.Codes.bias

    def wrong(codes, node, source):
        value = real(codes, node, source)
        if value is None or how == "left out":
            return None
        stored = value.producer().inputs[0]
        if how == "in float":
            numbers = stored.const_value.numpy() * value.producer().inputs[1].const_value.numpy()
            return codes.sheet.constant(f"{node.key}:bias/float", numbers.astype(np.float32))
        import onnx_ir as ir

        stored.const_value = ir.tensor(stored.const_value.numpy() + 1, name=stored.name)
        return value

    monkeypatch.setattr(integers.Codes, "bias", wrong)
    with pytest.raises(VerificationError) as caught:
        TARGET.lower(model, encoded(model, [sample]), tmp_path)
    layers = {node.key for node in model.graph.nodes if node.bias}
    told = {fault.where: fault.cause for fault in caught.value.faults}
    assert layers <= set(told)
    assert all(("a code" if how == "moved" else "not stored as int32") in told[key] for key in layers)
    assert not (tmp_path / "model.onnx").exists()


def test_an_unsupported_operation_names_its_layer(exported):
    import torch
    from torch import nn

    class Odd(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.odd = nn.Linear(4, 4), Odd()

        def forward(self, x):
            return self.odd(self.first(x))

    model = exported(Net(), np.zeros((2, 4), np.float32))
    faults = TARGET.refusals(model)
    assert [fault.where for fault in faults] == ["odd:special_bessel_j0#0"]
    with pytest.raises(ConversionError, match="odd:special_bessel_j0#0") as caught:
        TARGET.lower(model, Encodings.none(), Path("never"))
    assert caught.value.exit_code == 4
    assert not Path("never").exists() or not list(Path("never").iterdir())
