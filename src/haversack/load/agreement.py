"""Whether the exported graph computes what the module computes, on a batch of another length than the example's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from haversack.base.errors import ConversionError, Fault, JobError
from haversack.base.model import Model, Sample

if TYPE_CHECKING:
    from torch import nn

TOLERANCE = 1e-4
_COUNT = 3


def probe(batch: Sample, example: Sample, free: tuple[Mapping[int, str], ...]) -> Sample:
    """Return the arrays to compare on: with another number of samples on axis 0 than the example, if that is free."""
    if not all(0 in axes for axes in free):
        return example
    count = _COUNT if len(example[0]) != _COUNT else _COUNT + 1
    return tuple(array[np.arange(count) % len(array)] for array in batch)


def check(model: Model, module: nn.Module, sample: Sample) -> None:
    """Compare the canonical graph with the module, both in PyTorch.

    Args:
        model: the exported model.
        module: what it was exported from, in eval mode.
        sample: arrays, samples on axis 0.

    Raises:
        JobError: the module returns NaN, or is not deterministic.
        ConversionError: an output differs by more than 1e-4 of its largest value, an integer at all, or it has another
            shape.
    """
    from haversack.tools.graph.execute import Executor

    eager, again = _run(module, sample), _run(module, sample)
    unsteady = [
        Fault(port.name, "differs") for port, a, b in zip(model.outputs, eager, again, strict=True) if not _same(a, b)
    ]
    if unsteady:
        raise JobError(
            "two runs of the model on the same batch differ: it is not deterministic",
            where=model.name,
            faults=tuple(unsteady),
            next_step="take random operations out of forward() in eval mode",
        )
    bad = [
        Fault(port.name, "has NaN") for port, value in zip(model.outputs, eager, strict=True) if np.isnan(value).any()
    ]
    if bad:
        raise JobError("the model returns NaN for the first calibration batch", where=model.name, faults=tuple(bad))
    exported = Executor(model).run(sample)
    faults = tuple(
        Fault(port.name, text)
        for port, wanted, got in zip(model.outputs, eager, exported, strict=True)
        if (text := _difference(wanted, got))
    )
    if faults:
        raise ConversionError(
            "the exported graph does not compute what the module computes",
            where=model.name,
            tried=f"both on a batch of {len(sample[0])} in PyTorch",
            faults=faults,
            next_step="look for Python state or numbers taken from shapes in forward()",
        )


def _run(module: nn.Module, sample: Sample) -> list[np.ndarray]:
    import torch
    from torch.utils._pytree import tree_leaves

    with torch.no_grad():
        outputs: Any = module(*(torch.from_numpy(np.ascontiguousarray(array)) for array in sample))
    return [leaf.numpy() for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True))


def _difference(wanted: np.ndarray, got: np.ndarray) -> str:
    if wanted.shape != got.shape:
        return f"has shape {got.shape} instead of {wanted.shape}"
    if wanted.dtype.kind in "biu":  # an index is right or wrong, however large it is
        other = int((wanted != got).sum())
        return f"differs in {other} of {wanted.size} integers" if other else ""
    finite = np.isfinite(wanted)
    if not np.array_equal(finite, np.isfinite(got)):
        return "is infinite in other places"
    wanted, got = wanted[finite].astype(np.float64), got[finite].astype(np.float64)
    largest = max(float(np.abs(wanted).max(initial=0.0)), float(np.finfo(np.float32).tiny))
    error = float(np.abs(got - wanted).max(initial=0.0)) / largest
    return f"differs by {error:.2e} of its largest value (at most {TOLERANCE:.0e})" if error > TOLERANCE else ""
