"""Random networks: whatever is drawn, canonical graph, executor and rewriting agree with PyTorch."""

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from haversack.base.keys import split_node
from haversack.tools.graph.execute import Executor
from haversack.tools.graph.rewrite import rewrite
from haversack.tools.graph.roles import Role, role, units

WIDTH = 4
PIECES = {
    "conv": lambda: nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
    "depthwise": lambda: nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH),
    "norm": lambda: nn.BatchNorm2d(WIDTH),
    "relu": nn.ReLU,
    "in place": lambda: nn.ReLU(inplace=True),
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "pool": lambda: nn.MaxPool2d(3, 1, 1),
    "pad": lambda: nn.ZeroPad2d((1, 0, 0, 1)),
    "drop": nn.Dropout,
}


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        y = self.inner(x)
        return y + x[..., : y.shape[-2], : y.shape[-1]] if y.shape == x.shape else y * 2


class Twice(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(self.inner(x))


def build(tree):
    if isinstance(tree, str):
        return PIECES[tree]()
    kind, parts = tree
    inner = nn.Sequential(*(build(part) for part in parts))
    return {"chain": lambda m: m, "residual": Residual, "twice": Twice}[kind](inner)


TREES = st.recursive(
    st.sampled_from(sorted(PIECES)),
    lambda part: st.tuples(st.sampled_from(["chain", "residual", "twice"]), st.lists(part, min_size=1, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES, seed=st.integers(0, 99))
def test_graph_and_executor_agree_with_torch(model_of, eager, noise, tree, seed):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 1), build(tree)).eval()
    model = model_of(module, torch.randn(2, WIDTH, 5, 5))
    keys = [node.key for node in model.graph.nodes]
    assert len(set(keys)) == len(keys)
    assert {split_node(key)[0] for key in keys[1:]} <= {name for name, _ in module.named_modules()}
    seen = set()
    for node in model.graph.nodes:
        assert set(node.inputs) <= seen, "execution order"
        seen.add(node.key)
    x = noise(3, WIDTH, 5, 5)
    (got,), (wanted,) = Executor(model).run((x,)), eager(module, x)
    assert np.allclose(got, wanted, rtol=1e-5, atol=1e-5)
    same = rewrite(model, lambda module: None, "same")
    assert [node.key for node in same.graph.nodes] == keys
    assert np.array_equal(Executor(same).run((x,))[0], got)
    covered = [node.key for unit in units(model.graph) for node in (unit.head, unit.clamp) if node]
    assert sorted(covered) == sorted(keys)
    assert all(role(unit.clamp) is Role.CLAMP for unit in units(model.graph) if unit.clamp)
