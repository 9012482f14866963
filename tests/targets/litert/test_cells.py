"""What real networks have beside layers: recurrent cells, gates, norms, resizing; exact, or refused with the layer."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.base.errors import ConversionError
from haversack.base.job import Job
from haversack.compress.prepare.contract import PrepareContext
from haversack.compress.prepare.fold_norm import FoldNorm
from haversack.load.exporting import export
from haversack.targets.litert import LiteRT
from haversack.verify.location import locate

pytestmark = pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")  # torch.export of nn.GRU
TARGET = LiteRT()
STEPS = 5


def modules():  # noqa: C901 - one class a network
    """Return name -> (module, shape of x, bound of the largest error)."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(11)

    class Unrolled(nn.Module):
        """A recurrent cell called once a step."""

        def __init__(self, cell):
            super().__init__()
            self.cell = cell

        def forward(self, x):
            state = x.new_zeros(x.shape[0], 6)
            memory = state
            for step in range(STEPS):
                if isinstance(self.cell, nn.LSTMCell):
                    state, memory = self.cell(x[:, step], (state, memory))
                else:
                    state = self.cell(x[:, step], state)
            return state

    class Written(nn.Module):
        """A gated recurrent unit in plain layers, as Keras exports have it."""

        def __init__(self):
            super().__init__()
            self.gates, self.new = nn.Linear(10, 12), nn.Linear(10, 6)

        def forward(self, x):
            state = (0.0 * x[:, 0, :1]).expand(-1, 6)
            seen = []
            for step in range(STEPS):
                both = torch.cat([x[:, step], state], 1)
                reset, update = torch.sigmoid(self.gates(both)).chunk(2, 1)
                new = torch.tanh(self.new(torch.cat([x[:, step], reset * state], 1)))
                state = update * state + (1 - update) * new
                seen.append(state)
            return torch.stack(seen, 1)

    class Expression(nn.Module):
        def __init__(self, of):
            super().__init__()
            self.of = of

        def forward(self, x):
            return self.of(x)

    class Gate(nn.Module):
        """Squeeze and excite, with the gates of mobile networks."""

        def __init__(self):
            super().__init__()
            self.down, self.up = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)

        def forward(self, x):
            y = functional.adaptive_avg_pool2d(x, 1)
            return x * functional.hardsigmoid(self.up(functional.hardswish(self.down(y))))

    class Mixer(nn.Module):
        """Layers over positions and over channels in turn."""

        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(4)
            self.across, self.within = nn.Linear(5, 5), nn.Linear(4, 4)

        def forward(self, x):
            x = x + self.across(self.norm(x).transpose(1, 2)).transpose(1, 2)
            return x + functional.gelu(self.within(self.norm(x)))

    image, rows = (2, 4, 5, 6), (2, STEPS, 4)
    return {
        "gru written": (Written(), rows, 1e-6),
        "gru cell": (Unrolled(nn.GRUCell(4, 6)), rows, 1e-6),
        "lstm cell": (Unrolled(nn.LSTMCell(4, 6)), rows, 1e-6),
        "rnn cell": (Unrolled(nn.RNNCell(4, 6)), rows, 1e-6),
        "gru": (Expression(nn.GRU(4, 6, batch_first=True)), rows, 1e-6),
        "lstm": (Expression(nn.LSTM(4, 6, batch_first=True)), rows, 1e-6),
        "gate": (Gate(), image, 1e-6),
        "mixer": (Mixer(), rows, 2e-6),
        "hard-swish": (nn.Hardswish(), image, 1e-6),
        "sigmoid, far out": (Expression(lambda x: torch.sigmoid(40 * x)), image, 1e-6),
        "tanh, far out": (Expression(lambda x: torch.tanh(40 * x)), image, 1e-6),
        "softmax, far out": (Expression(lambda x: torch.softmax(60 * x, -1)), rows, 1e-6),
        "softmax of rows": (Expression(lambda x: torch.softmax(x, 2)), image, 1e-6),
        "log_softmax of channels": (Expression(lambda x: torch.log_softmax(x, 1)), image, 2e-6),
        "average, counted": (nn.AvgPool2d(3, 1, 1, count_include_pad=True), image, 1e-6),
        "average, not counted": (nn.AvgPool2d(3, 1, 1, count_include_pad=False), image, 1e-6),
        "average of a line": (nn.AvgPool1d(2), rows, 1e-6),
        "nearest": (nn.Upsample(scale_factor=2, mode="nearest"), image, 0.0),
        "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), image, 1e-6),
        "interpolate to a size": (Expression(lambda x: functional.interpolate(x, (7, 3))), image, 0.0),
        "layer norm": (nn.LayerNorm(4), rows, 2e-6),
        "layer norm of two axes": (nn.LayerNorm([5, 4]), rows, 2e-6),
        "layer norm without scale": (nn.LayerNorm(4, elementwise_affine=False), rows, 2e-6),
        "layer norm of a constant row": (Expression(lambda x: functional.layer_norm(0 * x + 3.0, (4,))), rows, 2e-6),
        "layer norm, far off": (Expression(lambda x: functional.layer_norm(x + 1000.0, (4,))), rows, 2e-3),
        "group norm": (nn.GroupNorm(2, 4), image, 2e-6),
        "instance norm": (nn.InstanceNorm2d(4), image, 2e-6),
        "batch norm alone": (trained(nn.BatchNorm2d(4)), image, 2e-6),
        "batch norm of a line": (trained(nn.BatchNorm1d(5)), rows, 2e-6),
        "transposed convolution": (nn.ConvTranspose2d(4, 3, 2, 2), image, 2e-6),
        "parametric relu": (nn.PReLU(4), image, 0.0),
        "softplus": (nn.Softplus(), rows, 2e-6),
        "mish": (nn.Mish(), rows, 2e-6),
        "pixel shuffle": (nn.PixelShuffle(2), image, 0.0),
        "channel shuffle": (Expression(shuffled), image, 0.0),
        "cumulative sum": (Expression(lambda x: x.cumsum(1)), rows, 1e-6),
        "attention": (attention(), rows, 2e-6),
        "embedding bag by rows": (Expression(lambda x: (x > 0).float().sum(1)), rows, 0.0),
        "mask counted": (Expression(lambda x: (x > 0).sum(1)), rows, 0.0),
    }


