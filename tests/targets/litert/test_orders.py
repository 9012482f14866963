"""Orders of axes: random chains of moves behind a pool agree with PyTorch, and the algebra of orders holds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from haversack.base.encodings import Encodings
from haversack.targets.litert import LiteRT
from haversack.targets.litert import order as orders
from haversack.targets.litert.sheet import Sheet, Store
from haversack.targets.reference import Reference
from haversack.tools.data.layouts import to_file, to_model

SHAPE = (2, 4, 6, 8)
MOVES = ("permute", "transpose", "flatten", "split", "slice", "steps", "select", "squeeze", "cat", "mean", "pad", "add")


def move(kind, x, number):  # noqa: C901 - one line a kind
    """Return x, any rank, moved in one way; numbers choose axes, the batch stays first."""
    import torch
    from torch.nn import functional

    rank = x.dim()
    axis = 1 + number % (rank - 1)
    if kind == "permute" and rank > 2:
        rest = list(itertools.permutations(range(1, rank)))
        return x.permute(0, *rest[number % len(rest)])
    if kind == "transpose":
        return x.transpose(axis, rank - 1)
    if kind == "flatten" and rank > 2:
        return x.flatten(axis) if axis < rank - 1 else x.flatten(1, 2)
    if kind == "split" and x.shape[axis] % 2 == 0:
        return x.reshape(*x.shape[:axis], 2, -1, *x.shape[axis + 1 :]) if rank < 5 else x
    if kind == "slice":
        return x[(slice(None),) * axis + (slice(x.shape[axis] // 3, None),)]
    if kind == "steps":
        return x[(slice(None),) * axis + (slice(None, None, 2),)]
    if kind == "select" and rank > 2:
        return x.select(axis, number % x.shape[axis])
    if kind == "squeeze":
        return x.unsqueeze(axis) if rank < 5 else x
    if kind == "cat":
        return torch.cat([x, -x], axis)
    if kind == "mean" and rank > 2:
        return x.mean(axis, keepdim=number % 2 == 0)
    if kind == "pad":
        return functional.pad(x, (1, 0, 0, 2) if rank > 2 else (1, 0))
    return x + torch.arange(float(x.shape[-1]))


def run(exported, chains, folder):
    """Return, for each chain, (what the file gives, what PyTorch gives), with the model's axes."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Chains(nn.Module):
        def forward(self, x):
            first = functional.max_pool2d(x, 2)
            found = []
            for chain in chains:
                y = first
                for kind, number in chain:
                    y = move(kind, y, number)
                found.append(y * 2)
            return tuple(found)

    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    with torch.no_grad():
        wanted = [one.numpy() for one in Chains()(torch.from_numpy(x))]
    names = [f"chain{index}" for index in range(len(chains))]
    model = exported(Chains(), x, outputs=names)
    target = LiteRT()
    artifact = target.lower(model, Encodings.none(), folder)
    session = target.open_session(folder / "model.tflite")
    found = session.run({"x": to_file(x, artifact.layouts["x"])})
    return [
        (to_model(found[name], artifact.layouts.get(name, "")), one) for name, one in zip(names, wanted, strict=True)
    ]


@settings(max_examples=4, deadline=None, phases=(Phase.generate,))
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 23)), min_size=2, max_size=6), min_size=3, max_size=5
    )
)
def test_random_chains_of_moves(exported, tmp_path_factory, chains):
    for found, wanted in run(exported, chains, tmp_path_factory.mktemp("chain")):
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kinds", list(itertools.combinations(MOVES, 2))[::13])
def test_pairs_of_moves_on_every_axis(exported, tmp_path, kinds):
    chains = [[(kind, number) for kind in kinds] for number in (0, 1, 2, 5)]
    for found, wanted in run(exported, chains, tmp_path):
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


permutations = st.permutations(range(4)).map(tuple)
sizes = st.lists(st.integers(1, 3), min_size=4, max_size=4).map(tuple)


@given(sizes, permutations, permutations)
def test_steps_turn_one_order_into_another(shape, old, new):
    array = np.arange(np.prod(shape)).reshape(shape)
    turned = array.transpose(old).transpose(orders.steps(old, new))
    np.testing.assert_array_equal(turned, array.transpose(new))
    assert turned.shape == orders.filed(shape, new)


@given(sizes, permutations, permutations)
def test_the_same_data_need_no_move(shape, one, other):
    array = np.arange(np.prod(shape)).reshape(shape)
    same = np.array_equal(array.transpose(one).reshape(-1), array.transpose(other).reshape(-1))
    assert orders.same_data(shape, one, other) == same


@given(sizes, permutations, permutations)
def test_a_permutation_seen_by_the_model(shape, order, dims):
    """What lies in the file stays; only its reading changes."""
    array = np.arange(np.prod(shape)).reshape(shape)
    permuted = array.transpose(dims)
    seen = orders.permuted(order, dims)
    np.testing.assert_array_equal(permuted.transpose(seen), array.transpose(order))


