"""Segments, held against whole runs: the same values wherever a graph is cut, and derivatives through its roundings."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from haversack.base.encodings import Affine, Dynamic, Encodings
from haversack.tools.graph.canonical import to_model
from haversack.tools.graph.execute import Executor
from haversack.tools.graph.segments import Hooks, Segments, encoded, through
from haversack.tools.graph.simulate import Simulator, stored_weight
from haversack.tools.numerics.affine import from_range, quantize, symmetric


def exported(module, *shapes):
    """Return a module as a model with a free batch."""
    examples = tuple(torch.zeros(2, *shape) for shape in shapes)
    dims = tuple({0: torch.export.Dim.AUTO} for _ in examples)
    return to_model(torch.export.export(module.eval(), examples, dynamic_shapes=dims), "tiny")


class Residual(nn.Module):
    """A stem, a residual block, a head: cut behind the stem, behind the block, and within the head."""

    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two = (nn.Conv2d(n, 4, 3, padding=1) for n in (3, 4, 4))
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.two(torch.relu(self.one(x))))
        return self.head(x.mean(dim=[2, 3]))


class Forked(nn.Module):
    """Two outputs: from where they part, there is no place with one tensor alive."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return self.left(x), torch.relu(self.right(x))


class Uncut(nn.Module):
    """Its input is read at the end again: no place has one tensor alive."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.two(torch.relu(self.one(x))) + x


class Sized(nn.Module):
    """Sizes of the batch are alive across a cut."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(6, 8), nn.Linear(4, 3)

    def forward(self, x):
        rows = x.shape[0]
        return self.two(torch.relu(self.one(x)).reshape(rows, 2, 4)).reshape(rows, 6)


class Split(nn.Module):
    """Both halves of a split are alive at once."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(6, 8), nn.Linear(4, 3)

    def forward(self, x):
        left, right = torch.relu(self.one(x)).chunk(2, dim=1)
        return self.two(left * torch.sigmoid(right))


class Pair(nn.Module):
    """Two inputs."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.out = nn.Linear(6, 4), nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, x, y):
        return self.out(torch.relu(self.one(x) + self.two(y)))


