"""What is learnt of a layer: where it begins, how far it may go, and what becomes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from haversack.compress.prepare.learnt import BOUND, Learnt, Stored
from haversack.tools.numerics.affine import quantize, symmetric


@pytest.fixture(scope="module")
def layer(make_model):
    torch.manual_seed(0)
    model = make_model(nn.Sequential(nn.Linear(5, 3)), (5,))
    return next(node for node in model.graph.nodes if node.op == "linear")


def begun(bits=4, seed=0, scale=None, axis=0):
    """Return a float weight and how it is stored, some codes one off the nearest."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(3, 5)).astype(np.float32)
    scale = np.abs(weight).max(axis=1) * np.float32(0.8 / 7) if scale is None else scale
    encoding = symmetric(scale, bits, axis)
    codes = quantize(weight, encoding)
    if bits > 1:
        codes = np.clip(codes + rng.integers(-1, 2, codes.shape), encoding.low, encoding.high).astype(np.int32)
    return weight, Stored(encoding, codes, rng.normal(size=3).astype(np.float32))


def driven(one, seed):
    """Move all that is trained far away, at random."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for number in one.numbers():
            number.add_(torch.from_numpy(rng.normal(scale=5.0, size=tuple(number.shape)).astype(np.float32)))


@given(st.integers(0, 10_000), st.sampled_from([1, 2, 3, 4, 8]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_it_is_stored_as_before_until_it_is_trained(layer, seed, bits, scales):
    weight, before = begun(bits, seed)
    after = Learnt(layer, before, weight, scales=scales).hardened()
    np.testing.assert_array_equal(after.codes, before.codes)
    np.testing.assert_array_equal(after.encoding.scale, before.encoding.scale)
    np.testing.assert_array_equal(after.bias, before.bias)


@given(st.integers(0, 10_000), st.sampled_from([1, 2, 3, 4, 8]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_training_leaves_neither_the_two_codes_nor_the_bound(layer, seed, bits, scales):
    weight, before = begun(bits, seed)
    one = Learnt(layer, before, weight, scales=scales)
    driven(one, seed)
    after, encoding = one.hardened(), before.encoding
    assert np.abs(after.codes).max() <= encoding.high
    assert bits > 1 or (after.codes == before.codes).all()
    wanted = weight / encoding.scale[:, None]
    inside = np.abs(wanted) < encoding.high
    moved = after.codes - before.codes
    assert (np.abs(moved) <= 1).all()
    assert (moved * (wanted - before.codes) >= 0)[inside].all()
    stretch = after.encoding.scale / encoding.scale - 1
    assert (np.abs(stretch) <= BOUND + 1e-6).all()
    assert scales or not stretch.any()
    assert (after.bias != before.bias).any()


def test_softly_it_is_what_it_becomes_once_all_is_decided(layer):
    weight, before = begun()
    one = Learnt(layer, before, weight, scales=True)
    driven(one, 1)
    with torch.no_grad():
        numbers = one.numbers()
        numbers[0].copy_(torch.where(numbers[0] >= 0, 20.0, -20.0))
    soft, hard = one.soft(), one.hardened().values(layer)
    assert set(soft) == set(hard) == {layer.weight, layer.bias}
    for name, value in hard.items():
        np.testing.assert_allclose(soft[name].detach().numpy(), value, rtol=1e-6)
    total, count = one.penalty(2.0)
    assert total.item() == pytest.approx(0.0, abs=1e-5)
    assert count == weight.size


@pytest.mark.parametrize(
    "bits, scale, axis, free",
    [
        (4, None, 0, 3),
        (4, np.float32([0.25, 0.5, 0.125]), 0, 2),  # powers of two stay
        (4, np.array(0.3, np.float32), None, 3),
        (1, None, 0, 2),  # between the signs there is nothing
    ],
)
def test_what_is_free(layer, bits, scale, axis, free):
    weight, before = begun(bits, scale=scale, axis=axis)
    one = Learnt(layer, before, weight, scales=True)
    assert len(one.numbers()) == free
    sum(value.square().sum() for value in one.soft().values()).backward()
    assert all(number.grad is not None for number in one.numbers())
    assert one.penalty(2.0)[1] == (0 if bits == 1 else weight.size)
