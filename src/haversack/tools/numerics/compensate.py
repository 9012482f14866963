"""Rounding that makes up for itself: each weight that is rounded moves those that are not yet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BLOCK = 64
"""Columns that are rounded before what they did is carried over to all later ones."""


def damped(hessian: np.ndarray, damping: float) -> np.ndarray:
    """Return Hessians with a fraction of their mean diagonal added to it, so that they can be inverted.

    Inputs that are always 0 (dead) get a diagonal of their own: nothing is learnt of them, and nothing moves them.

    Args:
        hessian: float64 [groups, n, n], symmetric and positive semidefinite.
        damping: the fraction, positive.
    """
    found = np.array(hessian, np.float64)
    diagonal = np.einsum("gii->gi", found)
    dead = diagonal <= 0
    size = np.where(dead, 0.0, diagonal).sum(axis=1) / np.maximum((~dead).sum(axis=1), 1)
    size = np.where(size > 0, size, 1.0)[:, None]
    diagonal += np.where(dead, size, damping * size)
    return found


def compensated(
    weight: np.ndarray,
    hessian: np.ndarray,
    scale: np.ndarray,
    limit: int,
    *,
    damping: float = 0.01,
    binary: bool = False,
) -> np.ndarray:
    """Return integers q, int32 [groups, rows, n], for which (weight - scale * q) H (weight - scale * q)^T is small.

    Columns are rounded in order of falling diagonal of H; the error of each is made up for by those that follow, by
    the Cholesky factor of H's inverse (Frantar et al. 2022, arXiv:2210.17323, algorithm 1).

    Args:
        weight: float [groups, rows, n], the target.
        hessian: float64 [groups, n, n]: the inputs' second moments (centred, where a bias takes the mean).
        scale: float32 [groups, rows], positive.
        limit: codes are in [-limit, limit].
        damping: see ``damped``.
        binary: whether 0 is no code, so that with limit 1 codes are signs.

    Raises:
        ValueError: the shapes do not agree.
    """
    groups, rows, n = weight.shape
    if hessian.shape != (groups, n, n) or scale.shape != (groups, rows):
        raise ValueError(f"weight {weight.shape}, Hessian {hessian.shape} and scale {scale.shape} do not agree")
    curvature = damped(hessian, damping)
    order = np.argsort(-np.einsum("gii->gi", curvature), axis=1, kind="stable")
    curvature = np.take_along_axis(np.take_along_axis(curvature, order[:, :, None], 1), order[:, None, :], 2)
    factor = np.linalg.cholesky(np.linalg.inv(curvature)).swapaxes(1, 2)  # upper: inverse = factor^T factor
    left = np.take_along_axis(np.asarray(weight, np.float64), order[:, None, :], 2)
    step = np.asarray(scale, np.float64)
    codes = np.zeros(left.shape)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        errors = np.zeros((groups, rows, stop - start))
        for column in range(start, stop):
            near = np.where(left[:, :, column] < 0, -1.0, 1.0) if binary else np.rint(left[:, :, column] / step)
            codes[:, :, column] = np.clip(near, -limit, limit)
            error = (left[:, :, column] - step * codes[:, :, column]) / factor[:, None, column, column]
            errors[:, :, column - start] = error
            left[:, :, column:stop] -= error[:, :, None] * factor[:, None, column, column:stop]
        left[:, :, stop:] -= errors @ factor[:, start:stop, stop:]
    found = np.empty(codes.shape, np.int32)
    np.put_along_axis(found, order[:, None, :], codes.astype(np.int32), axis=2)
    return found


def refitted(weight: np.ndarray, hessian: np.ndarray, cross: np.ndarray, *, damping: float = 0.01) -> np.ndarray:
    """Return weights that make of the inputs as they arrive what ``weight`` makes of the exact ones, float64.

    Ridge regression towards the weight: W + W (C - H) (H + damping)^-1. An infinite damping leaves it as it is.

    Args:
        weight: float [groups, rows, n].
        hessian: float64 [groups, n, n]: second moments of the inputs as they arrive.
        cross: float64 [groups, n, n]: of exact inputs (axis 1) with those that arrive (axis 2).
        damping: see ``damped``.

    Raises:
        ValueError: the shapes do not agree.
    """
    groups, _, n = weight.shape
    if not hessian.shape == cross.shape == (groups, n, n):
        raise ValueError(f"weight {weight.shape}, Hessian {hessian.shape} and cross {cross.shape} do not agree")
    exact = np.asarray(weight, np.float64)
    if np.isinf(damping):
        return exact
    moved = exact @ (cross - hessian)
    return np.asarray(exact + np.linalg.solve(damped(hessian, damping), moved.swapaxes(1, 2)).swapaxes(1, 2))


def ridge(
    weight: np.ndarray,
    fitted: tuple[np.ndarray, np.ndarray],
    held: tuple[np.ndarray, np.ndarray],
    tried: Sequence[float],
) -> float:
    """Return the damping under which weights that were refitted on some rows do best on others.

    The loss on the others is sum((W x - made x')^2) for exact inputs x and arriving ones x', up to what is the same
    for all; an infinite damping leaves the weights as they are.

    Args:
        weight: float [groups, rows, n].
        fitted: (hessian, cross) of the rows that are fitted, float64 [groups, n, n] each, as ``refitted`` takes them.
        held: the same of the rows that judge.
        tried: dampings, the mildest change last.
    """
    exact = np.asarray(weight, np.float64)
    hessian, cross = held

    def lost(made: np.ndarray) -> float:
        return float(np.sum((made @ hessian - 2.0 * (exact @ cross)) * made))

    made = [refitted(exact, *fitted, damping=one) for one in tried]
    return float(tried[int(np.argmin([lost(one) for one in made]))])
