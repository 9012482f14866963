"""Recurrent layers written out: the same values, keys of their own, and the rest of the graph as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from haversack.base.errors import ConversionError
from haversack.load.quiet import quiet
from haversack.tools.graph import recurrent
from haversack.tools.graph.canonical import to_model
from haversack.tools.graph.execute import Executor
from haversack.tools.graph.recurrent import unrolled

FREE = {0: torch.export.Dim.AUTO}


class Listener(nn.Module):
    """A convolution over bands, a recurrent layer with its state in and out, and a classifier."""

    def __init__(self, kind, layers=1):
        super().__init__()
        self.front = nn.Conv1d(6, 8, 3, padding=1)
        self.memory = getattr(nn, kind)(8, 12, layers, batch_first=True)
        self.classify = nn.Linear(12, 4)
        self.split = kind == "LSTM"

    def forward(self, x, state):
        """Return (scores, next state), the state [n, layers, 12], or 24 where it has two parts."""
        features = torch.relu(self.front(x)).transpose(1, 2)
        state = state.transpose(0, 1).contiguous()
        given = tuple(part.contiguous() for part in state.chunk(2, 2)) if self.split else state
        y, after = self.memory(features, given)
        after = torch.cat(after, 2) if self.split else after
        return self.classify(y[:, -1]), after.transpose(0, 1)


class Step(nn.Module):
    """One step of a cell."""

    def __init__(self, kind):
        super().__init__()
        self.cell = getattr(nn, kind)(6, 12)
        self.split = kind == "LSTMCell"

    def forward(self, x, state):
        """Return the next state."""
        if self.split:
            return torch.cat(self.cell(x, tuple(state.chunk(2, 1))), 1)
        return self.cell(x, state)


def exported(module, *inputs):
    with quiet():
        return torch.export.export(module.eval(), inputs, dynamic_shapes=(FREE,) * len(inputs), strict=False)


def written_out(program):
    with quiet():
        return unrolled(program)


def listener(kind, layers=1):
    torch.manual_seed(1)
    width = 24 if kind == "LSTM" else 12
    return Listener(kind, layers), (torch.randn(3, 6, 5), torch.randn(3, layers, width))


@pytest.mark.parametrize(("kind", "layers"), [("GRU", 1), ("GRU", 2), ("LSTM", 1), ("LSTM", 2), ("RNN", 1)])
def test_a_layer_computes_what_pytorch_does(kind, layers):
    module, inputs = listener(kind, layers)
    program = written_out(exported(module, *inputs))
    model = to_model(program, "listener", input_names=("x", "state"), output_names=("scores", "next"))
    assert not {node.op for node in model.graph.nodes} & recurrent.CELLS
    wanted = module(*inputs)
    found = Executor(model).run(tuple(array.numpy() for array in inputs))
    for value, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(value, other.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", ["GRUCell", "LSTMCell", "RNNCell"])
def test_a_step_computes_what_pytorch_does(kind):
    torch.manual_seed(2)
    module = Step(kind)
    inputs = (torch.randn(3, 6), torch.randn(3, 24 if kind == "LSTMCell" else 12))
    model = to_model(written_out(exported(module, *inputs)), "step")
    (found,) = Executor(model).run(tuple(array.numpy() for array in inputs))
    np.testing.assert_allclose(found, module(*inputs).detach().numpy(), atol=1e-6)


def test_the_weights_are_those_of_linear_layers_and_the_rest_stays():
    module, inputs = listener("GRU")
    model = to_model(written_out(exported(module, *inputs)), "listener")
    linear = [node for node in model.graph.nodes if node.op == "linear"]
    assert [node.key for node in linear if node.key.startswith("memory:")] == [f"memory:linear#{i}" for i in range(6)]
    assert {node.weight for node in linear} == {"memory.weight_ih_l0", "memory.weight_hh_l0", "classify.weight"}
    assert [node.key for node in model.graph.nodes if node.op == "conv1d"] == ["front:conv1d#0"]


def test_a_program_without_cells_is_left_alone():
    program = exported(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(2, 4))
    assert unrolled(program) is program


def test_a_long_sequence_is_refused_by_layer_and_told_to_stream(monkeypatch):
    monkeypatch.setattr(recurrent, "MAX_STEPS", 4)  # torch.export itself takes its time over more
    module, inputs = listener("GRU")
    program = exported(module, *inputs)
    with pytest.raises(ConversionError, match="over 5 steps, and more than 4") as caught:
        written_out(program)
    assert caught.value.where == "memory"
    assert "state" in caught.value.next_step
