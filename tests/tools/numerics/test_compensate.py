"""Rounding that makes up for itself, held against rounding to nearest, brute force and regression in closed form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.tools.numerics.compensate import BLOCK, compensated, damped, refitted, ridge


def problem(seed, groups=1, rows=4, n=12, rank=3):
    """Return weight, Hessian of inputs that lie near a few directions, and scales of 4 bits."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(groups, 400, rank)) @ rng.normal(size=(groups, rank, n))
    inputs += 0.2 * rng.normal(size=inputs.shape)
    weight = rng.normal(size=(groups, rows, n))
    scale = (np.abs(weight).max(axis=2) / 7).astype(np.float32)
    return weight, inputs.swapaxes(1, 2) @ inputs / 400, scale


def loss(weight, hessian, scale, codes):
    off = weight - scale[:, :, None] * codes
    return np.einsum("gri,gij,grj->gr", off, hessian, off)


def nearest(weight, scale, limit=7):
    return np.clip(np.rint(weight / scale[:, :, None]), -limit, limit)


@given(st.integers(0, 10_000), st.sampled_from([(1, 4, 12), (3, 2, 9), (5, 1, 25), (1, 6, BLOCK + 7)]))
@settings(max_examples=40, deadline=None)
def test_outputs_come_nearer_than_by_rounding_to_nearest(seed, shape):
    weight, hessian, scale = problem(seed, *shape)
    made = compensated(weight, hessian, scale, 7)
    assert made.dtype == np.int32
    assert np.abs(made).max() <= 7
    mine, plain = (loss(weight, hessian, scale, codes).sum() for codes in (made, nearest(weight, scale)))
    assert mine < plain


def test_signs_make_up_for_each_other_and_none_is_zero():
    """One by one that is no law: of 3000 such problems 43 lose by it, and in the middle a third of the loss is left."""
    ratios = []
    for seed in range(40):
        weight, hessian, _ = problem(seed)
        scale = np.abs(weight).mean(axis=2).astype(np.float32)
        made = compensated(weight, hessian, scale, 1, binary=True)
        assert set(np.unique(made)) <= {-1, 1}
        mine, plain = (loss(weight, hessian, scale, codes).sum() for codes in (made, np.where(weight < 0, -1, 1)))
        ratios.append(mine / plain)
    assert np.median(ratios) < 0.5
    assert np.mean(ratios) < 0.6


def test_with_independent_inputs_it_is_rounding_to_nearest():
    weight, _, scale = problem(3, groups=2)
    hessian = np.stack([np.diag(np.arange(1.0, 13.0))] * 2)
    np.testing.assert_array_equal(compensated(weight, hessian, scale, 7), nearest(weight, scale))


