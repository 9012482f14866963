"""The executor: the same values as PyTorch, with a say at every node."""

import numpy as np
import pytest
import torch
from torch import nn

from haversack.tools.graph.execute import Executor


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, image):
        return torch.relu(self.norm(self.a(image)) + image) * self.b(image).mean((2, 3), keepdim=True)


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.Linear(4, 8)

    def forward(self, x, scale):
        a, b = self.gru(x).chunk(2, -1)
        return a * torch.sigmoid(b), {"scaled": a * scale, "both": [b, b.argmax(-1)]}


class Shapes(nn.Module):
    def forward(self, x):
        return x.reshape(x.shape[0] * x.shape[1], -1).softmax(-1).view(x.shape).transpose(1, 2)


MODULES = [
    (Residual(), [(4, 3, 6, 6)]),
    (nn.Sequential(nn.Linear(5, 7), nn.ReLU(inplace=True), nn.LayerNorm(7), nn.Dropout(), nn.Linear(7, 2)), [(3, 5)]),
    (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), [(3, 5, 8)]),
    (Shapes(), [(3, 4, 5)]),
    (nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Hardswish(), nn.AdaptiveAvgPool2d(1)), [(3, 3, 8, 8)]),
]


@pytest.mark.parametrize("module, shapes", MODULES)
def test_it_equals_eager_at_other_batch_lengths(model_of, eager, noise, module, shapes):
    model = model_of(module, *(torch.randn(shape) for shape in shapes))
    for count in (1, 2, 6):
        inputs = tuple(noise(count, *shape[1:]) for shape in shapes)
        got, wanted = Executor(model).run(inputs), eager(module, *inputs)
        assert len(got) == len(wanted)
        for a, b in zip(got, wanted, strict=True):
            assert np.array_equal(a, b) or np.allclose(a, b, rtol=1e-6, atol=1e-6)


def test_nested_outputs_come_in_the_order_of_the_models(model_of, noise):
    module = Parts()
    model = model_of(module, torch.randn(2, 4), torch.randn(2, 1))
    x, scale = noise(3, 4), noise(3, 1)
    got = Executor(model).run((x, scale))
    with torch.no_grad():
        first, rest = module(torch.from_numpy(x), torch.from_numpy(scale))
    wanted = [first, rest["scaled"], *rest["both"]]
    assert len(model.outputs) == len(got) == 4
    for a, b, port in zip(got, wanted, model.outputs, strict=True):
        assert np.array_equal(a, b.numpy())
        assert str(a.dtype) == port.spec.dtype


def test_the_models_weights_count(model_of, noise):
    module = nn.Linear(3, 2)
    model = model_of(module, torch.randn(2, 3))
    x = noise(4, 3)
    zero = model.with_weights({"weight": np.zeros((2, 3), np.float32)}, "zeroed")
    bias = model.weights["bias"]
    assert np.array_equal(Executor(zero).run((x,))[0], np.broadcast_to(bias, (4, 2)))
    assert np.array_equal(Executor(model, {"weight": np.zeros((2, 3), np.float32)}).run((x,))[0][0], bias)
    assert np.abs(Executor(model).run((x,))[0] - bias).max() > 0, "neither changed the model"


def test_executors_of_one_program_do_not_share_weights(model_of, noise):
    model = model_of(nn.Linear(3, 2), torch.randn(2, 3))
    x = noise(2, 3)
    (before,) = Executor(model).run((x,))
    other = Executor(model, {"weight": 2 * model.weights["weight"], "bias": 2 * model.weights["bias"]})
    np.testing.assert_array_equal(other.run((x,))[0], 2 * before)
    np.testing.assert_array_equal(Executor(model).run((x,))[0], before)


def test_executors_of_one_program_share_its_graph(model_of, noise):
    model = model_of(nn.Linear(3, 2), torch.randn(2, 3))
    changed = model.with_weights({"bias": np.ones(2, np.float32)})
    assert Executor(changed).module is Executor(model).module


def test_tied_weights_change_together(model_of, noise):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x))

    model = model_of(Tied(), torch.randn(2, 4))
    name = next(node.weight for node in model.graph.nodes if node.op == "linear")
    x = noise(3, 4)
    double = model.with_weights({name: np.eye(4, dtype=np.float32) * 2})
    assert np.allclose(Executor(double).run((x,))[0], 4 * x, atol=1e-6)


