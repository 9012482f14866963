"""GPTQ on small networks: integers on the same grid, outputs nearer to float, on samples that it did not see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from few_codes import error, images, narrow, stored
from torch import nn

from haversack.base.encodings import Encodings
from haversack.base.plan import WIDTHS, Plan, Step
from haversack.compress.apply import apply
from haversack.compress.plans import uniform
from haversack.compress.prepare.bias_correct import BiasCorrect
from haversack.compress.prepare.contract import PrepareContext
from haversack.compress.prepare.gptq import Gptq
from haversack.profile.ranges import ranges
from haversack.targets.contract import SHELF as TARGETS
from haversack.tools.numerics.affine import dequantize


def test_its_weights_are_on_the_grid_that_was_given(folded):
    encodings = narrow(folded)
    after = Gptq().apply(folded, PrepareContext(lambda: images(1), encodings))
    for key, codes in stored(after, encodings).integers.items():
        node = folded.graph.by_key[key.removesuffix(":weight")]
        np.testing.assert_array_equal(after.weights[node.weight], dequantize(codes, encodings.tensors[key]))
        assert (codes != encodings.integers[key]).any(), f"{key}: nothing was made up for"
    assert after.notes[-1].startswith("gptq: ")


@pytest.mark.parametrize(
    "part, text", [(Gptq(), "layers rounded by their outputs"), (BiasCorrect(), "biases of layers")]
)
def test_every_layer_is_told_from_before_the_first(folded, part, text):
    events, encodings = [], narrow(folded)
    part.apply(folded, PrepareContext(lambda: images(1), encodings, events.append))
    told = [(one.kind, one.done, one.total) for one in events if one.text == text]
    layers = len(encodings.integers)
    assert told == [("progress", done, layers) for done in range(layers + 1)]


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_unseen_samples_come_nearer_to_float_than_by_bias_correction(folded, bits):
    encodings = narrow(folded, bits)
    context = PrepareContext(lambda: images(1), encodings)
    plain, mine = (step.apply(folded, context) for step in (BiasCorrect(), Gptq()))
    fresh = images(2)
    before = error(plain, stored(folded, encodings), folded, fresh)
    assert error(mine, stored(mine, encodings), folded, fresh) < 0.8 * before


def test_with_integers_everywhere_too(folded, all_constraints):
    """Weights of 4 bits where they can be, activations of 8, under the constraints of all runtimes."""
    demands = all_constraints(folded.graph)
    plan = Plan("t", uniform(folded.graph, "w4a8", widths=demands.widths))
    found = {}
    for name in ("bias_correct", "gptq"):
        planned = Plan("t", plan.layers, (Step(name),))
        made = apply(
            folded,
            planned,
            ranges=lambda model: ranges(model, images(1)),
            constraints=demands,
            samples=lambda: images(1),
        )
        found[name] = error(made.model, made.encodings, folded, images(2))
    assert found["gptq"] < 0.9 * found["bias_correct"]


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_with_few_codes_too(folded, bits):
    """The scales stay, no code leaves its range, and outputs come nearer to float than with the bias alone mended."""
    demands = TARGETS.build("onnxruntime").constraints(folded.graph)
    layers = uniform(folded.graph, WIDTHS[bits], weights=Step("mse"), widths=demands.widths)
    found = {}
    for name in ("bias_correct", "gptq"):
        made = apply(
            folded,
            Plan("t", layers, (Step(name),)),
            ranges=lambda model: ranges(model, images(1)),
            constraints=demands,
            samples=lambda: images(1),
        )
        codes = {key: set(np.unique(one)) for key, one in made.encodings.integers.items()}
        assert all(found <= ({-1, 1} if bits == 1 else set(range(-3, 4))) for found in codes.values())
        found[name] = error(made.model, made.encodings, folded, images(2))
    assert found["gptq"] < found["bias_correct"]


def test_a_weight_that_others_read_stays(make_model):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(6, 6)
            self.two = nn.Linear(6, 6)
            self.two.weight = self.one.weight
            self.out = nn.Linear(6, 3)

        def forward(self, x):
            return self.out(self.two(torch.relu(self.one(x))))

    torch.manual_seed(1)
    model = make_model(Tied(), (6,))
    rng = np.random.default_rng(3)
    samples = [(rng.normal(size=(8, 6)).astype(np.float32),) for _ in range(4)]
    after = Gptq().apply(model, PrepareContext(lambda: samples, narrow(model)))
    changed = {name for name, value in after.weights.items() if (value != model.weights[name]).any()}
    assert changed == {"out.weight", "out.bias"}


def test_one_batch_of_samples_is_rounded_without_a_refit(make_model):
    torch.manual_seed(2)
    model = make_model(nn.Sequential(nn.Linear(6, 4)), (6,))
    rng = np.random.default_rng(3)
    samples = [(rng.normal(size=(8, 6)).astype(np.float32),)]
    encodings = narrow(model)
    after = Gptq().apply(model, PrepareContext(lambda: samples, encodings))
    off = after.weights["0.weight"] - model.weights["0.weight"]
    assert np.abs(off / encodings.tensors["0:linear#0:weight"].scale[:, None]).max() < 3


@pytest.mark.parametrize("kind", ["one row", "equal rows", "nearly equal", "constant pictures"])
def test_samples_that_hardly_vary_round_to_nearest_or_near_it(make_model, kind):
    """Their moments are 0 or next to it: nothing is learnt from them, and nothing breaks."""
    torch.manual_seed(2)
    rng = np.random.default_rng(3)
    parts = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    model = make_model(nn.Sequential(*parts, nn.Flatten(), nn.Linear(16, 4)), (3, 6, 6))
    one = rng.normal(size=(1, 3, 6, 6)).astype(np.float32)
    samples = {
        "one row": [(one,)],
        "equal rows": [(one.repeat(8, axis=0),)] * 3,
        "nearly equal": [((1000 + 0.01 * rng.normal(size=(8, 3, 6, 6))).astype(np.float32),) for _ in range(3)],
        "constant pictures": [(np.full((8, 3, 6, 6), 2.5, np.float32),)] * 3,
    }[kind]
    encodings = narrow(model, 8)
    after = Gptq().apply(model, PrepareContext(lambda: samples, encodings))
    assert error(after, stored(after, encodings), model, samples) < 0.05


class Dead(nn.Module):
    """Three of eight channels never leave 0."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 4)
        with torch.no_grad():
            self.first.bias[:3] = -100.0

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


