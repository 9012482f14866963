from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from haversack.base.encodings import Encodings
from haversack.base.plan import Plan, Step
from haversack.compress.apply import apply
from haversack.compress.plans import uniform
from haversack.compress.prepare.channels import groups
from haversack.compress.prepare.contract import PrepareContext, relative_error
from haversack.compress.prepare.equalize import Equalize, _spans
from haversack.profile.ranges import ranges
from haversack.tools.graph.canonical import to_model
from haversack.tools.graph.demands import demands
from haversack.tools.graph.execute import Executor
from haversack.tools.graph.simulate import Simulator


class Chain(nn.Module):
    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, x):
        return self.parts(x)


def uneven(module, seed=0):
    """Give the channels of every layer ranges over two orders of magnitude; in a chain, what reads them makes up."""
    torch.manual_seed(seed)
    layers = [part for part in module.modules() if isinstance(part, nn.Conv2d | nn.Conv1d | nn.Linear)]
    with torch.no_grad():
        for part, after in zip(layers, [*layers[1:], None], strict=True):
            factors = 10.0 ** torch.linspace(-1, 1, part.weight.shape[0])[torch.randperm(part.weight.shape[0])]
            part.weight *= factors.reshape(-1, *[1] * (part.weight.ndim - 1))
            if part.bias is not None:
                part.bias *= factors
            count = getattr(after, "groups", 1)
            if isinstance(module, Chain) and after is not None and after.weight.shape[1] * count == len(factors):
                by_input = after.weight.reshape(count, len(after.weight) // count, after.weight.shape[1], -1)
                by_input /= factors.reshape(count, 1, -1, 1)  # a view of the weight
    return module.eval()


def samples_of(*shape, rows=64, seed=1):
    return [(np.random.default_rng(seed).normal(size=(rows, *shape)).astype(np.float32),)]


def equalized(make_model, module, *shape, **settings):
    model = make_model(module, shape)
    batches = samples_of(*shape)
    after = Equalize(**settings).apply(model, PrepareContext(lambda: batches))
    return model, after, [Executor(m).run(batches[0])[0] for m in (model, after)]


def simulated(model, prepare, shape):
    """Return the relative error of int8 outputs on samples that nothing was fitted to, and the kinds of findings."""
    batches = samples_of(*shape)
    plan = Plan("onnxruntime", uniform(model.graph, "int8", weights=Step("minmax"), stores_integers=True), prepare)
    made = apply(
        model,
        plan,
        ranges=lambda one: ranges(one, batches),
        constraints=demands(model.graph),
        samples=lambda: batches,
    )
    held = samples_of(*shape, seed=2)
    exact = Simulator(model).run(Encodings.none(), held)[0]
    error = relative_error(Simulator(made.model).run(made.encodings, held)[0], exact)
    return error, {finding.kind for finding in made.findings}


def spread(model, batches):
    """Return log2 of the widest over the narrowest channel of each group."""
    found = list(groups(model))
    spans = _spans(model, found, batches)
    widths = []
    for group in found:
        peak = np.zeros(group.channels)
        for key in group.tensors.keys() & spans.keys():
            np.maximum.at(peak, group.tensors[key], spans[key].largest)
        peak = peak[group.free & (peak > 0)]
        widths.append(np.log2(peak.max() / peak.min()))
    return np.array(widths)


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


@pytest.mark.parametrize("parts, shape", PATHS)
def test_the_output_stays_and_channels_get_even(make_model, parts, shape):
    model, after, (exact, moved) = equalized(make_model, uneven(Chain(*parts)), *shape)
    assert after is not model
    np.testing.assert_allclose(moved, exact, rtol=1e-4, atol=1e-5 * np.abs(exact).max())
    batches = samples_of(*shape)
    assert (spread(after, batches) < 0.8 * spread(model, batches)).all()


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
    model, after, _ = equalized(make_model, uneven(Chain(*parts)), *shape)
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
    model, after, outs = equalized(make_model, uneven(Stream()), 3, 5, 5)
    [group] = groups(model)
    assert [node.key for node in group.makers] == ["enter:conv2d#0", "inner:conv2d#0"]
    assert [node.key for node in group.readers] == ["inner:conv2d#0", "out:conv2d#0"]
    assert set(group.tensors) == {"enter:conv2d#0", "inner:conv2d#0", ":add#0", ":relu#0"}
    assert all(index.tolist() == [0, 1, 2, 3] for index in group.tensors.values())
    assert group.free.all()
    np.testing.assert_allclose(*outs, rtol=1e-4, atol=1e-5)
    assert (spread(after, samples_of(3, 5, 5)) < spread(model, samples_of(3, 5, 5))).all()


class Joined(nn.Module):
    """Two branches, one a hundred times as wide as the other, joined and read by a layer that needs both."""

    def __init__(self, narrow_end, wide_end, apart=100.0):
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.narrow = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.wide_end, self.narrow_end = wide_end, narrow_end
        self.out = nn.Conv2d(8, 6, 1)
        with torch.no_grad():
            self.narrow.weight /= apart
            self.narrow.bias /= apart
            self.out.weight[:, 4:] *= apart

    def forward(self, x):
        return self.out(torch.cat([self.wide_end(self.wide(x)), self.narrow_end(self.narrow(x))], 1))


@pytest.mark.parametrize("end", [nn.Identity, nn.ReLU])
def test_the_narrow_branch_of_a_join_is_widened(make_model, end):
    module, shape = Joined(end(), end()).eval(), (3, 6, 6)
    model, after, outs = equalized(make_model, module, *shape)
    [group] = groups(model)
    assert (group.channels, group.free.all()) == (8, True)
    np.testing.assert_allclose(*outs, rtol=1e-4, atol=1e-4)
    assert (spread(after, samples_of(*shape)) < 3).all()
    (before, told), (error, left) = simulated(model, (), shape), simulated(model, (Step("equalize"),), shape)
    assert "range-mixing" in told
    assert "range-mixing" not in left
    assert error < before / 10


@pytest.mark.parametrize("wide_end, narrow_end, free", [(nn.ReLU6(), nn.ReLU(), 4), (nn.ReLU(), nn.Sigmoid(), 4)])
def test_beside_what_does_not_scale_the_other_branch_comes_to_its_range(make_model, wide_end, narrow_end, free):
    module, shape = Joined(narrow_end, wide_end).eval(), (3, 6, 6)
    model, after, outs = equalized(make_model, module, *shape)
    [group] = groups(model)
    assert int(group.free.sum()) == free
    np.testing.assert_allclose(*outs, rtol=1e-4, atol=1e-4)
    fixed = "wide" if isinstance(wide_end, nn.ReLU6) else "narrow"
    np.testing.assert_array_equal(after.weights[f"{fixed}.weight"], model.weights[f"{fixed}.weight"])
    spans = _spans(after, [group], samples_of(*shape))
    peak = spans[":cat#0"].largest
    free = group.free[group.tensors[":cat#0"]]
    assert peak[free].max() == pytest.approx(peak[~free].max(), rel=0.3)


def test_a_relu6_in_the_narrow_branch_leaves_the_mixing_to_be_told(make_model):
    class Clamped(Joined):
        def forward(self, x):
            join = torch.cat([torch.nn.functional.relu6(self.wide(x)), torch.nn.functional.relu6(self.narrow(x))], 1)
            return self.out(join)

    model = make_model(Clamped(None, None).eval(), (3, 6, 6))
    assert list(groups(model)) == []
    before, told = simulated(model, (), (3, 6, 6))
    error, left = simulated(model, (Step("equalize"),), (3, 6, 6))
    assert error == before
    assert "range-mixing" in told & left


class Sides(nn.Module):
    """Joined, sliced apart again, and one part added to the other's maker: channels meet across places."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.first, self.last = nn.Conv2d(3, 2, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        join = torch.cat([self.one(x), self.two(x)], 1)
        return self.first(join[:, 3:] + self.three(x)) + self.last(join)


def test_channels_are_followed_through_joins_and_slices(make_model):
    model, _, outs = equalized(make_model, uneven(Sides()), 3, 5, 5)
    [group] = groups(model)
    assert group.channels == 6
    np.testing.assert_array_equal(group.tensors["two:conv2d#0"], group.tensors["three:conv2d#0"])
    assert not set(group.tensors["one:conv2d#0"]) & set(group.tensors["two:conv2d#0"])
    np.testing.assert_allclose(*outs, rtol=1e-4, atol=1e-4)


@given(
    factors=st.lists(st.floats(-6, 6), min_size=6, max_size=6),
    seed=st.integers(0, 9),
)
def test_any_factors_of_free_channels_leave_the_output(factors, seed):
    from haversack.compress.prepare.equalize import _scale

    torch.manual_seed(seed)
    module = Sides().eval()
    program = torch.export.export(module, (torch.zeros(2, 3, 4, 4),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    model = to_model(program, "sides")
    [group] = groups(model)
    weights = dict(model.weights)
    _scale(weights, group, 2.0 ** np.array(factors))
    [batch] = samples_of(3, 4, 4, rows=2, seed=seed)
    moved = Executor(model.with_weights(weights, "scaled")).run(batch)
    assert relative_error(moved, Executor(model).run(batch)) < 1e-5


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


class Normed(nn.Module):
    """A transformer's stream: what reads it is a norm over all channels, which does not scale with one of them."""

    def __init__(self):
        super().__init__()
        self.enter, self.inner, self.out = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        y = self.enter(x)
        return self.out(self.norm(y + self.inner(self.norm(y))))


@pytest.mark.parametrize("module, shape", [(Returned(), (2, 4, 4)), (Tied(), (3,)), (Normed(), (5, 3))])
def test_shared_values_and_weights_and_norms_are_left_alone(make_model, module, shape):
    model, after, _ = equalized(make_model, uneven(module), *shape)
    assert after is model


def test_a_chain_of_three_is_evened_out_together(make_model):
    parts = (nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    model, after, outs = equalized(make_model, uneven(Chain(*parts)), 4)
    np.testing.assert_allclose(*outs, rtol=1e-4, atol=1e-5)
    assert len(list(groups(model))) == 2
    assert after.notes[-1] == "equalize: 2 groups of channels"


def test_what_was_evened_out_is_left_alone(make_model):
    _, after, _ = equalized(make_model, uneven(Chain(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))), 4)
    assert after.notes
    assert Equalize().apply(after, PrepareContext(lambda: samples_of(4))) is after


def test_who_sets_ranges_does_not_judge(make_model):
    """A channel that is narrow on the samples that set ranges, and wide on those that judge, is not widened."""
    module = Chain(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        module.parts[0].weight.copy_(torch.eye(2))
        module.parts[2].weight.copy_(torch.tensor([[1.0, 1.0]]))
    model = make_model(module.eval(), (2,))
    rng = np.random.default_rng(0)
    rows = rng.uniform(0, 1, (64, 2)).astype(np.float32) * np.float32([1.0, 0.01])
    assert Equalize().apply(model, PrepareContext(lambda: [(rows,)])) is not model
    rows[1::4, 1] *= 5000.0
    assert Equalize().apply(model, PrepareContext(lambda: [(rows,)])) is model


def test_a_dead_channel_is_left_alone(make_model):
    module = uneven(Chain(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    with torch.no_grad():
        module.parts[0].weight[1], module.parts[0].bias[1] = 0, 0
        module.parts[2].weight[:, 2] = 0
    _, after, outs = equalized(make_model, module, 3)
    np.testing.assert_allclose(*outs, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(after.weights["parts.2.weight"][:, 1], module.parts[2].weight[:, 1].detach().numpy())
    np.testing.assert_array_equal(after.weights["parts.0.weight"][2], module.parts[0].weight[2].detach().numpy())


def test_the_limit_bounds_a_channels_factor(make_model):
    module = Chain(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        module.parts[0].weight[0] *= 2.0**12
        module.parts[2].weight[:, 0] /= 2.0**12
    model, after, _ = equalized(make_model, module.eval(), 3, limit=5)
    moved = model.weights["parts.0.weight"] / after.weights["parts.0.weight"]
    np.testing.assert_allclose(moved[0], 2.0**5)
    assert (np.abs(np.log2(moved)) <= 5.0001).all()


@pytest.mark.parametrize("settings", [{"limit": -2}, {"samples": 1}])
def test_settings_that_mean_nothing(settings):
    with pytest.raises(ValueError, match="must"):
        Equalize(**settings)


def test_one_sample_judges_nothing(make_model):
    model = make_model(uneven(Chain(nn.Linear(3, 4), nn.Linear(4, 2))), (3,))
    assert Equalize().apply(model, PrepareContext(lambda: samples_of(3, rows=1))) is model
