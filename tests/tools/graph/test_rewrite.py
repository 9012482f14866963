"""Rewriting: the graph is edited and exported again; keys of what stays, names and free dimensions stay."""

import numpy as np
import pytest
import torch
from torch import nn

from haversack.tools.graph.execute import Executor
from haversack.tools.graph.rewrite import example, free_shapes, rewrite


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.ReLU())


def drop_dropout(module):
    for node in list(module.graph.nodes):
        if "dropout" in str(node.target):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)


@pytest.fixture
def model(model_of):
    return model_of(
        small(), torch.randn(2, 3, 6, 6), input_names=["image"], output_names=["logits"], dims={"image": {0: "batch"}}
    )


def test_nothing_changed_is_the_same_graph(model):
    same = rewrite(model, lambda module: None, "looked at it")
    assert same.graph.digest == model.graph.digest
    assert same.digest == model.digest
    assert same.notes == ("looked at it",)
    assert model.notes == ()


def test_what_stays_keeps_key_names_and_free_dimensions(model, noise):
    less = rewrite(model, drop_dropout, "no dropout")
    assert [node.key for node in less.graph.nodes] == [node.key for node in model.graph.nodes if node.op != "dropout"]
    assert [(port.name, port.spec.shape) for port in less.inputs] == [("image", ("batch", 3, 6, 6))]
    assert [(port.name, port.spec.shape) for port in less.outputs] == [("logits", ("batch", 2, 4, 4))]
    for count in (1, 3):
        x = noise(count, 3, 6, 6)
        assert np.array_equal(Executor(less).run((x,))[0], Executor(model).run((x,))[0])


def test_the_models_weights_are_in_the_edited_module(model, noise):
    halved = model.with_weights({"0.weight": model.weights["0.weight"] / 2})
    seen = {}
    after = rewrite(halved, lambda module: seen.update(dict(module.named_parameters())), "looked")
    assert np.array_equal(seen["0.weight"].detach().numpy(), halved.weights["0.weight"])
    assert np.array_equal(after.weights["0.weight"], halved.weights["0.weight"])
    x = noise(2, 3, 6, 6)
    assert np.array_equal(Executor(after).run((x,))[0], Executor(halved).run((x,))[0])
    assert not np.array_equal(Executor(after).run((x,))[0], Executor(model).run((x,))[0])


def test_the_original_is_left_alone(model, noise):
    x = noise(2, 3, 6, 6)
    before = Executor(model).run((x,))[0]

    def spoil(module):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()

    spoiled = rewrite(model, spoil, "zeroed")
    assert not spoiled.weights["0.weight"].any()
    assert np.array_equal(Executor(model).run((x,))[0], before)
    assert model.weights["0.weight"].any()


def test_reused_modules_and_adds_keep_their_calls(model_of, noise):
    class Reuse(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.drop = nn.Dropout()

        def forward(self, x):
            return self.fc(self.drop(self.fc(x)) + x) + x

    model = model_of(Reuse(), torch.randn(3, 4))
    less = rewrite(model, drop_dropout, "no dropout")
    assert [node.key for node in less.graph.nodes] == [
        "x:input#0", "fc:linear#0", ":add#0", "fc:linear#1", ":add#1",
    ]  # fmt: skip
    x = noise(5, 4)
    assert np.array_equal(Executor(less).run((x,))[0], Executor(model).run((x,))[0])


def test_two_edits_in_a_row(model):
    once = rewrite(model, drop_dropout, "first")
    twice = rewrite(once, lambda module: None, "second")
    assert twice.notes == ("first", "second")
    assert twice.graph.digest == once.graph.digest


def test_two_free_axes_stay_named(model_of):
    class Mask(nn.Module):
        def forward(self, ids, mask):
            return (ids * mask).cumsum(1)

    free = [{0: "batch", 1: "length"}] * 2
    model = model_of(Mask(), torch.randn(2, 5), torch.randn(2, 5), free=free, dims={"ids": free[0], "mask": free[1]})
    after = rewrite(model, lambda module: None, "same")
    assert [port.spec.shape for port in after.inputs] == [("batch", "length")] * 2
    assert Executor(after).run((np.ones((3, 7), np.float32), np.ones((3, 7), np.float32)))[0].shape == (3, 7)


def test_examples_fit_the_program(model, model_of):
    (image,) = example(model.program)
    assert image.shape == (2, 3, 6, 6)
    assert not image.any()
    assert free_shapes(model.program) == ({0: torch.export.Dim.AUTO},)
    ids = model_of(nn.Embedding(9, 3), torch.zeros(3, 4, dtype=torch.int64))
    assert example(ids.program)[0].dtype == torch.int64
    constant = model_of(nn.Linear(4, 2), torch.randn(2, 4), free=[{0: "batch", 1: "width"}])
    assert free_shapes(constant.program) == ({0: torch.export.Dim.AUTO},), "width turned out constant"


def test_an_edit_that_breaks_the_graph_is_not_accepted(model):
    def break_it(module):
        nodes = list(module.graph.nodes)
        nodes[-2].args = (nodes[-1],)

    with pytest.raises((RuntimeError, AssertionError, ValueError)):
        rewrite(model, break_it, "broken")
