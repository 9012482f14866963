"""What the parts share that round by outputs: what they aim at, what they lose, which layers they take."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from few_codes import narrow
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from haversack.base.encodings import Codebook, Encodings
from haversack.compress.prepare.by_outputs import Rows, mendable
from haversack.compress.prepare.means import FEW, Wanted, tell_few
from haversack.compress.prepare.moments import Moments
from haversack.tools.numerics.affine import symmetric


def seen(seed, count=200, groups=2, n=5, noise=0.3):
    """Return exact rows, what arrives instead [groups, count, n], both centred, and their moments."""
    rng = np.random.default_rng(seed)
    exact = rng.normal(size=(groups, count, n))
    arriving = exact @ (np.eye(n) + 0.2 * rng.normal(size=(n, n))) + noise * rng.normal(size=exact.shape)
    exact, arriving = (rows - rows.mean(axis=1, keepdims=True) for rows in (exact, arriving))
    hessian, cross = (rows.swapaxes(1, 2) @ arriving / count for rows in (arriving, exact))
    return exact, arriving, Moments(hessian, cross, count)


def rows(moments, seed=0, bits=4, refit=math.inf, count=3):
    groups, n, _ = moments.hessian.shape
    weight = np.random.default_rng(seed).normal(size=(groups, count, n))
    scale = (np.abs(weight).max(axis=2) / 7).astype(np.float32)
    encoding = symmetric(scale.reshape(-1), bits, 0)
    return Rows(weight, scale, encoding, refit, 0.01, moments, (moments, moments))


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_what_is_lost_is_the_squared_error_of_outputs_but_for_a_constant(seed):
    exact, arriving, moments = seen(seed)
    one = rows(moments, seed)
    codes = np.random.default_rng(seed).integers(-7, 8, (2, *one.exact.shape))

    def squared(chosen):
        made = arriving @ (one.scale[:, :, None] * chosen).swapaxes(1, 2)
        return np.square(exact @ one.exact.swapaxes(1, 2) - made).sum() / exact.shape[1]

    mine, plain = (one.lost(moments, codes[0]) - one.lost(moments, codes[1]), squared(codes[0]) - squared(codes[1]))
    assert mine == pytest.approx(plain, rel=1e-6, abs=1e-8)


def test_without_a_refit_the_target_is_the_weight():
    _, _, moments = seen(1)
    one = rows(moments)
    np.testing.assert_array_equal(one.target(moments), one.exact)


def test_a_refit_loses_less_before_anything_is_rounded():
    exact, arriving, moments = seen(2)
    one = rows(moments, refit=0.003)
    moved = one.target(moments)
    errors = [
        np.square(exact @ one.exact.swapaxes(1, 2) - arriving @ weight.swapaxes(1, 2)).sum()
        for weight in (one.exact, moved)
    ]
    assert errors[1] < 0.95 * errors[0]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_compensated_codes_lose_less_than_the_nearest(bits):
    _, _, moments = seen(3, noise=0.0)
    mixed = np.ones((5, 5)) + 0.3 * np.eye(5)
    moments = Moments(mixed @ moments.hessian @ mixed, moments.cross, moments.rows)
    moments = Moments(moments.hessian, moments.hessian, moments.rows)
    one = rows(moments, bits=bits)
    limit = one.encoding.high
    nearest = np.clip(np.rint(one.exact / one.scale[:, :, None]), -limit, limit)
    made = one.compensated(moments)
    assert np.abs(made).max() <= limit
    if bits > 2:  # at 2 bits most of these saturate, and nothing is left to make up
        assert one.lost(moments, made) < one.lost(moments, nearest)


class Shared(nn.Module):
    """A layer without a bias, two with one weight, and one that is all its own."""

    def __init__(self):
        super().__init__()
        self.bare, self.one, self.two, self.own = (nn.Linear(4, 4, bias=index > 0) for index in range(4))
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.own(self.two(torch.relu(self.one(self.bare(x)))))


def test_only_layers_with_weight_and_bias_of_their_own_are_taken(make_model):
    model = make_model(Shared(), (4,))
    assert list(mendable(model, narrow(model))) == ["own:linear#0"]
    assert mendable(model, Encodings.none()) == {}


def test_a_palette_is_taken_as_well_for_its_bias(make_model):
    model = make_model(nn.Sequential(nn.Linear(4, 4)), (4,))
    key = "0:linear#0:weight"
    book = Codebook(1, np.float32([-0.1, 0.1]))
    encodings = Encodings({key: book}, {key: np.zeros((4, 4), np.int32)})
    assert list(mendable(model, encodings)) == ["0:linear#0"]


@pytest.mark.parametrize("count, told", [(1, True), (FEW - 1, True), (FEW, False), (1000, False)])
def test_few_samples_are_told(count, told):
    found = []
    tell_few(count, Wanted(64, count, 1000.0), found.append)
    assert [one.kind for one in found] == ["few-samples"] * told
    assert all("give 80" in one.text for one in found)