@pytest.mark.parametrize("seed", range(6))
def test_it_is_near_the_best_of_all_roundings(seed):
    """Six weights up or down: 64 roundings, of which it finds one that costs at most half as much again as the best."""
    weight, hessian, scale = problem(seed, rows=1, n=6, rank=2)
    down = np.floor(weight / scale[:, :, None])
    every = [down + np.array(ups) for ups in itertools.product((0, 1), repeat=6)]
    costs = sorted(loss(weight, hessian, scale, codes).item() for codes in every)
    found = loss(weight, hessian, scale, compensated(weight, hessian, scale, 8, damping=1e-6)).item()
    assert found <= costs[len(costs) // 8]


def test_blocks_change_nothing(monkeypatch):
    weight, hessian, scale = problem(1, rows=3, n=50)
    whole = compensated(weight, hessian, scale, 7)
    monkeypatch.setattr("haversack.tools.numerics.compensate.BLOCK", 7)
    np.testing.assert_array_equal(compensated(weight, hessian, scale, 7), whole)


def test_dead_inputs_are_rounded_to_nearest_and_disturb_nobody():
    weight, hessian, scale = problem(5)
    dead = [2, 7]
    hessian[:, dead] = 0
    hessian[:, :, dead] = 0
    made = compensated(weight, hessian, scale, 7)
    np.testing.assert_array_equal(made[:, :, dead], nearest(weight, scale)[:, :, dead])
    alive = [i for i in range(12) if i not in dead]
    alone = compensated(weight[:, :, alive], hessian[:, alive][:, :, alive], scale, 7)
    np.testing.assert_array_equal(made[:, :, alive], alone)


def test_inputs_that_are_all_dead_leave_rounding_to_nearest():
    weight, hessian, scale = problem(6)
    np.testing.assert_array_equal(compensated(weight, 0 * hessian, scale, 7), nearest(weight, scale))


@pytest.mark.parametrize("damping", [0.01, 1.0])
def test_damping_is_a_fraction_of_the_mean_of_what_lives(damping):
    hessian = np.diag([1.0, 3.0, 0.0])[None]
    found = np.diagonal(damped(hessian, damping)[0])
    np.testing.assert_allclose(found, [1 + 2 * damping, 3 + 2 * damping, 2.0])
    np.testing.assert_array_equal(hessian[0], np.diag([1.0, 3.0, 0.0]))


def arriving(seed, noise=0.3, count=3000, n=8):
    """Return exact inputs and what arrives instead: a part of their neighbours leaks into each, and noise."""
    rng = np.random.default_rng(seed)
    exact = rng.normal(size=(count, n))
    return exact, exact @ (np.eye(n) + 0.2 * rng.normal(size=(n, n))) + noise * rng.normal(size=(count, n))


def second(exact, seen):
    return (seen.T @ seen / len(seen))[None], (exact.T @ seen / len(seen))[None]


def test_a_refit_is_least_squares_where_nothing_damps_it():
    exact, seen = arriving(1)
    weight = np.random.default_rng(2).normal(size=(1, 5, 8))
    found = refitted(weight, *second(exact, seen), damping=1e-12)
    wanted = np.linalg.lstsq(seen, exact @ weight[0].T, rcond=None)[0].T
    np.testing.assert_allclose(found[0], wanted, rtol=1e-6, atol=1e-8)


def test_a_refit_without_errors_or_with_infinite_damping_changes_nothing():
    exact, seen = arriving(1)
    weight = np.random.default_rng(2).normal(size=(1, 5, 8))
    np.testing.assert_allclose(refitted(weight, *second(exact, exact)), weight, atol=1e-12)
    np.testing.assert_array_equal(refitted(weight, *second(exact, seen), damping=math.inf), weight)


@pytest.mark.parametrize("rows, expected", [(4000, "little"), (12, "much")])
def test_the_ridge_is_judged_by_rows_that_were_not_fitted(rows, expected):
    """Many rows can be trusted; few say more about themselves than about others."""
    tried = (0.001, 0.1, 1.0, 10.0, math.inf)
    weight = np.random.default_rng(4).normal(size=(1, 5, 8))
    exact, seen = arriving(3, noise=1.5, count=2 * rows)
    if expected == "much":
        exact = seen + np.random.default_rng(5).normal(size=seen.shape)  # errors that nothing predicts
    halves = [second(exact[start::2], seen[start::2]) for start in range(2)]
    found = ridge(weight, *halves, tried)
    losses = [
        np.square(exact[1::2] @ weight[0].T - seen[1::2] @ refitted(weight, *halves[0], damping=one)[0].T).sum()
        for one in tried
    ]
    assert found == tried[int(np.argmin(losses))]
    assert (found <= 0.1) is (expected == "little")


@pytest.mark.parametrize(
    "weight, hessian, scale",
    [((1, 4, 5), (1, 6, 6), (1, 4)), ((1, 4, 5), (2, 5, 5), (1, 4)), ((1, 4, 5), (1, 5, 5), (1, 5))],
)
def test_shapes_that_do_not_agree(weight, hessian, scale):
    with pytest.raises(ValueError, match="do not agree"):
        compensated(np.zeros(weight), np.zeros(hessian), np.ones(scale, np.float32), 7)


def test_a_refit_of_other_shapes():
    with pytest.raises(ValueError, match="do not agree"):
        refitted(np.zeros((1, 4, 5)), np.zeros((1, 5, 5)), np.zeros((1, 6, 6)))
