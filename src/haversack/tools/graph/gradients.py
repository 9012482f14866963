"""Gradients: what a change of each weight does to a model's outputs, backwards through the canonical graph."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from haversack.base.model import Model, Sample
from haversack.tools.graph.execute import Executor

if TYPE_CHECKING:
    import torch


def squared_gradients(model: Model, parameters: Sequence[str], samples: Iterable[Sample]) -> dict[str, np.ndarray]:
    """Return parameter name -> mean over samples of the sum over outputs of (d output / d weight)^2, float32.

    The sum is not taken one output at a time: the square of the derivative of outputs times random signs has it as its
    mean (Hutchinson 1990). The signs are the same in every run. Cost: one pass forwards and one backwards a sample, and
    one more forwards where there are several outputs: each counts by its own size then, as in ``relative.Errors``.

    Args:
        model: in float32, its current weights count.
        parameters: names of float parameters that nodes read.
        samples: batches; one of several rows counts as one sample, its rows' squares summed.

    Returns:
        Nothing for parameters that no float output depends on, or where an operation has no derivative.
    """
    import torch

    executor = Executor(model)
    tensors = [executor.constant(name).requires_grad_() for name in parameters]
    sums = [torch.zeros_like(tensor, requires_grad=False) for tensor in tensors]
    signs = np.random.default_rng(0)
    count = 0
    samples = list(samples)
    shares = _shares(executor, samples) if len(model.outputs) > 1 else {}
    for sample in samples:
        try:
            total = _signed_sum(executor, sample, signs, shares)
            if not total.requires_grad:
                return {}
            found = torch.autograd.grad(total, tensors, allow_unused=True)
        except RuntimeError:  # PyTorch's word for an operation without a derivative
            return {}
        for kept, gradient in zip(sums, found, strict=True):
            if gradient is not None:
                kept.add_(gradient.square())
        count += 1
    means = {name: (kept / max(count, 1)).numpy() for name, kept in zip(parameters, sums, strict=True)}
    return {name: mean for name, mean in means.items() if np.isfinite(mean).all() and mean.any()}


def _signed_sum(
    executor: Executor, sample: Sample, signs: np.random.Generator, shares: Mapping[int, float]
) -> torch.Tensor:
    """Return the sum of all float outputs, each number times a random sign and by its output's share."""
    import torch

    total = torch.zeros(())
    for place, value in enumerate(_outputs(_interpreted(executor, sample))):
        if value.is_floating_point():
            drawn = signs.integers(0, 2, tuple(value.shape)).astype(np.float32) * 2.0 - 1.0
            drawn *= shares.get(place, 1.0)
            total = total + (value * torch.from_numpy(np.asarray(drawn, np.float32))).sum()
    return total


def _shares(executor: Executor, samples: Sequence[Sample]) -> dict[int, float]:
    """Return place of an output -> 1 / its Euclidean size over all samples; one that is all zero counts as itself."""
    import torch

    squares: dict[int, float] = {}
    with torch.no_grad():
        for sample in samples:
            for place, value in enumerate(_outputs(_interpreted(executor, sample))):
                if value.is_floating_point():
                    squares[place] = squares.get(place, 0.0) + float(value.double().square().sum())
    return {place: 1.0 / math.sqrt(square) for place, square in squares.items() if 0.0 < square < math.inf}


def _interpreted(executor: Executor, sample: Sample) -> Any:  # noqa: ANN401 - nested outputs
    import torch
    from torch import fx

    class Interpreter(fx.Interpreter):
        def fetch_attr(self, target: str) -> Any:  # noqa: ANN401 - torch's signature
            return executor.constant(target)

    return Interpreter(executor.module).run(*(torch.from_numpy(np.ascontiguousarray(array)) for array in sample))


def _outputs(value: Any) -> list[torch.Tensor]:  # noqa: ANN401 - nested outputs
    import torch

    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    return [one for part in parts for one in _outputs(part)]
