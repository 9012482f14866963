"""Weights stored in fewer bits: what the file is like, and what ONNX Runtime makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Dynamic, Encodings
from haversack.targets.onnxruntime import OnnxRuntime
from haversack.targets.onnxruntime.session import options, start

TARGET = OnnxRuntime()


def optimised(path, artifact, folder):
    """Return operator -> how many, after ONNX Runtime's own optimisation."""
    from collections import Counter

    import onnx

    chosen = options(artifact.session_options, 1)
    chosen.optimized_model_filepath = str(folder / "optimised.onnx")
    start(str(path), chosen, "")
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


@pytest.fixture(scope="module")
def wide(exported):
    """A model large enough that its weights are its size: embedding, three linears that read one tensor, one more."""
    import torch
    from torch import nn

    torch.manual_seed(0)

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(500, 64)
            self.query, self.key, self.value = (nn.Linear(64, 64) for _ in range(3))
            self.out = nn.Linear(64, 64)

        def forward(self, tokens):
            x = self.table(tokens)
            weights = torch.softmax(self.query(x) @ self.key(x).transpose(1, 2) / 8, -1)
            return self.out(weights @ self.value(x))

    tokens = np.random.default_rng(0).integers(0, 500, (2, 9))
    return exported(Attention(), tokens, axes=(0, 1)), (tokens,)


@pytest.mark.parametrize(("precision", "share"), [("int8_weights", 0.30), ("int8_dynamic", 0.30), ("float16", 0.54)])
def test_the_file_is_as_small_as_its_weights(wide, encoded, tmp_path, precision, share):
    model, sample = wide
    whole = TARGET.lower(model, Encodings.none(), tmp_path / "float")
    small = TARGET.lower(model, encoded(model, [sample], precision), tmp_path / "small")
    assert small.bytes < share * whole.bytes


@pytest.mark.parametrize("precision", ["int8_weights", "int8_dynamic", "float16"])
def test_it_computes_nearly_what_float_does(wide, encoded, tmp_path, precision):
    model, sample = wide
    results = []
    for name, encodings in (("float", Encodings.none()), ("small", encoded(model, [sample], precision))):
        artifact = TARGET.lower(model, encodings, tmp_path / name)
        session = TARGET.open_session(tmp_path / name / "model.onnx", artifact.session_options)
        results.append(session.run({"tokens": sample[0]})["output"])
    error = np.linalg.norm(results[1] - results[0]) / np.linalg.norm(results[0])
    assert 0 < error < 0.03


def test_layers_that_read_one_tensor_share_its_quantization(wide, encoded, tmp_path):
    import onnx

    model, sample = wide
    TARGET.lower(model, encoded(model, [sample], "int8_dynamic"), tmp_path)
    ops = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert (ops.count("MatMulInteger"), ops.count("DynamicQuantizeLinear")) == (4, 2)


def test_dynamic_layers_are_fused(wide, encoded, tmp_path):
    model, sample = wide
    artifact = TARGET.lower(model, encoded(model, [sample], "int8_dynamic"), tmp_path)
    found = optimised(tmp_path / "model.onnx", artifact, tmp_path)
    assert found["MatMulIntegerToFloat"] + found["DynamicQuantizeMatMul"] == 4
    assert found["MatMulInteger"] == 0


def test_an_embeddings_table_stays_in_integers(wide, encoded, tmp_path):
    import onnx
    from onnx import TensorProto

    model, sample = wide
    artifact = TARGET.lower(model, encoded(model, [sample], "int8_weights"), tmp_path)
    optimised(tmp_path / "model.onnx", artifact, tmp_path)
    graph = onnx.load(tmp_path / "optimised.onnx").graph
    tables = {tuple(t.dims): t.data_type for t in graph.initializer if t.dims and t.dims[0] == 500}
    assert tables == {(500, 64): TensorProto.INT8, (500, 1): TensorProto.FLOAT}


def test_stored_weights_are_folded_when_the_file_is_opened(wide, encoded, tmp_path):
    model, sample = wide
    layers = {node.key for node in model.graph.nodes if node.op == "linear"}
    for precision in ("int8_weights", "float16"):
        artifact = TARGET.lower(model, encoded(model, [sample], precision, only=layers), tmp_path)
        found = optimised(tmp_path / "model.onnx", artifact, tmp_path)
        assert found["Cast"] == 0, precision
        assert found["DequantizeLinear"] == 0


@pytest.mark.parametrize("precision", ["int8_weights", "float16", "int8_dynamic"])
def test_only_integer_kernels_ask_for_the_session_option(wide, encoded, tmp_path, precision):
    from haversack.targets.onnxruntime import cpu

    model, sample = wide
    artifact = TARGET.lower(model, encoded(model, [sample], precision), tmp_path)
    wanted = cpu.session_options(cpu.features()) if precision == "int8_dynamic" else {}
    assert artifact.session_options == wanted


def test_a_table_and_a_layer_that_share_one_parameter(exported, encoded, tmp_path):
    """Tied weights: one parameter, two encodings, one for each that reads it."""
    import torch
    from torch import nn

    torch.manual_seed(0)

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(20, 8)
            self.head = nn.Linear(8, 20, bias=False)
            self.head.weight = self.table.weight

        def forward(self, tokens):
            return self.head(self.table(tokens))

    tokens = np.random.default_rng(0).integers(0, 20, (2, 5))
    model = exported(Tied(), tokens)
    mixed = encoded(model, [(tokens,)], "int8_weights", only={"table:embedding#0"})
    dynamic = encoded(model, [(tokens,)], "int8_dynamic", only={"head:linear#0"})
    both = Encodings({**mixed.tensors, **dynamic.tensors}, {**mixed.integers, **dynamic.integers})
    for encodings, kinds in ((mixed, 1), (dynamic, 2), (both, 3)):
        artifact = TARGET.lower(model, encodings, tmp_path)
        assert artifact.injected == artifact.read_back
        found = TARGET.read(tmp_path / "model.onnx", artifact)
        assert len(found.tensors) == kinds
        assert sum(isinstance(value, Dynamic) for value in found.tensors.values()) == kinds // 2


@pytest.mark.parametrize("precision", ["int8_weights", "float16"])
def test_a_layer_that_is_called_at_every_step_has_its_weight_once(exported, encoded, tmp_path, precision):
    import onnx
    import torch
    from torch import nn

    torch.manual_seed(0)

    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.step = nn.Linear(64, 64)

        def forward(self, x):
            for _ in range(4):
                x = torch.tanh(self.step(x))
            return x

    x = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
    model = exported(Steps(), x)
    artifact = TARGET.lower(model, encoded(model, [(x,)], precision), tmp_path)
    held = [one for one in onnx.load(tmp_path / "model.onnx").graph.initializer if len(one.raw_data) >= 64 * 64]
    assert [tuple(one.dims) for one in held] == [(64, 64)]
    assert artifact.injected == artifact.read_back
    assert {f"step:linear#{call}:weight" for call in range(4)} <= set(
        TARGET.read(tmp_path / "model.onnx", artifact).tensors
    )


def test_a_constant_input_gives_no_nan(wide, encoded, tmp_path):
    """All zeros have no range: the run-time scale must not become zero."""
    model, sample = wide
    model = model.with_weights({"table.weight": np.zeros((500, 64), np.float32)})
    artifact = TARGET.lower(model, encoded(model, [sample], "int8_dynamic"), tmp_path)
    y = TARGET.open_session(tmp_path / "model.onnx", artifact.session_options).run({"tokens": sample[0]})["output"]
    assert np.isfinite(y).all()
