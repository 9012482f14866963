from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from haversack.base.encodings import Encodings
from haversack.base.plan import LayerPlan, Plan
from haversack.compress.encode import encode
from haversack.compress.plans import uniform
from haversack.compress.prepare.bias_correct import BiasCorrect
from haversack.compress.prepare.contract import PrepareContext
from haversack.tools.graph.simulate import Simulator
from haversack.tools.numerics.affine import symmetric


class Chain(nn.Module):
    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, x):
        return self.parts(x)


def batches(*shape, count=4, seed=0, mean=0.7):
    rng = np.random.default_rng(seed)
    return [(rng.normal(mean, 1.0, size=(3, *shape)).astype(np.float32),) for _ in range(count)]


def coarse(model, bits=3):
    """Weights of every layer in few bits, activations in float."""
    tensors, integers = {}, {}
    for node in model.graph.nodes:
        if node.op in ("linear", "conv2d", "conv1d"):
            weight = model.weights[node.weight]
            scale = np.abs(weight.reshape(len(weight), -1)).max(axis=1) / ((1 << (bits - 1)) - 1)
            encoding = symmetric(scale.astype(np.float32), bits, 0)
            tensors[f"{node.key}:weight"] = encoding
            shape = (-1, *[1] * (weight.ndim - 1))
            integers[f"{node.key}:weight"] = np.rint(weight / scale.reshape(shape)).astype(np.int32)
    return Encodings(tensors, integers)


def means(model, encodings, samples):
    """Return the mean of each channel of the last layer's output."""
    rows = np.concatenate([y[0] for y in Simulator(model).run(encodings, samples)])
    return rows.mean(axis=(0, *range(2, rows.ndim)))


LAYERS = [
    ((nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), (4,)),
    ((nn.Conv2d(2, 4, 3, padding=1), nn.ReLU6(), nn.Conv2d(4, 3, 3, stride=2, groups=1)), (2, 7, 7)),
    ((nn.Conv2d(4, 8, 3, groups=4, dilation=2), nn.Hardtanh(), nn.Conv2d(8, 3, 1)), (4, 7, 7)),
    ((nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Conv1d(4, 3, 2)), (2, 9)),
]


@pytest.mark.parametrize("parts, shape", LAYERS)
def test_the_mean_output_is_floats_again(make_model, parts, shape):
    torch.manual_seed(1)
    model = make_model(Chain(*parts), shape)
    samples = batches(*shape)
    encodings = coarse(model)
    context = PrepareContext(lambda: samples, encodings)
    after = BiasCorrect().apply(model, context)
    want = means(model, Encodings.none(), samples)
    shift = np.abs(means(model, encodings, samples) - want).max()
    left = np.abs(means(after, encodings, samples) - want).max()
    assert shift > 1e-3
    assert left < 1e-5
    assert after.notes[-1] == "bias_correct: 2 layers, 12 samples"
    assert {k for k in model.weights if (model.weights[k] != after.weights[k]).any()} == {
        "parts.0.bias",
        "parts.2.bias",
    }


def test_later_layers_see_corrected_ones(make_model):
    """Correcting the second layer alone leaves the first one's shift; both together leave none in either."""
    torch.manual_seed(2)
    model = make_model(Chain(nn.Linear(4, 6), nn.Linear(6, 3)), (4,))
    samples = batches(4)
    encodings = coarse(model)
    after = BiasCorrect().apply(model, PrepareContext(lambda: samples, encodings))
    x = np.concatenate([s[0] for s in samples])
    key = "parts.0:linear#0:weight"
    stored = encodings.integers[key] * encodings.tensors[key].scale[:, None]
    first = (x @ stored.T + after.weights["parts.0.bias"]).mean(axis=0)
    want = (x @ model.weights["parts.0.weight"].T + model.weights["parts.0.bias"]).mean(axis=0)
    np.testing.assert_allclose(first, want, atol=1e-5)


def test_the_whole_error_gets_smaller_with_everything_in_integers(folded, folded_ranges, images, all_constraints):
    encodings, _ = encode(
        folded,
        Plan("t", uniform(folded.graph, "int8", granularity="tensor")),
        folded_ranges,
        all_constraints(folded.graph),
    )
    after = BiasCorrect().apply(folded, PrepareContext(lambda: images, encodings))
    outputs = lambda model, e: np.concatenate([y[0] for y in Simulator(model).run(e, images)])
    exact = outputs(folded, Encodings.none())
    error = lambda model: np.linalg.norm(outputs(model, encodings) - exact)
    assert error(after) < error(folded)