@pytest.mark.parametrize("rows, few", [(8, True), (31, True), (32, False), (64, False)])
def test_dead_inputs_and_few_samples_are_told(make_model, rows, few):
    torch.manual_seed(2)
    model = make_model(Dead(), (6,))
    found = []
    samples = [(np.random.default_rng(3).normal(size=(rows, 6)).astype(np.float32),)]
    Gptq().apply(model, PrepareContext(lambda: samples, narrow(model), tell=found.append))
    dead = [one for one in found if one.kind == "dead-inputs"]
    assert [(one.layer, one.text.partition(" of")[0]) for one in dead] == [("second", "3")]
    assert [one.kind for one in found if one not in dead] == ["few-samples"] * few


def test_what_a_step_learns_is_a_finding_of_the_plan(make_model):
    torch.manual_seed(2)
    model = make_model(Dead(), (6,))
    samples = [(np.random.default_rng(3).normal(size=(40, 6)).astype(np.float32),)]
    demands = TARGETS.build("onnxruntime").demands(model)
    plan = Plan("onnxruntime", uniform(model.graph, "int8"), (Step("gptq"),), Step("minmax"))
    made = apply(model, plan, ranges=lambda one: ranges(one, samples), constraints=demands, samples=lambda: samples)
    assert [one.kind for one in made.findings if one.layer == "second"] == ["dead-inputs"]


def test_a_model_without_integers_comes_back_as_it_is(folded):
    assert Gptq().apply(folded, PrepareContext(lambda: images(1), Encodings.none())) is folded


def test_less_memory_takes_fewer_samples(folded):
    encodings = narrow(folded)
    after = Gptq(megabytes=0.3).apply(folded, PrepareContext(lambda: images(1), encodings))
    assert after.notes[-1] == "gptq: 5 layers, 8 to 64 samples"  # more where the network is narrow


@pytest.mark.parametrize("setting", [{"samples": 0}, {"damping": 0.0}, {"megabytes": 0.0}])
def test_settings_that_make_no_sense(setting):
    with pytest.raises(ValueError, match="positive"):
        Gptq(**setting)
