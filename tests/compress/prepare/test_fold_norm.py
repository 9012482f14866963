from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from haversack.base.job import Job
from haversack.compress.prepare.contract import PrepareContext, relative_error
from haversack.compress.prepare.fold_norm import FoldNorm
from haversack.compress.prepare.fold_norm import folded as folded_norms
from haversack.load.exporting import export
from haversack.tools.graph.execute import Executor


def shaken(module):
    """Give every norm statistics that matter."""
    torch.manual_seed(0)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.running_mean.normal_()
                part.running_var.uniform_(0.1, 3.0)
                if part.affine:
                    part.weight.normal_()
                    part.bias.normal_()
    return module.eval()


class Chain(nn.Module):
    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, x):
        return self.parts(x)


def folded(make_model, module, *shape):
    model = make_model(shaken(module), shape)
    batch = (np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32),)
    after = FoldNorm().apply(model, PrepareContext(lambda: [batch]))
    error = relative_error(Executor(after).run(batch), Executor(model).run(batch))
    return after, error


def norms(model):
    return [node.key for node in model.graph.nodes if node.op == "batch_norm"]


@pytest.mark.parametrize(
    "parts, shape",
    [
        ((nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)), (3, 6, 6)),
        ((nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6()), (3, 6, 6)),
        ((nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=4), nn.BatchNorm2d(8)), (4, 7, 7)),
        ((nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False)), (3, 5, 5)),
        ((nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)), (3, 9)),
        ((nn.Linear(5, 4), nn.BatchNorm1d(4)), (5,)),
        ((nn.Linear(5, 4, bias=False), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3), nn.BatchNorm1d(3)), (5,)),
    ],
)
def test_folded_it_computes_the_same(make_model, parts, shape):
    after, error = folded(make_model, Chain(*parts), *shape)
    assert error < 1e-5
    assert norms(after) == []
    paths = [f"parts.{at}" for at, part in enumerate(parts) if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    count = "1 norm" if len(paths) == 1 else f"{len(paths)} norms"
    assert after.notes[-1] == f"fold_norm: {count} folded: {', '.join(paths)}"
    assert folded_norms(after) == tuple(paths)


def test_keys_of_layers_stay_and_every_layer_has_a_bias(small_model):
    context = PrepareContext(lambda: [(np.zeros((1, 3, 9, 9), np.float32),)])
    after = FoldNorm().apply(small_model, context)
    layers = [node.key for node in small_model.graph.nodes if node.weight and node.op != "batch_norm"]
    assert [node.key for node in after.graph.nodes if node.weight] == layers
    assert all(node.bias for node in after.graph.nodes if node.weight)
    assert [port.name for port in after.inputs] == ["x"]
    assert after.inputs[0].spec.shape == ("batch", 3, 9, 9)


def test_the_formula(make_model):
    module = shaken(Chain(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)))
    after, _ = folded(make_model, module, 2, 4, 4)
    conv, norm = module.parts
    scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).double()
    want = (conv.weight.double() * scale.reshape(-1, 1, 1, 1)).detach().numpy()
    np.testing.assert_allclose(after.weights["parts.0.weight"], want, rtol=1e-6)
    shift = ((conv.bias - norm.running_mean).double() * scale + norm.bias.double()).detach().numpy()
    np.testing.assert_allclose(after.weights["parts.0.bias"], shift, rtol=1e-5)


def test_the_model_given_is_left_alone(make_model):
    model = make_model(shaken(Chain(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))), (2, 4, 4))
    before, digest = {k: v.copy() for k, v in model.weights.items()}, model.digest
    FoldNorm().apply(model, PrepareContext(lambda: [(np.ones((1, 2, 4, 4), np.float32),)]))
    assert all((model.weights[key] == value).all() for key, value in before.items())
    assert model.graph.digest
    assert model.digest == digest


def test_twice_is_once(make_model):
    once, _ = folded(make_model, Chain(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)), 2, 4, 4)
    assert FoldNorm().apply(once, PrepareContext(list)) is once


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.BatchNorm2d(2)

    def forward(self, x):
        return self.two(self.conv(self.one(self.conv(x))))


class Returned(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x):
        y = self.conv(x)
        return y, self.norm(y)


class Tokens(nn.Module):
    """A norm over axis 1 of [batch, tokens, features] is no norm of the features."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(3)

    def forward(self, x):
        return self.norm(self.layer(x))


@pytest.mark.parametrize(
    "module, shape, told",
    [
        (Residual(), (2, 4, 4), ["fold_norm: norm stays in float: other nodes read its input"]),
        (Returned(), (2, 4, 4), ["fold_norm: norm stays in float: other nodes read its input"]),
        (
            Chain(nn.BatchNorm2d(2)),
            (2, 4, 4),
            ["fold_norm: parts.0 stays in float: it follows input, not a layer with weights"],
        ),
        (
            Chain(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)),
            (2, 4, 4),
            ["fold_norm: parts.2 stays in float: it follows relu, not a layer with weights"],
        ),
        (Tokens(), (3, 4), ["fold_norm: norm stays in float: it does not normalize the linear layer's features"]),
        (
            Reused(),
            (2, 4, 4),
            [
                "fold_norm: one stays in float: other nodes read conv.weight, conv.bias",
                "fold_norm: two stays in float: other nodes read conv.weight, conv.bias",
            ],
        ),
    ],
)
def test_a_norm_that_cannot_fold_stays_and_is_told_once(make_model, module, shape, told):
    after, error = folded(make_model, module, *shape)
    assert error < 1e-6
    assert len(norms(after)) == len(told)
    assert list(after.notes) == told
    assert folded_norms(after) == ()
    assert FoldNorm().apply(after, PrepareContext(list)) is after


def test_one_folds_and_one_stays(make_model):
    after, error = folded(make_model, Chain(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)), 2, 4, 4)
    assert error < 1e-5
    assert norms(after) == ["parts.0:batch_norm#0"]
    assert len(after.notes) == 2


class Listening(nn.Module):
    """A recurrent layer behind a norm: written out, the program loses the norm's own op."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.memory = nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.GRU(4, 5, batch_first=True)

    def forward(self, x):
        return self.memory(torch.relu(self.norm(self.conv(x))).transpose(1, 2))[0][:, -1]


class Writing(nn.Module):
    """A write into a part of a tensor: as a graph of values, the program loses the norm's own op."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)

    def forward(self, x):
        y = torch.relu(self.norm(self.conv(x))).clone()
        y[:, 0] = 1.0
        return y.mean(2)


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")  # torch.export of nn.GRU
@pytest.mark.parametrize("module", [Listening(), Writing()])
def test_a_norm_folds_whatever_else_the_model_holds(module):
    batch = (np.random.default_rng(0).normal(size=(3, 3, 8)).astype(np.float32),)
    module = shaken(module)
    model = export(Job("net", lambda: module, lambda: iter([batch]), lambda: iter(()), "top1"))
    assert norms(model) == ["norm:batch_norm#0"]
    after = FoldNorm().apply(model, PrepareContext(lambda: [batch]))
    assert [node.key for node in after.graph.nodes if "norm" in node.op] == []
    assert after.notes[-1] == "fold_norm: 1 norm folded: norm"
    with torch.no_grad():
        wanted = module(torch.from_numpy(batch[0])).numpy()
    for each in (model, after):
        np.testing.assert_allclose(Executor(each).run(batch)[0], wanted, atol=1e-5)