def test_sequences_of_many_lengths(make_model):
    torch.manual_seed(3)
    module = Chain(nn.Linear(4, 3)).eval()
    program = torch.export.export(
        module, (torch.zeros(2, 5, 4),), dynamic_shapes=(({0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}),)
    )
    from haversack.tools.graph.canonical import to_model

    model = to_model(program, "tokens")
    rng = np.random.default_rng(4)
    samples = [(rng.normal(0.5, 1, size=(2, length, 4)).astype(np.float32),) for length in (5, 3, 8)]
    encodings = coarse(model)
    after = BiasCorrect().apply(model, PrepareContext(lambda: samples, encodings))
    total = lambda m, e: np.concatenate([y[0].reshape(-1, 3) for y in Simulator(m).run(e, samples)]).mean(axis=0)
    np.testing.assert_allclose(total(after, encodings), total(model, Encodings.none()), atol=1e-5)


def test_run_time_quantization_is_corrected_too(make_model):
    torch.manual_seed(5)
    model = make_model(Chain(nn.Linear(4, 3)), (4,))
    samples = batches(4)
    encodings, _ = encode(
        model,
        Plan("t", {"parts.0:linear#0": LayerPlan("int8_dynamic", "tensor")}),
        {},
        replace_nothing(),
    )
    after = BiasCorrect().apply(model, PrepareContext(lambda: samples, encodings))
    np.testing.assert_allclose(means(after, encodings, samples), means(model, Encodings.none(), samples), atol=2e-3)


def replace_nothing():
    from haversack.base.constraints import Constraints

    return Constraints()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.bare = nn.Linear(3, 3, bias=False)

    def forward(self, x):
        return self.bare(self.layer(torch.relu(self.layer(x))))


def test_shared_and_missing_biases_are_left_alone(make_model):
    model = make_model(Tied(), (3,))
    assert BiasCorrect().apply(model, PrepareContext(lambda: batches(3), coarse(model))) is model


def test_float_layers_are_left_alone(make_model):
    model = make_model(Chain(nn.Linear(3, 3)), (3,))
    assert BiasCorrect().apply(model, PrepareContext(lambda: batches(3), Encodings.none())) is model


@pytest.mark.parametrize("settings, used", [({}, 60), ({"samples": 16}, 16), ({"megabytes": 1e-6}, 8)])
def test_samples_and_memory_are_bounded(make_model, settings, used):
    model = make_model(Chain(nn.Linear(4, 3)), (4,))
    after = BiasCorrect(**settings).apply(model, PrepareContext(lambda: batches(4, count=20), coarse(model)))
    assert after.notes[-1] == f"bias_correct: 1 layer, {used} samples"


def test_codes_take_a_byte_and_floats_four(folded, folded_ranges, images, all_constraints):
    from haversack.compress.prepare.float_means import FloatMeans
    from haversack.tools.graph.execute import Executor

    encodings, _ = encode(
        folded, Plan("t", uniform(folded.graph, "int8")), folded_ranges, all_constraints(folded.graph)
    )
    taken = FloatMeans({})
    taken.start(len(images[0][0]))
    Executor(folded).run(images[0], observe=taken.observe)
    in_float, in_codes = taken.row_bytes(folded, Encodings.none()), taken.row_bytes(folded, encodings)
    assert in_float == 4 * in_codes
    # the most at once: the 12 channels of `wide` and the 8 that it reads, at 10 by 10
    assert in_codes == (12 + 8) * 10 * 10 or in_codes == 3 * 8 * 10 * 10


@pytest.mark.parametrize("settings", [{"samples": 0}, {"megabytes": 0.0}])
def test_settings_that_mean_nothing(settings):
    with pytest.raises(ValueError, match="must be positive"):
        BiasCorrect(**settings)


def test_progress(make_model):
    events = []
    model = make_model(Chain(nn.Linear(4, 3)), (4,))
    context = PrepareContext(lambda: batches(4, count=8), coarse(model), events.append)
    BiasCorrect(samples=16).apply(model, replace(context))
    told = [(event.done, event.total) for event in events if event.text == "mean outputs of layers"]
    assert told == [(0, 2), (1, 2), (2, 2)]


def test_a_layer_that_gets_one_row_without_a_batch_has_a_mean_by_channel():
    from haversack.tools.graph.canonical import to_model

    torch.manual_seed(4)
    model = to_model(
        torch.export.export(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)).eval(), (torch.zeros(4),)), "t"
    )
    samples = [(row,) for row in batches(4)[0][0]]
    encodings = coarse(model)
    after = BiasCorrect().apply(model, PrepareContext(lambda: samples, encodings))
    for one, near in ((after, True), (model, False)):
        found = np.mean([Simulator(one).run(encodings, [row])[0][0] for row in samples], axis=0)
        exact = np.mean([Simulator(model).run(Encodings.none(), [row])[0][0] for row in samples], axis=0)
        assert bool(np.abs(found - exact).max() < 1e-5) is near
