from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from haversack.compress.prepare.channels import groups
from haversack.compress.prepare.contract import PrepareContext
from haversack.compress.prepare.equalize import Equalize, _reading
from haversack.tools.graph.execute import Executor


class Chain(nn.Module):
    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, x):
        return self.parts(x)


def uneven(module, seed=0):
    """Give the channels of every layer ranges over four orders of magnitude."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.Conv1d | nn.Linear):
                shape = (-1, *[1] * (part.weight.ndim - 1))
                part.weight *= (10.0 ** torch.empty(part.weight.shape[0]).uniform_(-2, 2)).reshape(shape)
    return module.eval()


def equalized(make_model, module, *shape, **settings):
    model = make_model(module, shape)
    batch = (np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32),)
    after = Equalize(**settings).apply(model, PrepareContext(lambda: [batch]))
    return model, after, [Executor(m).run(batch)[0] for m in (model, after)], batch


PATHS = [
    ((nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 3)), (3, 6, 6)),
    ((nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 3)), (3, 6, 6)),
    ((nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.ZeroPad2d(1), nn.Conv2d(4, 8, 3, groups=4)), (3, 6, 6)),
    ((nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2)), (3, 6, 6)),
    ((nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(4, 2, 1)), (3, 6, 6)),
    ((nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)), (3, 6, 6)),
    ((nn.Linear(3, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 2)), (3,)),
    ((nn.Conv1d(3, 4, 2), nn.ReLU(), nn.Conv1d(4, 2, 1)), (3, 8)),
]


def imbalance(model, batch):
    """Return log2 of activation range over reading weights, for each channel of each group, about its median."""
    found = list(groups(model))
    peaks = Equalize()._peaks(model, PrepareContext(lambda: [batch]), found)
    ratios = []
    for group, peak in zip(found, peaks, strict=True):
        reading = _reading(dict(model.weights), group, np.zeros(group.channels, np.int64))
        alive = (peak > 0) & (reading > 0)
        ratio = np.log2(peak[alive] / reading[alive])
        ratios.append(ratio - np.median(ratio))
    return np.concatenate(ratios)


@pytest.mark.parametrize("parts, shape", PATHS)
def test_not_a_bit_of_the_output_changes_and_channels_get_even(make_model, parts, shape):
    model, after, (before_out, after_out), batch = equalized(make_model, uneven(Chain(*parts)), *shape)
    np.testing.assert_array_equal(before_out, after_out)
    assert after is not model
    assert np.abs(imbalance(after, batch)).max() <= 2.01  # the nearest powers of two are reached
    assert np.abs(imbalance(after, batch)).max() < np.abs(imbalance(model, batch)).max()


@pytest.mark.parametrize(
    "parts, shape",
    [
        ((nn.Conv2d(3, 4, 1), nn.ReLU6(), nn.Conv2d(4, 2, 1)), (3, 4, 4)),
        ((nn.Conv2d(3, 4, 1), nn.Hardtanh(), nn.Conv2d(4, 2, 1)), (3, 4, 4)),
        ((nn.Conv2d(3, 4, 1), nn.Sigmoid(), nn.Conv2d(4, 2, 1)), (3, 4, 4)),
        ((nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)), (3, 4, 4)),
        ((nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(64, 2)), (3, 4, 4)),
        ((nn.Conv2d(3, 4, 1), nn.Flatten(2), nn.Linear(16, 2)), (3, 4, 4)),
    ],
)
def test_paths_that_do_not_scale_are_left_alone(make_model, parts, shape):
    model, after, *_ = equalized(make_model, uneven(Chain(*parts)), *shape)
    assert list(groups(model)) == []
    assert after is model


class Stream(nn.Module):
    """A residual stream: two makers, an add, and three readers of one group of channels."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(3, 4, 1)
        self.inner = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        stream = self.enter(x)
        return self.out(torch.relu(stream + self.inner(stream)))


def test_a_residual_stream_is_one_group(make_model):
    model, after, outs, batch = equalized(make_model, uneven(Stream()), 3, 5, 5)
    [group] = groups(model)
    assert [node.key for node in group.makers] == ["enter:conv2d#0", "inner:conv2d#0"]
    assert [node.key for node in group.readers] == ["inner:conv2d#0", "out:conv2d#0"]
    assert group.tensors == ("enter:conv2d#0", "inner:conv2d#0", ":add#0", ":relu#0")
    np.testing.assert_array_equal(*outs)
    assert np.abs(imbalance(after, batch)).max() < np.abs(imbalance(model, batch)).max()


class Returned(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)

    def forward(self, x):
        y = self.first(x)
        return self.second(y), y


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(torch.relu(self.layer(x)))


@pytest.mark.parametrize("module, shape", [(Returned(), (2, 4, 4)), (Tied(), (3,))])
def test_shared_values_and_weights_are_left_alone(make_model, module, shape):
    model, after, *_ = equalized(make_model, uneven(module), *shape)
    assert after is model


def test_a_chain_of_three_is_evened_out_together(make_model):
    parts = (nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    model, after, outs, batch = equalized(make_model, uneven(Chain(*parts)), 4)
    np.testing.assert_array_equal(*outs)
    assert len(list(groups(model))) == 2
    assert after.notes[-1] == "equalize: 2 groups of channels"
    assert np.abs(imbalance(after, batch)).max() < np.abs(imbalance(model, batch)).max()


def test_a_dead_channel_is_left_alone(make_model):
    module = uneven(Chain(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    with torch.no_grad():
        module.parts[0].weight[1] = 0
        module.parts[2].weight[:, 2] = 0
    _, after, outs, _ = equalized(make_model, module, 3)
    np.testing.assert_array_equal(*outs)
    np.testing.assert_array_equal(after.weights["parts.2.weight"][:, 1], module.parts[2].weight[:, 1].detach().numpy())


def test_the_limit_bounds_a_channels_factor(make_model):
    module = Chain(nn.Linear(3, 3), nn.Linear(3, 2))
    with torch.no_grad():
        module.parts[0].weight[0] = 2.0**30
    model, after, *_ = equalized(make_model, module.eval(), 3, limit=5)
    moved = model.weights["parts.0.weight"][0] / after.weights["parts.0.weight"][0]
    np.testing.assert_array_equal(moved, 2.0**5)


@pytest.mark.parametrize("settings", [{"rounds": -1}, {"limit": -2}, {"samples": 0}])
def test_settings_that_mean_nothing(settings):
    with pytest.raises(ValueError, match="must"):
        Equalize(**settings)


def test_no_rounds_do_nothing(make_model):
    model, after, *_ = equalized(make_model, uneven(Chain(nn.Linear(3, 4), nn.Linear(4, 2))), 3, rounds=0)
    assert after is model
