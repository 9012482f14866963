"""AdaRound on small networks, held against GPTQ, from whose integers it starts."""

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
from haversack.compress.prepare import by_outputs
from haversack.compress.prepare.adaround import Adaround
from haversack.compress.prepare.bias_correct import BiasCorrect
from haversack.compress.prepare.contract import PrepareContext
from haversack.compress.prepare.gptq import Gptq
from haversack.profile.ranges import ranges
from haversack.targets.contract import SHELF as TARGETS
from haversack.tools.numerics.affine import dequantize


@pytest.fixture
def judged(monkeypatch):
    """Return a list that takes (moments, codes, mean squared error) of all that a held half judges."""
    found = []
    plain = by_outputs.Rows.lost

    def lost(rows, seen, codes):
        found.append((seen, codes, plain(rows, seen, codes)))
        return found[-1][-1]

    monkeypatch.setattr(by_outputs.Rows, "lost", lost)
    return found


def test_its_weights_are_on_the_grid_and_not_gptqs(folded):
    encodings = narrow(folded)
    context = PrepareContext(lambda: images(1), encodings)
    after, plain = Adaround().apply(folded, context), Gptq().apply(folded, context)
    for key, codes in stored(after, encodings).integers.items():
        node = folded.graph.by_key[key.removesuffix(":weight")]
        np.testing.assert_array_equal(after.weights[node.weight], dequantize(codes, encodings.tensors[key]))
    assert stored(after, encodings).digest != stored(plain, encodings).digest
    assert after.notes[-1].startswith("adaround: ")


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_unseen_samples_come_nearer_to_float_than_by_bias_correction(folded, bits):
    encodings = narrow(folded, bits)
    context = PrepareContext(lambda: images(1), encodings)
    plain, mine = (step.apply(folded, context) for step in (BiasCorrect(), Adaround()))
    fresh = images(2)
    before = error(plain, stored(folded, encodings), folded, fresh)
    assert error(mine, stored(mine, encodings), folded, fresh) < 0.8 * before


def test_layers_are_judged_by_the_half_that_was_not_fitted(folded, judged):
    encodings = narrow(folded, 3)
    Adaround().apply(folded, PrepareContext(lambda: images(1), encodings))
    assert len(judged) == 2 * len(encodings.integers)
    for mine, start in zip(judged[::2], judged[1::2], strict=True):
        assert mine[0] is start[0]  # the same moments judge both
        assert (np.abs(mine[1] - start[1]) <= 1).all()


def test_a_layer_that_does_worse_on_the_held_half_stays_gptqs(folded, monkeypatch):
    """Trained codes that are nonsense: the guard sees it, and what comes out is what GPTQ gives, bit for bit."""
    monkeypatch.setattr(Adaround, "_trained", lambda self, rows, seen, start: np.minimum(start + 1, 7))
    context = PrepareContext(lambda: images(1), narrow(folded))
    mine, plain = Adaround().apply(folded, context), Gptq().apply(folded, context)
    for name, value in plain.weights.items():
        np.testing.assert_array_equal(mine.weights[name], value)


@pytest.mark.parametrize("bits, rows", [(1, 64), (4, 1)])
def test_signs_and_a_single_sample_stay_gptqs(folded, bits, rows):
    """A sample alone judges nothing but itself; 0 lies between the signs, and is none."""
    given = images(1) if rows > 1 else [tuple(array[:1] for array in next(iter(images(1))))]
    demands = TARGETS.build("onnxruntime").constraints(folded.graph)
    layers = uniform(folded.graph, WIDTHS[bits], weights=Step("mse"), widths=demands.widths)
    made = [
        apply(
            folded,
            Plan("t", layers, (Step(name, {"samples": rows}),)),
            ranges=lambda model: ranges(model, images(1)),
            constraints=demands,
            samples=lambda: given,
        )
        for name in ("gptq", "adaround")
    ]
    assert made[0].encodings.digest == made[1].encodings.digest


def test_channels_of_their_own_are_rounded_together(make_model):
    torch.manual_seed(2)
    model = make_model(nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6)), (3, 9, 9))
    encodings = narrow(model, 3)
    context = PrepareContext(lambda: images(1), encodings)
    before = error(Gptq().apply(model, context), encodings, model, images(2))
    after = Adaround().apply(model, context)
    assert error(after, stored(after, encodings), model, images(2)) < before


def test_a_model_without_integers_comes_back_as_it_is(folded):
    assert Adaround().apply(folded, PrepareContext(lambda: images(1), Encodings.none())) is folded


@pytest.mark.parametrize("setting", [{"samples": 0}, {"damping": 0.0}, {"megabytes": 0.0}, {"steps": 0}])
def test_settings_that_make_no_sense(setting):
    with pytest.raises(ValueError, match="positive"):
        Adaround(**setting)
