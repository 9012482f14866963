"""Roles of nodes, bounds of clamps, and units: what runs in integers together."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it

from haversack.base.graph import Graph, Node, TensorSpec
from haversack.tools.graph.roles import Role, clamp_bounds, role, units


class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return self.function(self, x)


IMAGE = (2, 4, 6, 6)
ROLES = [
    (nn.Conv2d(4, 4, 3), IMAGE, "conv2d", Role.LAYER),
    (nn.Conv1d(4, 4, 3), (2, 4, 6), "conv1d", Role.LAYER),
    (nn.Linear(6, 3), IMAGE, "linear", Role.LAYER),
    (nn.ConvTranspose2d(4, 4, 3), IMAGE, "conv_transpose2d", Role.FLOAT),
    (Call(lambda m, x: F.conv2d(x, x.mean(0, keepdim=True))), IMAGE, "conv2d", Role.FLOAT),
    (Call(lambda m, x: x + x.flip(0)), IMAGE, "add", Role.ADD),
    (Call(lambda m, x: x + 1), IMAGE, "add", Role.FLOAT),
    (Call(lambda m, x: torch.add(x, x.flip(0), alpha=2)), IMAGE, "add", Role.FLOAT),
    (Call(lambda m, x: x.argmax(1) + x.argmin(1)), IMAGE, "add", Role.FLOAT),
    (nn.AdaptiveAvgPool2d(1), IMAGE, "adaptive_avg_pool2d", Role.MEAN),
    (nn.AdaptiveAvgPool2d((1, 2)), IMAGE, "adaptive_avg_pool2d", Role.FLOAT),
    (Call(lambda m, x: x.mean((2, 3))), IMAGE, "mean", Role.MEAN),
    (Call(lambda m, x: x.mean((-1, -2), keepdim=True)), IMAGE, "mean", Role.MEAN),
    (Call(lambda m, x: x.mean((1, 2))), IMAGE, "mean", Role.FLOAT),
    (Call(lambda m, x: x.mean(1)), (2, 4, 6), "mean", Role.FLOAT),
    (nn.ReLU(), IMAGE, "relu", Role.CLAMP),
    (nn.ReLU6(), IMAGE, "hardtanh", Role.CLAMP),
    (Call(lambda m, x: F.relu6(x)), IMAGE, None, Role.CLAMP),
    (Call(lambda m, x: x.argmax(1).clamp(0, 2)), IMAGE, "clamp", Role.FLOAT),
    (Call(lambda m, x: x.argmax(1).flatten(1)), IMAGE, "flatten", Role.SAME),
    (nn.Hardtanh(0, 4), IMAGE, "hardtanh", Role.CLAMP),
    (Call(lambda m, x: x.clamp(max=3)), IMAGE, "clamp", Role.CLAMP),
    (Call(lambda m, x: x.clamp(x.flip(0), x.flip(1))), IMAGE, "clamp", Role.FLOAT),
    (Call(lambda m, x: x.mT.clamp(min=m.weight[0])), IMAGE, "clamp", Role.FLOAT),
    (nn.Flatten(), IMAGE, "flatten", Role.SAME),
    (nn.Dropout(), IMAGE, "dropout", Role.SAME),
    (nn.MaxPool2d(2), IMAGE, "max_pool2d", Role.SAME),
    (nn.ZeroPad2d(1), IMAGE, "pad", Role.SAME),
    (nn.ConstantPad2d(1, 2.0), IMAGE, "pad", Role.FLOAT),
    (nn.ReflectionPad2d(1), IMAGE, "pad", Role.FLOAT),
    (Call(lambda m, x: torch.cat([x, x], 1)), IMAGE, "cat", Role.CONCAT),
    (Call(lambda m, x: x.reshape(x.shape[0], -1)), IMAGE, "reshape", Role.SAME),
    (nn.Sigmoid(), IMAGE, "sigmoid", Role.FLOAT),
    (nn.LayerNorm(6), IMAGE, "layer_norm", Role.FLOAT),
]


@pytest.mark.parametrize("module, shape, op, expected", ROLES)
def test_the_role_of_an_op(model_of, module, shape, op, expected):
    nodes = [node for node in model_of(module, torch.randn(shape)).graph.nodes if op in (node.op, None)]
    assert nodes, "the case does not contain its op"
    assert role(nodes[-1]) is expected


def test_embedding_and_input(model_of):
    model = model_of(nn.Embedding(9, 3), torch.zeros(2, 4, dtype=torch.int64))
    assert [role(node) for node in model.graph.nodes] == [Role.INPUT, Role.EMBEDDING]


@pytest.mark.parametrize(
    "module, bounds",
    [
        (nn.ReLU(), (0, float("inf"))),
        (nn.ReLU6(), (0, 6)),
        (nn.Hardtanh(-1, 2), (-1, 2)),
        (Call(lambda m, x: x.clamp(max=3)), (float("-inf"), 3)),
        (Call(lambda m, x: x.clamp(min=0.5)), (0.5, float("inf"))),
        (nn.Sigmoid(), None),
    ],
)
def test_bounds_of_clamps(model_of, module, bounds):
    assert clamp_bounds(model_of(module, torch.randn(2, 3)).graph.nodes[-1]) == bounds


def names(model):
    return [(unit.head.op, unit.clamp.op if unit.clamp else None) for unit in units(model.graph)]


def test_a_clamp_joins_the_layer_before_it(model_of):
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.ReLU())
    model = model_of(module, torch.randn(2, 3, 4, 4))
    assert names(model) == [
        ("input", None), ("conv2d", "hardtanh"), ("relu", None), ("adaptive_avg_pool2d", "relu"),
    ]  # fmt: skip
    unit = units(model.graph)[1]
    assert (unit.last.op, unit.out) == ("hardtanh", "1:hardtanh#0:out")
    assert units(model.graph)[0].out == "input:input#0:out"


def test_a_clamp_after_a_residual_add(model_of):
    class Add(nn.Module):
        def forward(self, x, y):
            return torch.relu(x + y)

    assert names(model_of(Add(), torch.randn(2, 3), torch.randn(2, 3))) == [
        ("input", None), ("input", None), ("add", "relu"),
    ]  # fmt: skip


def test_a_head_with_two_readers_keeps_its_clamp_apart(model_of):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            y = self.fc(x)
            return torch.relu(y) * y.sigmoid()

    assert ("linear", None) in names(model_of(Two(), torch.randn(2, 3)))


def test_a_head_that_is_an_output_keeps_its_clamp_apart(model_of):
    class Out(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            y = self.fc(x)
            return torch.relu(y), y

    assert names(model_of(Out(), torch.randn(2, 3)))[1:] == [("linear", None), ("relu", None)]


def test_nothing_joins_a_float_op(model_of):
    module = nn.Sequential(nn.LayerNorm(3), nn.ReLU(), nn.Sigmoid(), nn.ReLU6())
    assert all(clamp is None for _, clamp in names(model_of(module, torch.randn(2, 3))))


def test_every_node_is_in_exactly_one_unit(model_of):
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Flatten()
    )
    graph = model_of(module, torch.randn(2, 3, 5, 5)).graph
    covered = [node.key for unit in units(graph) for node in (unit.head, unit.clamp) if node is not None]
    assert sorted(covered) == sorted(node.key for node in graph.nodes)


def test_a_clamp_that_reads_its_head_twice_removed_from_order():
    spec = TensorSpec(("batch", 3), "float32")
    x = Node("x:input#0", "input", "x", (), spec)
    fc = Node("fc:linear#0", "linear", "fc", (x.key,), spec, weight="w")
    other = Node(":sigmoid#0", "sigmoid", "s", (x.key,), spec)
    clamp = Node(":relu#0", "relu", "r", (fc.key,), spec)
    last = Node(":mul#0", "mul", "m", (clamp.key, other.key), spec)
    graph = Graph((x, fc, other, clamp, last), (x.key,), (last.key,))
    assert [unit.last.key for unit in units(graph)] == [x.key, clamp.key, other.key, last.key]