def shuffled(x):
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def trained(norm):
    import torch

    with torch.no_grad():
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
        norm.weight.uniform_(0.5, 2)
    return norm


def attention():
    from torch import nn

    class Itself(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            return self.heads(x, x, x, need_weights=False)[0]

    return Itself()


REFUSED = {
    "gru cell": "cell:gru_cell#4",
    "lstm cell": "cell:lstm_cell#4",
    "rnn cell": "cell:rnn_tanh_cell#4",
    "gru": "gru",
    "lstm": "lstm",
}
"""What has no writer -> the op that the refusal names; a writer for one of them moves it to the others."""
NAMES = (
    *("gru written", "gate", "mixer", "hard-swish", "sigmoid, far out"),
    *("tanh, far out", "softmax, far out", "softmax of rows", "log_softmax of channels", "average, not counted"),
    *("average of a line", "layer norm", "layer norm of two axes", "layer norm without scale"),
    *("layer norm of a constant row", "layer norm, far off", "batch norm alone", "batch norm of a line"),
    *("transposed convolution", "parametric relu"),
    *("channel shuffle", "attention", "embedding bag by rows", "mask counted"),
    *("group norm", "instance norm", "softplus", "mish", "pixel shuffle", "cumulative sum"),
    *("average, counted", "nearest", "bilinear", "interpolate to a size"),
)


@pytest.fixture(scope="module")
def cells(exported):
    """name -> (Model, x, bound), exported when asked for."""
    table = modules()

    def cell(name):
        module, shape, bound = table[name]
        x = np.random.default_rng(5).normal(size=shape).astype(np.float32)
        return exported(module, x), x, bound

    cell.names = tuple(table)
    return cell


@pytest.mark.parametrize("name", NAMES)
def test_it_is_written_and_agrees(cells, both, name):
    model, x, bound = cells(name)
    made = both(model)
    for one, other in zip(made.file(x), made.reference(x), strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        assert float(np.abs(one - other).max()) <= bound * max(1.0, float(np.abs(other).max()))


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_its_layer(cells, tmp_path, name):
    model, _, _ = cells(name)
    faults = TARGET.refusals(model)
    assert faults
    text = " ".join(f"{fault.where} {fault.cause}" for fault in faults)
    assert REFUSED[name] in text
    keys = {node.key for node in model.graph.nodes}
    assert {fault.where for fault in faults} <= keys, "each place is a layer's key"
    with pytest.raises(ConversionError):
        TARGET.lower(model, Encodings.none(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_every_cell_is_tried(cells):
    assert sorted((*NAMES, *REFUSED)) == sorted(cells.names)


@pytest.mark.parametrize("name", ["gru written", "gate", "mixer"])
def test_integers_inside_floats(cells, both, encoded, name):
    """Gates run in float between layers in integers; the file and the reference round alike but for the gates."""
    model, x, _ = cells(name)
    encodings = encoded(model, [(x,)])
    made = both(model, encodings)
    (found,), (wanted,) = made.file(x), made.reference(x)
    grid = encodings.affine(f"{model.graph.outputs[0]}:out")
    step = 0.0 if grid is None else float(grid.scale)
    assert float(np.abs(found - wanted).max()) <= step + 1e-5
    assert made.target.read(made.path, made.artifact).digest == encodings.digest


@pytest.mark.parametrize("precision", ["float16", "int8_weights"])
def test_cells_with_stored_weights(cells, both, encoded, precision):
    """The layers of a cell are called at each step, with one weight."""
    model, x, _ = cells("gru written")
    encodings = encoded(model, [], precision)
    made = both(model, encodings)
    assert made.target.read(made.path, made.artifact).digest == encodings.digest
    np.testing.assert_allclose(made.file(x)[0], made.reference(x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("last", ["recurrent", "written into"])
def test_a_norm_beside_what_is_written_out_folds_and_its_layer_is_integers(both, encoded, last):
    import torch
    from torch import nn

    class Listening(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv1d(4, 6, 3, padding=1), trained(nn.BatchNorm1d(6))
            self.memory, self.head = nn.GRU(6, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, x):
            y = torch.relu(self.norm(self.conv(x)))
            if last == "recurrent":
                return self.head(self.memory(y.transpose(1, 2))[0][:, -1])
            y = y.clone()
            y[:, 0], y[:, 1:3, 1:] = 1.0, y[:, 3:4, 1:]
            return self.head(y.mean(1))

    torch.manual_seed(4)
    x = np.random.default_rng(5).normal(size=(4, 4, STEPS)).astype(np.float32)
    module = Listening().eval()
    model = export(Job("listening", lambda: module, lambda: iter([(x,)]), lambda: iter(()), "top1"))
    model = FoldNorm().apply(model, PrepareContext(lambda: [(x,)]))
    assert TARGET.refusals(model) == ()
    encodings = encoded(model, [(x,)])
    assert {"conv:conv1d#0:weight", "head:linear#0:weight"} <= set(encodings.integers)
    assert len([node.key for node in model.graph.nodes if encodings.affine(node.out) is not None]) >= 4
    made = both(model, encodings)
    (found,), (wanted,) = made.file(x), made.reference(x)
    assert float(np.abs(found - wanted).max()) <= float(encodings.affine(f"{model.graph.outputs[0]}:out").scale) + 1e-5
    shown = partial(made.target.tensors, made.path, made.artifact)
    assert locate(model, encodings, encodings, (x,), tensors=shown) is None
