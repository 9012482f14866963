"""Soft rounding, held against what it starts from, brute force, and derivatives that PyTorch finds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.tools.numerics import soft_rounding
from haversack.tools.numerics.compensate import compensated, damped
from haversack.tools.numerics.soft_rounding import beta, gate, gate_at, lost, softly_rounded, undecided

shapes = st.sampled_from([(1, 4, 12), (3, 2, 9), (5, 1, 25), (1, 1, 1)])


def problem(seed, groups=1, rows=4, n=12, rank=3, bits=4):
    """Return weight, Hessian of inputs that lie near a few directions, and scales under which some weights saturate."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(groups, 400, rank)) @ rng.normal(size=(groups, rank, n))
    inputs += 0.2 * rng.normal(size=inputs.shape)
    weight = rng.normal(size=(groups, rows, n))
    scale = (0.8 * np.abs(weight).max(axis=2) / ((1 << (bits - 1)) - 1)).astype(np.float32)
    return weight, inputs.swapaxes(1, 2) @ inputs / 400, scale


def nearest(weight, scale, limit):
    return np.clip(np.rint(weight / scale[:, :, None]), -limit, limit).astype(np.int32)


@given(st.integers(0, 10_000), shapes, st.sampled_from([2, 3, 4, 8]), st.sampled_from(["nearest", "compensated"]))
@settings(max_examples=40, deadline=None)
def test_no_row_loses_more_and_no_code_leaves_its_two(seed, shape, bits, begun):
    weight, hessian, scale = problem(seed, *shape, bits=bits)
    limit = (1 << (bits - 1)) - 1
    plain = nearest(weight, scale, limit)
    start = plain if begun == "nearest" else compensated(weight, hessian, scale, limit)
    made = softly_rounded(weight, hessian, scale, limit, start)
    assert made.dtype == np.int32
    assert np.abs(made).max() <= limit
    curvature = damped(hessian, 0.01)
    before, after = (lost(weight, curvature, scale, codes) for codes in (start, made))
    assert (after <= before).all()
    wanted = weight / scale[:, :, None]
    inside = np.abs(wanted) <= limit  # what saturates may only step back
    assert (np.abs(made - start) <= 1).all()
    assert ((made - start) * (wanted - start) >= 0)[inside].all()
    if begun == "nearest":  # whose codes are the floor or the ceiling
        assert ((made == np.floor(wanted)) | (made == np.ceil(wanted)))[inside].all()


@given(st.integers(0, 10_000), shapes)
@settings(max_examples=20, deadline=None)
def test_weights_on_the_grid_stay_as_they_are(seed, shape):
    _, hessian, scale = problem(seed, *shape)
    codes = np.random.default_rng(seed).integers(-7, 8, shape).astype(np.int32)
    weight = codes * scale[:, :, None].astype(np.float64)
    np.testing.assert_array_equal(softly_rounded(weight, hessian, scale, 7, codes), codes)


@pytest.mark.parametrize("seed", range(6))
def test_it_is_near_the_best_of_all_roundings(seed):
    """Six weights up or down: of 64 roundings it finds one of the best eight, from the nearest."""
    weight, hessian, scale = problem(seed, rows=1, n=6, rank=2)
    down = np.floor(weight / scale[:, :, None])
    curvature = damped(hessian, 0.01)
    every = [np.clip(down + np.array(ups), -7, 7) for ups in itertools.product((0, 1), repeat=6)]
    costs = sorted(lost(weight, curvature, scale, codes).item() for codes in every)
    found = softly_rounded(weight, hessian, scale, 7, nearest(weight, scale, 7))
    assert lost(weight, curvature, scale, found).item() <= costs[7] * (1 + 1e-9)


def test_it_finds_more_than_what_it_starts_from():
    gains = []
    for seed in range(8):
        weight, hessian, scale = problem(seed, rows=8, n=24, rank=24)
        start = compensated(weight, hessian, scale, 7)
        curvature = damped(hessian, 0.01)
        made = softly_rounded(weight, hessian, scale, 7, start)
        gains.append(lost(weight, curvature, scale, made).sum() / lost(weight, curvature, scale, start).sum())
    assert np.mean(gains) < 0.97


def test_the_gradient_in_closed_form_is_the_one_that_pytorch_finds(monkeypatch):
    """Some steps of Adam from the same place move every number as PyTorch's own do."""
    weight, hessian, scale = problem(4, groups=2, rows=3, n=7)
    wanted = weight / scale[:, :, None]
    low = np.clip(np.floor(wanted), -7, 6)
    curvature = damped(hessian, 0.01)
    start = nearest(weight, scale, 7) - low
    seen = []
    with monkeypatch.context() as patch:
        patch.setattr(soft_rounding, "gate", lambda v: seen.append(v.clone()) or gate(v))
        soft_rounding._decided(wanted - low, curvature, start, 8)
    size = np.einsum("gii->g", curvature)[:, None, None] / 7
    square = torch.from_numpy((curvature / size).astype(np.float32))
    target = torch.from_numpy((wanted - low).astype(np.float32))
    v = gate_at((0.5 * target.clamp(0, 1) + 0.5 * torch.from_numpy(start).float()).clamp(0.02, 0.98)).requires_grad_()
    optimizer = torch.optim.Adam([v], lr=soft_rounding.RATE)
    for step in range(8):
        off = gate(v) - target
        loss = (off @ square * off).sum()
        exponent = beta(step / 8)
        if exponent is not None:
            loss = loss + soft_rounding.PENALTY * undecided(v, exponent).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.allclose(seen[-1], v.detach(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_a_gate_stands_where_it_was_put(fraction):
    assert gate(gate_at(torch.tensor(fraction))).item() == pytest.approx(fraction, abs=1e-6)


@pytest.mark.parametrize("progress, exponent", [(0.0, None), (0.19, None), (0.2, 20.0), (0.6, 11.0), (1.0, 2.0)])
def test_the_penalty_begins_late_and_sharpens(progress, exponent):
    assert beta(progress) == (exponent if exponent is None else pytest.approx(exponent))


@pytest.mark.parametrize("fraction, penalty", [(0.0, 0.0), (1.0, 0.0), (0.5, 1.0), (0.75, 0.75)])
def test_what_is_undecided_is_penalised(fraction, penalty):
    assert undecided(gate_at(torch.tensor(fraction)), 2.0).item() == pytest.approx(penalty, abs=1e-5)


@pytest.mark.parametrize("wrong", ["hessian", "scale", "start"])
def test_shapes_that_do_not_agree_are_told(wrong):
    weight, hessian, scale = problem(0)
    parts = {"hessian": hessian, "scale": scale, "start": nearest(weight, scale, 7)}
    parts[wrong] = parts[wrong][..., :-1]
    with pytest.raises(ValueError, match="do not agree"):
        softly_rounded(weight, parts["hessian"], parts["scale"], 7, parts["start"])