def test_observe_sees_every_tensor_once_in_order(model_of, noise):
    model = model_of(Residual(), torch.randn(4, 3, 6, 6))
    seen = {}
    x = noise(2, 3, 6, 6)
    Executor(model).run((x,), observe=lambda node, value: seen.__setitem__(node.key, value.clone()))
    assert list(seen) == [node.key for node in model.graph.nodes]
    assert np.array_equal(seen["image:input#0"].numpy(), x)
    for node in model.graph.nodes:
        shape = tuple(2 if size == "batch" else size for size in node.output.shape)
        assert tuple(seen[node.key].shape) == shape


def test_what_observe_keeps_is_not_changed_by_in_place_ops(model_of, noise):
    model = model_of(nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True)), torch.randn(2, 3))
    kept = {}
    Executor(model).run((noise(5, 3),), observe=lambda node, value: kept.__setitem__(node.op, value))
    assert float(kept["linear"].min()) < 0
    assert torch.equal(kept["relu"], kept["linear"].relu())


def test_inputs_are_not_changed_by_in_place_ops(model_of, noise):
    model = model_of(nn.ReLU(inplace=True), torch.randn(2, 3))
    x = noise(5, 3)
    before = x.copy()
    Executor(model).run((x,))
    assert np.array_equal(x, before)


def test_in_place_ops_of_every_kind_compute_the_same(model_of, eager, noise):
    class Writes(nn.Module):
        def forward(self, x):
            y = x * 1
            y += x
            y.mul_(2).clamp_(-1, 1)
            z = y.masked_fill_(y > 0.9, 0.25) + 1
            z[:, 0] = 0.5
            return z, y.sigmoid_()

    module = Writes()
    model = model_of(module, torch.randn(2, 3))
    x = noise(4, 3)
    for got, wanted in zip(Executor(model).run((x,)), eager(module, x), strict=True):
        assert np.array_equal(got, wanted)


def test_observe_replaces(model_of, noise):
    model = model_of(Residual(), torch.randn(4, 3, 6, 6))
    x = noise(2, 3, 6, 6)

    def zero(node, value):
        return torch.zeros_like(value) if node.key == ":relu#0" else None

    assert not Executor(model).run((x,), observe=zero)[0].any()
    doubled = Executor(model).run((x,), observe=lambda node, value: value * 2 if node.op == "input" else None)[0]
    assert np.allclose(doubled, Executor(model).run((2 * x,))[0])


def test_compute_replaces_and_gets_the_flowing_tensors(model_of, noise):
    model = model_of(Residual(), torch.randn(4, 3, 6, 6))
    x = noise(2, 3, 6, 6)
    seen = {}

    def compute(node, tensors):
        seen[node.key] = tensors
        return tensors[0] - tensors[1] if node.op == "add" else None

    values = {}
    changed = Executor(model).run(
        (x,), compute=compute, observe=lambda node, value: values.__setitem__(node.key, value.clone())
    )[0]
    assert "image:input#0" not in seen
    for key, tensors in seen.items():
        node = model.graph.by_key[key]
        assert len(tensors) == len(node.inputs)
        for source, tensor in zip(node.inputs, tensors, strict=True):
            assert torch.equal(tensor, values[source])
    assert torch.equal(values[":add#0"], values["norm:batch_norm#0"] - values["image:input#0"])
    assert not np.allclose(changed, Executor(model).run((x,))[0])


def test_compute_of_a_tensor_used_twice(model_of):
    class Square(nn.Module):
        def forward(self, x):
            return x * x

    model = model_of(Square(), torch.randn(2, 3))
    got = Executor(model).run((np.full((1, 3), 3.0, np.float32),), compute=lambda node, t: t[0] + t[1])[0]
    assert np.array_equal(got, np.full((1, 3), 6.0))


def test_layouts_and_read_only_arrays(model_of):
    model = model_of(nn.Conv2d(3, 2, 3), torch.randn(2, 3, 5, 5))
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 3)).astype(np.float32)
    view = x.transpose(0, 3, 1, 2)
    assert np.array_equal(Executor(model).run((view,))[0], Executor(model).run((view.copy(),))[0])


def test_runs_repeat(model_of, noise):
    model = model_of(nn.Sequential(nn.BatchNorm1d(3), nn.ReLU(inplace=True)), torch.randn(4, 3))
    executor = Executor(model)
    first, second = (executor.run((noise(4, 3),))[0] for _ in range(2))
    assert np.array_equal(first, second)
