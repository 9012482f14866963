"""The float graph without weights: which of its tensors is which, and that this is beyond doubt."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Affine, Encodings
from haversack.base.errors import ConversionError
from haversack.targets.onnxruntime import OnnxRuntime
from haversack.targets.reference import Reference
from haversack.tools.graph import execute
from haversack.tools.graph.onnx import skeleton as module
from haversack.tools.graph.onnx.skeleton import skeleton

TARGET = OnnxRuntime()
NAMES = ("residual", "depthwise", "branches", "words", "sequence")


@pytest.mark.parametrize("name", NAMES)
def test_every_mapped_tensor_is_the_value_that_torch_computes(zoo, tmp_path, name):
    model, sample = zoo[name]
    artifact = TARGET.lower(model, Encodings.none(), tmp_path)
    wanted = {}
    execute.Executor(model).run(sample, observe=lambda node, value: wanted.update({node.out: value.numpy().copy()}))
    found = TARGET.tensors(tmp_path / "model.onnx", artifact, sample, sorted(wanted))
    assert set(found) == set(artifact.tensor_names)
    for key, value in found.items():
        assert value.shape == wanted[key].shape, key
        np.testing.assert_allclose(value, wanted[key], rtol=1e-4, atol=1e-5, err_msg=key)
    missing = {node.out for node in model.graph.nodes} - set(found)
    assert all(any(word in key for word in ("pad", "view", "flatten", "dropout")) for key in missing), missing


def test_a_pad_that_a_convolution_does_itself_is_absorbed(zoo):
    model, _ = zoo["depthwise"]
    frame = skeleton(model)
    pad = next(node.key for node in model.graph.nodes if node.op in ("pad", "constant_pad_nd"))
    assert pad not in frame.names
    assert frame.source(pad) == "x:input#0"
    assert frame.source("x:input#0") == "x:input#0"


def test_the_weights_are_inputs(zoo):
    model, _ = zoo["residual"]
    graph = skeleton(model).load().graph
    assert [value.name for value in graph.inputs][:1] == ["x"]
    assert {value.name for value in graph.inputs[1:]} == {f"parameter {name}" for name in model.weights}
    assert sum(value.const_value.size for value in graph.initializers.values()) < 10


def test_one_skeleton_serves_all_weights(zoo):
    model, _ = zoo["residual"]
    other = model.with_weights({name: value + 1 for name, value in model.weights.items()})
    assert skeleton(other) is skeleton(model)


def test_another_interface_is_another_skeleton(exported):
    from torch import nn

    layer = nn.Linear(4, 4)
    x = np.zeros((2, 4), np.float32)
    one = skeleton(exported(layer, x, names=("a",), outputs=("b",)))
    two = skeleton(exported(layer, x, names=("c",), outputs=("b",)))
    assert (one.names["a:input#0"], two.names["c:input#0"]) == ("a", "c")


def test_integer_buffers_decide_what_is_remembered(exported):
    import torch
    from torch import nn

    class Pick(nn.Module):
        def __init__(self, rows):
            super().__init__()
            self.register_buffer("rows", torch.tensor(rows))

        def forward(self, x):
            return x[:, self.rows] * 2

    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    one, two = (exported(Pick(rows), x) for rows in ([0, 2], [3, 1]))
    assert one.graph.digest == two.graph.digest
    assert skeleton(one) is not skeleton(two)


def test_the_memory_is_bounded(zoo, monkeypatch):
    monkeypatch.setattr(module, "_KEPT", 2)
    monkeypatch.setattr(module, "_cache", type(module._cache)())
    for name in NAMES[:3]:
        skeleton(zoo[name][0])
    assert len(module._cache) == 2
    assert skeleton(zoo[NAMES[2]][0]) in module._cache.values()


def test_nodes_tell_their_keys(zoo):
    from haversack.tools.graph.onnx.naming import key_of

    model, _ = zoo["residual"]
    names = [node.name for node in skeleton(model).load().graph]
    assert len(set(names)) == len(names)
    assert {key_of(name) for name in names} <= set(model.graph.by_key) | {""}
    assert "one:conv2d#0" in names


def test_a_mean_over_the_image_is_a_pool(zoo):
    for name in ("residual", "depthwise"):
        ops = [node.op_type for node in skeleton(zoo[name][0]).load().graph]
        assert ops.count("GlobalAveragePool") == 1
        assert "ReduceMean" not in ops
    assert [n.op_type for n in skeleton(zoo["residual"][0]).load().graph].count("Squeeze") == 1


def test_a_mean_over_one_axis_is_no_pool(exported):
    from torch import nn

    class Mean(nn.Module):
        def forward(self, x):
            return x.mean((1, 2))

    ops = [n.op_type for n in skeleton(exported(Mean(), np.zeros((2, 3, 4, 5), np.float32))).load().graph]
    assert "GlobalAveragePool" not in ops


@pytest.mark.parametrize(
    ("names", "outputs"),
    [
        (("first.weight",), ("first.bias",)),
        (("first:linear#0:out",), ("constant/0",)),
        (("input/with'quotes'",), ('ünï"code"',)),
        (("x",), ("x/0",)),
    ],
)
def test_hostile_names_of_the_interface(exported, encoded, tmp_path, names, outputs):
    import torch
    from torch import nn

    torch.manual_seed(1)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.second(torch.relu(self.first(x)))

    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    if ":" in names[0]:
        with pytest.raises(ValueError, match="not a node key"):
            exported(Net(), x, names=names, outputs=outputs)
        return
    model = exported(Net(), x, names=names, outputs=outputs)
    encodings = encoded(model, [(x,)])
    artifact = TARGET.lower(model, encodings, tmp_path)
    assert (artifact.inputs[0].name, artifact.outputs[0].name) == (names[0], outputs[0])
    y = TARGET.open_session(tmp_path / "model.onnx", artifact.session_options).run({names[0]: x})
    assert y[outputs[0]].tobytes() == Reference().run(model, encodings, (x,))[0].tobytes()


def test_hostile_names_of_modules(exported, encoded, tmp_path):
    import torch
    from torch import nn

    torch.manual_seed(1)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleDict({"a/b": nn.Linear(4, 4), "out": nn.Linear(4, 4), "fused": nn.Linear(4, 2)})

        def forward(self, x):
            for part in self.parts.values():
                x = part(x)
            return x

    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    model = exported(Net(), x)
    encodings = encoded(model, [(x,)])
    artifact = TARGET.lower(model, encodings, tmp_path)
    path = tmp_path / "model.onnx"
    y = TARGET.open_session(path, artifact.session_options).run({"x": x})
    assert next(iter(y.values())).tobytes() == Reference().run(model, encodings, (x,))[0].tobytes()
    assert set(TARGET.layer_seconds(path, artifact, (x,), 2)) >= {n.key for n in model.graph.nodes if n.weight}


def test_an_input_and_an_output_of_one_name_are_refused(exported):
    from torch import nn

    model = exported(nn.Linear(4, 4), np.zeros((2, 4), np.float32), names=("x",), outputs=("x",))
    with pytest.raises(ConversionError, match="different names: x"):
        skeleton(model)


def test_a_module_that_is_called_twice(exported, encoded, tmp_path):
    import torch
    from torch import nn

    torch.manual_seed(2)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.same = nn.Linear(4, 4)

        def forward(self, x):
            return self.same(torch.relu(self.same(x)))

    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    model = exported(Twice(), x)
    assert [n.key for n in model.graph.nodes if n.weight] == ["same:linear#0", "same:linear#1"]
    encodings = encoded(model, [(x,)])
    artifact = TARGET.lower(model, encodings, tmp_path)
    y = TARGET.open_session(tmp_path / "model.onnx", artifact.session_options).run({"x": x})
    assert y["output"].tobytes() == Reference().run(model, encodings, (x,))[0].tobytes()


def test_an_add_of_a_tensor_to_itself(exported, encoded, tmp_path):
    import torch
    from torch import nn

    torch.manual_seed(2)

    class Double(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 1)

        def forward(self, x):
            x = self.conv(x)
            return x + x

    x = np.random.default_rng(0).normal(size=(2, 2, 4, 4)).astype(np.float32)
    model = exported(Double(), x)
    encodings = encoded(model, [(x,)])
    artifact = TARGET.lower(model, encodings, tmp_path)
    y = TARGET.open_session(tmp_path / "model.onnx", artifact.session_options).run({"x": x})
    assert y["output"].tobytes() == Reference().run(model, encodings, (x,))[0].tobytes()


def test_several_outputs_and_a_tensor_that_is_both_output_and_input(exported, encoded, tmp_path):
    import torch
    from torch import nn

    torch.manual_seed(2)

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            x = torch.relu(self.body(x))
            return self.head(x), x

    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    model = exported(Heads(), x, outputs=("scores", "features"))
    encodings = encoded(model, [(x,)])
    artifact = TARGET.lower(model, encodings, tmp_path)
    assert [port.name for port in artifact.outputs] == ["scores", "features"]
    y = TARGET.open_session(tmp_path / "model.onnx", artifact.session_options).run({"x": x})
    wanted = Reference().run(model, encodings, (x,))
    assert [y[name].tobytes() for name in ("scores", "features")] == [value.tobytes() for value in wanted]


def test_a_split_names_its_pieces(exported, tmp_path):
    from torch import nn

    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)
            self.left, self.right = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)

        def forward(self, x):
            one, two = self.conv(x).chunk(2, 1)
            return self.left(one) - self.right(two)

    x = np.random.default_rng(0).normal(size=(2, 4, 3, 3)).astype(np.float32)
    model = exported(Halves(), x)
    artifact = TARGET.lower(model, Encodings.none(), tmp_path)
    picked = [node.out for node in model.graph.nodes if node.op == "getitem"]
    assert len(picked) == 2
    wanted = {}
    execute.Executor(model).run((x,), observe=lambda node, value: wanted.update({node.out: value}))
    found = TARGET.tensors(tmp_path / "model.onnx", artifact, (x,), picked)
    for key in picked:
        np.testing.assert_allclose(found[key], wanted[key].numpy(), rtol=1e-5, atol=1e-6)


def test_a_tensor_that_onnx_does_not_have_cannot_be_encoded(zoo, tmp_path, monkeypatch):
    """Ambiguity is refused: the map of a key is planted away."""
    model, _ = zoo["residual"]
    frame = skeleton(model)
    names = {key: name for key, name in frame.names.items() if key != "two:conv2d#0"}
    planted = module.Skeleton(frame.data, names, frame.same, frame.opset)
    monkeypatch.setattr(module, "skeleton", lambda _: planted)
    some = Affine(8, False, None, np.array(1.0, np.float32), np.array(0, np.int32))
    with pytest.raises(ConversionError, match="no one tensor for it") as caught:
        TARGET.lower(model, Encodings({"two:conv2d#0:out": some}), tmp_path)
    assert caught.value.faults[0].where == "two:conv2d#0:out"
    artifact = TARGET.lower(model, Encodings.none(), tmp_path)
    assert "two:conv2d#0:out" not in artifact.tensor_names