@given(sizes, permutations, permutations)
def test_a_sheet_moves_by_as_little_as_it_can(shape, old, new):
    sheet = Sheet(Store(), "main")
    value = sheet.value("x", shape, old)
    moved = sheet.ordered(value, new, "n:op#0")
    names = sheet.options("BuiltinOperator")
    made = [one.code for one in sheet.graph.operators]
    same = orders.same_data(shape, old, new)
    assert names["TRANSPOSE"] not in made if same else made == [names["TRANSPOSE"]]
    assert len(made) <= 1
    assert sheet.graph.tensors[moved.tensor].shape == orders.filed(shape, new)
    assert (moved.order, moved.shape) == (new, shape)
    assert sheet.ordered(value, new, "n:op#0") == moved
    assert [one.code for one in sheet.graph.operators] == made, "a second reader adds nothing"


def test_orders_with_a_name_are_those_of_arrays():
    for order, name in orders.LAYOUTS.items():
        shape = tuple(range(2, 2 + len(order)))
        assert to_file(np.zeros(shape), name).shape == orders.filed(shape, order)
    assert orders.plain(3) == (0, 1, 2)
    assert orders.plain(3) not in orders.LAYOUTS


NETWORKS = {
    "image to rows": ("F.max_pool2d(x, 2).flatten(1)", {"TRANSPOSE"}),
    "image to rows, one pixel": ("F.adaptive_avg_pool2d(x, 1).flatten(1)", set()),
    "image to rows of pixels": ("F.max_pool2d(x, 2).permute(0, 2, 3, 1).flatten(1, 2) * 2", set()),
    "joined channels": ("torch.cat([F.max_pool2d(x, 2), F.avg_pool2d(x, 2)], 1)", set()),
    "joined rows": ("torch.cat([F.max_pool2d(x, 2), F.avg_pool2d(x, 2)], 2)", set()),
    "scaled by channel": ("F.max_pool2d(x, 2) * torch.arange(4.0).view(1, 4, 1, 1)", set()),
    "scaled by place": ("F.max_pool2d(x, 2) * torch.arange(12.0).view(3, 4)", set()),
    "mean of rows": ("F.max_pool2d(x, 2).mean(2)", set()),
    "rows plus their mean": ("F.max_pool2d(x, 2) - F.max_pool2d(x, 2).mean(1, keepdim=True)", set()),
    "softmax of channels": ("torch.softmax(F.max_pool2d(x, 2), 1)", set()),
    "a part of the channels": ("F.max_pool2d(x, 2)[:, 1:3]", set()),
    "channels split and joined": ("torch.cat(F.max_pool2d(x, 2).chunk(2, 1)[::-1], 1)", set()),
    "chosen by a mask": ("torch.where(torch.arange(4) > 1, F.max_pool2d(x, 2), F.avg_pool2d(x, 2))", set()),
    "chosen by a mask of channels": (
        "torch.where((torch.arange(4) > 1).view(4, 1, 1), F.max_pool2d(x, 2), F.avg_pool2d(x, 2))",
        set(),
    ),
    "filled by a mask": ("F.max_pool2d(x, 2).masked_fill(torch.arange(4) > 2, 0.5)", set()),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_detours_of_mixed_layouts(exported, both, name):
    from torch import nn

    code, wanted = NETWORKS[name]

    class Network(nn.Module):
        def forward(self, x):
            import torch
            from torch.nn import functional

            return eval(code, {"torch": torch, "F": functional, "x": x})  # noqa: S307 - the table above

    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    model = exported(Network(), x)
    made = both(model)
    assert {one.text.split()[0] for one in made.target.findings(made.path, made.artifact)} == wanted
    (exact,) = Reference().run(model, Encodings.none(), (x,))
    (found,) = made.file(x)
    assert found.shape == exact.shape
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "code",
    [
        "torch.where(torch.tensor([True, False, True, True, False]), x, -x)",
        "torch.where(x[0] > 0, x, -x)",
        "x + torch.arange(5.0).view(1, 1, 5)",
        "x[0] + torch.arange(10.0).view(2, 1, 5)",
        "x[:, :, 0] + torch.arange(3.0).view(1, 1, 1, 3)",
        "torch.maximum(x, torch.arange(5.0))",
        "(x @ torch.arange(15.0).view(5, 3)) / 10",
        "x.permute(0, 2, 1) + torch.arange(3.0)",
        "x.round().to(torch.int64).lt(0.5).float()",
        "torch.where(x.to(torch.int64) < 1.5, x, 0.0 * x)",
        "torch.cat([x, torch.zeros(1, 3, 5)], 1)",
        "torch.stack([x[:, 0], x[:, 2], x[:, 1]], 2)",
    ],
)
def test_ranks_that_differ(exported, both, code):
    from torch import nn

    class Expression(nn.Module):
        def forward(self, x):
            import torch

            return eval(code, {"torch": torch, "x": x})  # noqa: S307 - the table above

    x = np.random.default_rng(0).normal(size=(1, 3, 5)).astype(np.float32)
    model = exported(Expression(), x, free=())
    made = both(model)
    (found,), (wanted,) = made.file(x), made.reference(x)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
