"""A release in training: what it computes, what may move, and what it leaves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from haversack.compress.finetune.tuned import BOUND
from haversack.tools.graph.simulate import Simulator
from haversack.tools.numerics.affine import bias_codes, dequantize


def outputs(tuned, batch):
    with torch.no_grad():
        return tuned(batch)[0].numpy()


def nudge(tuned, amount, seed=0):
    """Move every number by up to so much."""
    random = np.random.default_rng(seed)
    tuned.load({name: one.detach().numpy() + random.uniform(-amount, amount, one.shape).astype(np.float32)
                for name, one in tuned.numbers().items()})  # fmt: skip


@pytest.mark.parametrize("way", ["channels", "weights"])
def test_untrained_it_computes_what_the_release_does(released, layers, lesson, tuned, way):
    batch = lesson[1][0][0]
    wanted = Simulator(released.model).run(released.encodings, [batch])[0][0]
    np.testing.assert_allclose(outputs(tuned(dict.fromkeys(layers, way)), batch), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("way", ["channels", "weights"])
def test_untrained_it_leaves_the_release_bit_for_bit(released, layers, tuned, way):
    model, encodings = tuned(dict.fromkeys(layers, way)).hardened()
    for key in layers:
        weight = f"{key}:weight"
        assert (encodings.integers[weight] == released.encodings.integers[weight]).all()
        assert (encodings.affine(weight).scale == released.encodings.affine(weight).scale).all()
        bias = released.model.graph.by_key[key].bias
        assert (model.weights[bias] == released.model.weights[bias]).all()


def test_weights_that_move_by_less_than_half_a_step_do_not_change(released, layers, tuned):
    one = tuned(dict.fromkeys(layers, "weights"))
    nudge(one, 0.49)
    _, encodings = one.hardened()
    assert all((encodings.integers[name] == value).all() for name, value in released.encodings.integers.items())
    nudge(one, 3.0, seed=1)
    _, encodings = one.hardened()
    assert any((encodings.integers[name] != value).any() for name, value in released.encodings.integers.items())


@given(amount=st.floats(0.1, 400), seed=st.integers(0, 99))
def test_integers_keep_to_their_codes_scales_to_their_bound_and_biases_fit(released, layers, tuned, amount, seed):
    one = tuned({key: "weights" if place % 2 else "channels" for place, key in enumerate(layers)})
    nudge(one, amount, seed)
    model, encodings = one.hardened()
    for key, way in one.ways.items():
        weight, old = f"{key}:weight", released.encodings.affine(f"{key}:weight")
        new, node = encodings.affine(weight), model.graph.by_key[key]
        assert np.abs(encodings.integers[weight]).max() <= 127
        source = encodings.affine(f"{node.inputs[0]}:out")
        bias_codes(model.weights[node.bias], source.scale, new.scale)  # raises where one does not fit
        if way == "channels":
            ratio = new.scale / old.scale
            assert ratio.min() >= 1 / BOUND * 0.999
            moved = encodings.integers[weight] != released.encodings.integers[weight]
            assert not moved[ratio <= BOUND].any()


def test_what_it_leaves_computes_what_it_did_in_training(released, layers, lesson, tuned):
    one = tuned({layers[0]: "channels", layers[1]: "weights"})
    nudge(one, 5.0)
    batch = lesson[1][0][0]
    model, encodings = one.hardened()
    wanted = Simulator(model).run(encodings, [batch])[0][0]
    np.testing.assert_allclose(outputs(one, batch), wanted, rtol=0, atol=1e-4)
    for name in ("weight", "bias"):
        assert (
            model.weights[getattr(model.graph.by_key[layers[2]], name)]
            is released.model.weights[getattr(released.model.graph.by_key[layers[2]], name)]
        )
    weight = f"{layers[1]}:weight"
    stored = dequantize(encodings.integers[weight], encodings.affine(weight))
    assert (model.weights[model.graph.by_key[layers[1]].weight] == stored).all()


def test_a_layer_that_is_not_active_is_as_it_was(released, layers, lesson, tuned):
    one, batch = tuned(dict.fromkeys(layers, "weights")), lesson[1][0][0]
    before = outputs(one, batch)
    nudge(one, 20.0)
    with torch.no_grad():
        assert (one(batch, ())[0].numpy() == before).all()
        assert (one(batch, layers)[0].numpy() == outputs(one, batch)).all()
        assert not (one(batch, layers[:1])[0].numpy() == before).all()


def test_every_number_has_a_derivative(layers, lesson, loss, tuned):
    for way in ("channels", "weights"):
        one = tuned(dict.fromkeys(layers, way))
        inputs, expected = lesson[0][0]
        loss(one(inputs), expected).backward()
        assert all(number.grad is not None and bool(number.grad.any()) for number in one.numbers().values())
