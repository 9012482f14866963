"""Attention as one operator: where it stands, that it computes the same, and where it is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haversack.base.encodings import Encodings
from haversack.targets.onnxruntime import OnnxRuntime, write

TARGET = OnnxRuntime()
WIDTH = 24


def network(**asked):
    """Return an attention of 3 heads; ``asked`` sets what differs from the usual."""
    import torch
    from torch import nn

    kind = {"factor": "after", "scale": 8**-0.5, "mask": True, "value": 8, "spread": "", "gives": "", "cross": False}
    kind |= {"shared": "", **asked}

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = 1 if kind["shared"] == "one" else 3
            self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 8 * self.heads)
            self.value, self.out = nn.Linear(WIDTH, kind["value"] * 3), nn.Linear(3 * kind["value"], WIDTH)

        def forward(self, x, mask):
            other = x[:, 1:] * 2 if kind["cross"] else x
            q, k, v = self.query(x), self.key(other), self.value(other)
            q, v = (each.view(*each.shape[:2], 3, -1).transpose(1, 2) for each in (q, v))
            k = k.view(*other.shape[:2], self.heads, -1).transpose(1, 2)
            k = k[:, :1].expand(-1, 3, -1, -1) if kind["shared"] == "expanded" else k
            if kind["factor"] == "torch":
                seen = mask[:, None, None, :].bool().expand(-1, 1, x.shape[1], -1) if kind["mask"] else None
                made = nn.functional.scaled_dot_product_attention(q, k, v, seen)
                return self.out(made.transpose(1, 2).reshape(*x.shape[:2], -1))
            q = q * kind["scale"] if kind["factor"] == "before" else q
            scores = q @ k.transpose(2, 3)
            if kind["factor"] != "before":
                scores = scores / (1 / kind["scale"]) if kind["factor"] == "under" else scores * kind["scale"]
            if kind["mask"]:
                seen = (
                    mask[:, None, None, :]
                    if kind["spread"] == "rows"
                    else mask[:, None, None, :] * mask[:, None, :, None]
                )
                far = (1.0 - seen[..., -scores.shape[-1] :]) * -1e9
                far = far[:1] if kind["spread"] == "batch" else far
                far = far * torch.tensor([1.0, 2.0, 3.0])[:, None, None] if kind["spread"] == "heads" else far
                scores = far + scores if kind["gives"] == "turned" else scores + far
            weights = torch.softmax(scores, -2 if kind["gives"] == "other axis" else -1)
            made = self.out((weights @ v).transpose(1, 2).reshape(*x.shape[:2], -1))
            return (made, weights) if kind["gives"] == "weights" else made

    torch.manual_seed(0)
    return Attention()


def batch(rows=3, length=7, seed=0):
    """Return x and a mask whose first place is always seen."""
    rng = np.random.default_rng(seed)
    mask = (rng.random((rows, length)) < 0.7).astype(np.float32)
    mask[:, 0] = 1
    return rng.normal(size=(rows, length, WIDTH)).astype(np.float32), mask


def lowered(model, encodings, folder):
    """Return (operators of the file, its session, its artifact)."""
    import onnx

    artifact = TARGET.lower(model, encodings, folder)
    ops = [node.op_type for node in onnx.load(folder / "model.onnx").graph.node]
    return ops, TARGET.open_session(folder / "model.onnx", artifact.session_options), artifact


def both(model, encodings, folder, monkeypatch):
    """Return what ``lowered`` gives, for the file and for one in which attention is left as it was exported."""
    made = lowered(model, encodings, folder / "one")
    with monkeypatch.context() as without:
        without.setattr(write, "write_attention", lambda sheet: None)
        return made, lowered(model, encodings, folder / "apart")


def outputs(session, sample):
    return session.run(dict(zip([port.name for port in session.inputs], sample, strict=True)))


TAKEN = {
    "as language models do": {},
    "a number below": {"factor": "under"},
    "queries multiplied": {"factor": "before"},
    "PyTorch's own": {"factor": "torch", "mask": False},
    "without a mask": {"mask": False},
    "one mask for all rows of the batch": {"spread": "batch"},
    "a mask for each head": {"spread": "heads"},
    "a mask of another length": {"cross": True},
    "mask first": {"gives": "turned"},
    "values of another width": {"value": 5},
    "keys of another length": {"cross": True, "mask": False},
    "no factor": {"scale": 1.0},
}


@pytest.mark.parametrize("kind", TAKEN.values(), ids=TAKEN)
def test_it_is_one_operator_and_computes_the_same_bits(exported, tmp_path, monkeypatch, kind):
    model = exported(network(**kind), *batch(), axes=(0, 1))
    (ops, session, artifact), (apart, other, before) = both(model, Encodings.none(), tmp_path, monkeypatch)
    assert (ops.count("Attention"), ops.count("Softmax"), apart.count("Softmax")) == (1, 0, 1)
    assert len(ops) < len(apart) - 5
    assert (artifact.opset, artifact.runtime_version, before.runtime_version) == (23, "1.23", "1.18")
    for rows, length in ((1, 5), (3, 7), (4, 12)):
        sample = batch(rows, length, seed=length)
        for name, array in outputs(session, sample).items():
            assert np.array_equal(array, outputs(other, sample)[name]), (rows, length)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(1, 4), length=st.integers(2, 40), seed=st.integers(0, 1000))
def test_it_computes_what_pytorch_does(whole, rows, length, seed):
    import torch

    module, session = whole
    sample = batch(rows, length, seed)
    with torch.no_grad():
        wanted = module(*map(torch.from_numpy, sample)).numpy()
    np.testing.assert_allclose(outputs(session, sample)["output"], wanted, rtol=1e-4, atol=2e-6)


@pytest.fixture(scope="module")
def whole(exported, tmp_path_factory):
    """A network, and a session of its float file."""
    module = network().eval()
    model = exported(module, *batch(), axes=(0, 1))
    return module, lowered(model, Encodings.none(), tmp_path_factory.mktemp("whole"))[1]


LEFT = {
    "a mask that is spread over the rows": {"spread": "rows"},
    "heads of keys that several read": {"shared": "expanded"},
    "one head of keys for all": {"shared": "one"},
    "PyTorch's own with a mask": {"factor": "torch"},
    "weights that are given out": {"gives": "weights"},
    "a softmax along another axis": {"gives": "other axis"},
}


@pytest.mark.parametrize("kind", LEFT.values(), ids=LEFT)
def test_what_the_operator_does_not_do_stays_as_it_was(exported, tmp_path, monkeypatch, kind):
    model = exported(network(**kind), *batch(), axes=(0, 1))
    (ops, _, artifact), (apart, *_) = both(model, Encodings.none(), tmp_path, monkeypatch)
    assert ops == apart
    assert "Attention" not in ops
    assert artifact.opset < 23


def test_tensors_with_codes_keep_their_places(exported, encoded, tmp_path):
    model = exported(network(), *batch(), axes=(0, 1))
    encodings = encoded(model, [batch()], "int8")
    ops, _, artifact = lowered(model, encodings, tmp_path)
    assert "Attention" not in ops
    assert TARGET.read(tmp_path / "model.onnx", artifact).integers.keys() == encodings.integers.keys()


@pytest.mark.parametrize("precision", ["int8_dynamic", "int8_weights", "float16"])
def test_weights_are_read_back_layer_by_layer(exported, encoded, tmp_path, monkeypatch, precision):
    model = exported(network(), *batch(), axes=(0, 1))
    encodings = encoded(model, [batch()], precision)
    (ops, session, artifact), (_, other, _) = both(model, encodings, tmp_path, monkeypatch)
    assert ops.count("Attention") == 1
    read = TARGET.read(tmp_path / "one" / "model.onnx", artifact)
    assert read.tensors.keys() == encodings.tensors.keys()
    for key, integers in encodings.integers.items():
        assert np.array_equal(read.integers[key], integers)
    sample = batch(2, 9)
    assert np.array_equal(outputs(session, sample)["output"], outputs(other, sample)["output"])


def test_int8_layers_beside_it_still_run_in_integers(exported, encoded, tmp_path, monkeypatch):
    """The later opset keeps no kernel from being fused."""
    from torch import nn

    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.attention, self.last = nn.Linear(WIDTH, WIDTH), network(), nn.Linear(WIDTH, WIDTH)

        def forward(self, x, mask):
            return self.last(self.attention(self.first(x), mask))

    model = exported(Beside(), *batch(), axes=(0, 1))
    layers = {"first:linear#0", "last:linear#0"}
    encodings = encoded(model, [batch()], "int8", only=layers)
    (ops, session, artifact), (_, other, _) = both(model, encodings, tmp_path, monkeypatch)
    assert (ops.count("Attention"), ops.count("QuantizeLinear")) == (1, 4)
    assert TARGET.unfused(tmp_path / "one" / "model.onnx", artifact) == ()
    sample = batch(2, 9)
    assert np.array_equal(outputs(session, sample)["output"], outputs(other, sample)["output"])


def test_its_time_and_its_tensors_have_keys(exported, tmp_path):
    model = exported(network(), *batch(), axes=(0, 1))
    _, session, artifact = lowered(model, Encodings.none(), tmp_path)
    path = tmp_path / "model.onnx"
    assert TARGET.layer_seconds(path, artifact, batch(), runs=2)[":matmul#1"] > 0
    keys = {":reshape#0:out", "query:linear#0:out"}
    assert keys <= artifact.tensor_names.keys()
    assert not {":softmax#0:out", ":matmul#0:out"} & artifact.tensor_names.keys()
    found = TARGET.tensors(path, artifact, batch(), sorted(keys))
    assert {key: array.shape for key, array in found.items()} == dict.fromkeys(keys, (3, 7, WIDTH))
    weight, bias = model.weights["out.weight"], model.weights["out.bias"]
    made = found[":reshape#0:out"] @ weight.T + bias
    np.testing.assert_allclose(made, outputs(session, batch())["output"], rtol=1e-4, atol=1e-5)


def test_an_attention_that_is_an_output_keeps_the_users_name(exported, tmp_path):
    from torch import nn

    module = network()
    module.out = nn.Identity()
    ops, session, artifact = lowered(
        exported(module, *batch(), axes=(0, 1), outputs=("seen",)), Encodings.none(), tmp_path
    )
    assert ops.count("Attention") == 1
    assert outputs(session, batch(1, 4))["seen"].shape == (1, 4, WIDTH)
    assert artifact.tensor_names[":reshape#0:out"] == "seen"