class Masked(nn.Module):
    """What is true and false flows in beside numbers, as the mask of an attention does."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(6, 4), nn.Linear(4, 2)

    def forward(self, x):
        y = self.one(x)
        return self.two(torch.where(y.sum(dim=1, keepdim=True) > 0, y, torch.zeros_like(y)))


NETS = {
    "masked": (Masked, [(6,)], ["one"], 1),
    "residual": (Residual, [(3, 6, 6)], ["stem", "head"], 2),
    "two outputs": (Forked, [(6,)], ["stem"], 1),
    "uncut": (Uncut, [(6,)], [], 0),
    "sizes": (Sized, [(6,)], ["one"], 1),
    "split": (Split, [(6,)], ["one"], 1),
    "two inputs": (Pair, [(6,), (5,)], ["out"], 1),
}


@pytest.fixture(params=list(NETS))
def net(request):
    """Return model, batches, the modules that are alone between two cuts or ends, and the least number of cuts."""
    make, shapes, alone, least = NETS[request.param]
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    batches = [tuple(rng.normal(size=(rows, *shape)).astype(np.float32) for shape in shapes) for rows in (4, 3)]
    return exported(make(), *shapes), batches, alone, least


def spans(segments):
    ends = (0, *segments.cuts, len(segments))
    return [range(*pair) for pair in pairwise(ends)]


def walked(segments, batch, hooks):
    """Run span by span; return what is alive at every cut and at the end."""
    found = [segments.start(batch, hooks)]
    for span in spans(segments):
        found.append(segments.run(span, found[-1], hooks))
    return found[1:]


def tensors(alive):
    return [value for value in alive.values() if isinstance(value, torch.Tensor)]


def test_spans_give_what_the_whole_gives(net):
    model, batches, _, _ = net
    segments = Segments(model)
    for batch in batches:
        places = walked(segments, batch, Hooks())
        assert all(len(tensors(alive)) == 1 for alive in places[:-1])
        ends = [value.detach().numpy() for value in tensors(places[-1])]
        for made, wanted in zip(ends, Executor(model).run(batch), strict=True):
            np.testing.assert_array_equal(made, wanted)


def test_it_is_cut_where_it_can_be(net):
    model, _, alone, least = net
    segments = Segments(model)
    layers = {node.key: node.key.split(":")[0] for node in model.graph.nodes if node.weight}
    held = [[layers[key] for key in layers if segments.readers[key] in span] for span in spans(segments)]
    assert len(segments.cuts) >= least
    if not least:
        assert segments.cuts == ()
    for module in alone:
        assert [module] in held
    for whole in (["one", "two"],):  # of a residual block, neither is alone
        assert not (set(whole) <= set(layers.values()) and "stem" in layers.values()) or whole in held


def encodings_of(model, batches):
    """Return 4-bit weights and 8-bit activations of every node with a clamp fused or without."""
    tensors_, integers = {}, {}
    fused = Simulator(model).clamps
    seen = {}
    for batch in batches:
        Executor(model).run(batch, observe=lambda node, value: seen.setdefault(node.key, []).append(value.clone()))
    for node in model.graph.nodes:
        if node.key not in fused and node.key in seen and node.output.dtype == "float32":
            values = torch.cat([value.flatten() for value in seen[node.key]])
            tensors_[node.out] = from_range(0.8 * float(values.min()), 0.8 * float(values.max()))
        if node.weight:
            weight = model.weights[node.weight]
            scale = np.abs(weight.reshape(len(weight), -1)).max(axis=1) / np.float32(7)
            tensors_[f"{node.key}:weight"] = symmetric(scale, 4, 0)
            integers[f"{node.key}:weight"] = quantize(weight, tensors_[f"{node.key}:weight"])
    return Encodings(tensors_, integers)


@pytest.mark.parametrize("dynamic", [False, True])
def test_under_encodings_they_give_what_the_simulator_gives(net, dynamic):
    model, batches, _, _ = net
    encodings = encodings_of(model, batches)
    if dynamic:
        kept = {key: one for key, one in encodings.tensors.items() if not key.endswith(":out")}
        kept |= {f"{node.key}:in": Dynamic() for node in model.graph.nodes if node.weight}
        encodings = Encodings(kept, encodings.integers)
    constants = {
        node.weight: torch.from_numpy(stored_weight(model, encodings, node))
        for node in model.graph.nodes
        if node.weight
    }
    segments = Segments(model)
    for batch, wanted in zip(batches, Simulator(model).run(encodings, batches), strict=True):
        places = walked(segments, batch, encoded(encodings, constants))
        for made, value in zip(tensors(places[-1]), wanted, strict=True):
            np.testing.assert_allclose(made.detach().numpy(), value, rtol=1e-5, atol=1e-6)


def test_derivatives_reach_every_constant_through_the_roundings(net):
    model, batches, _, _ = net
    encodings = encodings_of(model, batches)
    names = [name for node in model.graph.nodes if node.weight for name in (node.weight, node.bias)]
    constants = {name: torch.from_numpy(model.weights[name].copy()).requires_grad_() for name in names}
    last = walked(Segments(model), batches[0], encoded(encodings, constants))[-1]
    sum(value.square().sum() for value in tensors(last)).backward()
    assert all(one.grad is not None and one.grad.abs().max() > 0 for one in constants.values())


@pytest.mark.parametrize("value, expected, slope", [(0.26, 0.3, 1.0), (-3.0, -1.0, 0.0), (9.0, 0.5, 0.0)])
def test_a_rounding_has_slope_1_inside_and_0_outside(value, expected, slope):
    encoding = Affine(4, False, None, np.array(0.1, np.float32), np.array(10, np.int32))
    x = torch.tensor(value, requires_grad=True)
    made = through(x, encoding)
    made.backward()
    assert made.item() == pytest.approx(expected)
    assert x.grad.item() == slope


def test_a_batch_that_is_given_is_not_changed_by_what_trains_on_it():
    torch.manual_seed(0)
    model = exported(Uncut(), (6,))
    batch = (np.ones((2, 6), np.float32),)
    alive = Segments(model).start(batch, Hooks())
    next(iter(alive.values())).zero_()
    assert (batch[0] == 1).all()
