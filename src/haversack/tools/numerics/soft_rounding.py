"""Soft rounding: whether a weight is rounded down or up is a number that is trained, and driven to 0 or 1.

Nagel et al. 2020 (arXiv:2004.10568, equations 21 to 24): a weight is ``scale * (floor + gate(v))``, the gate a
stretched sigmoid, and a penalty 1 - |2 gate - 1|^beta decides what is undecided as beta falls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from haversack.tools.numerics.compensate import damped

if TYPE_CHECKING:
    import torch

ZETA, GAMMA = 1.1, -0.1
"""The ends that a gate's sigmoid is stretched to before it is clipped to [0, 1]."""
BETAS = (20.0, 2.0)
"""From a penalty that leaves all but the decided alone to one that draws everything."""
FREE = 0.2
"""For this fraction of the steps nothing is penalised."""
STEPS, RATE, PENALTY = 150, 0.2, 10.0
"""Of Adam, on the error in steps of the integers and in units of a weight's mean curvature."""
MOMENTA, TINY = (0.9, 0.999), 1e-8
"""Adam's, as its authors set them (Kingma and Ba 2015, arXiv:1412.6980)."""


def gate(v: torch.Tensor) -> torch.Tensor:
    """Return the fraction of a step by which weights are rounded up, [0, 1], of any shape and float dtype."""
    import torch

    return (torch.sigmoid(v) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def gate_at(fraction: torch.Tensor) -> torch.Tensor:
    """Return the number whose gate is at a fraction of [0, 1]."""
    import torch

    return torch.logit((fraction - GAMMA) / (ZETA - GAMMA))


def beta(progress: float) -> float | None:
    """Return the penalty's exponent at a fraction of all steps; None while nothing is penalised."""
    if progress < FREE:
        return None
    first, last = BETAS
    return first + (last - first) * (progress - FREE) / (1 - FREE)


def undecided(v: torch.Tensor, exponent: float) -> torch.Tensor:
    """Return the penalty 1 - |2 gate - 1|^beta of each number, in the shape of ``v``: 0 where decided, 1 half-way."""
    return 1 - (2 * gate(v) - 1).abs() ** exponent


def lost(weight: np.ndarray, hessian: np.ndarray, scale: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the error (w - scale * q) H (w - scale * q)^T of each row, float64 [groups, rows].

    Args:
        weight: float [groups, rows, n].
        hessian: float64 [groups, n, n].
        scale: float32 [groups, rows].
        codes: integers q [groups, rows, n].
    """
    off = np.asarray(weight, np.float64) - np.asarray(scale, np.float64)[:, :, None] * codes
    return np.asarray(((off @ hessian) * off).sum(axis=2))


def softly_rounded(
    weight: np.ndarray,
    hessian: np.ndarray,
    scale: np.ndarray,
    limit: int,
    start: np.ndarray,
    *,
    damping: float = 0.01,
    steps: int = STEPS,
) -> np.ndarray:
    """Return integers q, int32 [groups, rows, n], for which the error of each row is no larger than that of others.

    A weight has its floor or its ceiling in steps to choose from, within the limits; where the others went further to
    make up for an error, their code and the one next to it towards the weight. A row whose error
    (weight - scale * q) H (weight - scale * q)^T, with the damped H, is not smaller then is left as it was.

    Args:
        weight: float [groups, rows, n], the target.
        hessian: float64 [groups, n, n]: the inputs' second moments (centred, where a bias takes the mean).
        scale: float32 [groups, rows], positive.
        limit: codes are in [-limit, limit], limit at least 1.
        start: the others, integers [groups, rows, n] in the limits, such as ``compensate.compensated`` gives.
        damping: see ``compensate.damped``.
        steps: of Adam, over all weights at once.

    Raises:
        ValueError: the shapes do not agree.
    """
    groups, rows, n = weight.shape
    if hessian.shape != (groups, n, n) or scale.shape != (groups, rows) or start.shape != weight.shape:
        shapes = f"weight {weight.shape}, Hessian {hessian.shape}, scale {scale.shape} and start {start.shape}"
        raise ValueError(f"{shapes} do not agree")
    curvature = damped(hessian, damping)
    wanted = np.asarray(weight, np.float64) / np.asarray(scale, np.float64)[:, :, None]
    low = np.clip(np.where(wanted >= start, start, start - 1), -limit, limit - 1)
    up = _decided(wanted - low, curvature, start - low, steps)
    found = (low + up).astype(np.int32)
    better = lost(weight, curvature, scale, found) < lost(weight, curvature, scale, start)
    return np.where(better[:, :, None], found, start).astype(np.int32)


def _decided(fraction: np.ndarray, curvature: np.ndarray, start: np.ndarray, steps: int) -> np.ndarray:
    """Return which weights are rounded up, bool [groups, rows, n], by Adam with gradients in closed form.

    Args:
        fraction: float64 [groups, rows, n] of a step from the lower code to the target.
        curvature: float64 [groups, n, n], positive definite.
        start: integers 0 and 1: a rounding that is good already.
        steps: of Adam.
    """
    import torch

    size = np.einsum("gii->g", curvature)[:, None, None] / curvature.shape[1]
    square = torch.from_numpy((curvature / size).astype(np.float32))
    wanted = torch.from_numpy(fraction.astype(np.float32))
    near = torch.from_numpy((0.5 * np.clip(fraction, 0, 1) + 0.5 * start).astype(np.float32))
    v = gate_at(near.clamp(0.02, 0.98))
    mean, spread = torch.zeros_like(v), torch.zeros_like(v)
    first, second = MOMENTA
    for step in range(steps):
        soft = torch.sigmoid(v)
        raw = soft * (ZETA - GAMMA) + GAMMA
        h = raw.clamp(0, 1)
        slope = torch.bmm(h - wanted, square).mul_(2)
        exponent = beta(step / steps)
        if exponent is not None:
            side = 2 * h - 1
            slope -= PENALTY * 2 * exponent * side.sign() * side.abs() ** (exponent - 1)
        slope *= soft * (1 - soft) * (ZETA - GAMMA)
        slope *= (raw > 0) & (raw < 1)
        mean.lerp_(slope, 1 - first)
        spread.mul_(second).addcmul_(slope, slope, value=1 - second)
        down = (spread / (1 - second ** (step + 1))).sqrt_().add_(TINY)
        v.addcdiv_(mean, down, value=-RATE / (1 - first ** (step + 1)))
    return (gate(v) >= 0.5).numpy()
