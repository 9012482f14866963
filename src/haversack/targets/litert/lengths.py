"""Free lengths: a file has fixed ones, so a shorter input is filled up; what filled places would change is refused."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from haversack.base.errors import Fault
from haversack.base.model import Model, Sample
from haversack.tools.graph.execute import Executor

_TOLERANCE = 1e-4
"""Relative to the largest value: what sums over more places may round differently."""
_SEED = 7


def faults(model: Model, sizes: Mapping[str, int]) -> tuple[Fault, ...]:
    """Return what keeps shorter inputs from being filled up with zeros; empty where nothing does.

    The model is run twice on random inputs (ones where they are integers): once short, once filled up.

    Args:
        model: the canonical model.
        sizes: free dimension -> length in the file.
    """
    batch = {port.spec.shape[0] for port in model.inputs if port.spec.shape}
    free = {name for port in model.inputs for name in port.spec.shape if isinstance(name, str)} - batch
    if not free:
        return ()
    derived = tuple(
        Fault(key, f"its length {size} is that of no input: filled places could not be cut off")
        for key, port in zip(model.graph.outputs, model.outputs, strict=True)
        for size in port.spec.shape
        if isinstance(size, str) and size not in free | batch
    )
    return derived or _changed(model, {name: sizes[name] for name in free})


def _changed(model: Model, longest: Mapping[str, int]) -> tuple[Fault, ...]:
    """Return the first node at which filled places change the others, if an output is changed."""
    shorter = {name: max(1, size * 3 // 4) for name, size in longest.items()}
    if shorter == longest:
        return ()
    inputs, filled = _inputs(model, shorter, longest)
    try:
        short, full = (_values(model, sample) for sample in (inputs, filled))
    except (RuntimeError, IndexError, ValueError):  # PyTorch's own, for lengths that the model does not take
        return ()
    keys = [key for key in short if key in full and not _alike(short[key], full[key])]
    if not set(keys) & set(model.graph.outputs):
        return ()
    cause = "places that fill up a shorter input change its result: give the model a fixed length, or mask them"
    return (Fault(keys[0], cause),)


def _inputs(model: Model, shorter: Mapping[str, int], longest: Mapping[str, int]) -> tuple[Sample, Sample]:
    """Return short inputs, and the same filled up with zeros; a free batch is 1."""
    rng = np.random.default_rng(_SEED)
    short, full = [], []
    for port in model.inputs:
        shape = tuple(shorter.get(size, 1) if isinstance(size, str) else size for size in port.spec.shape)
        most = [longest.get(size, 1) if isinstance(size, str) else size for size in port.spec.shape]
        floats = port.spec.dtype.startswith("float")
        array = (rng.uniform(0.5, 1.5, shape) if floats else np.ones(shape)).astype(port.spec.dtype)
        short.append(array)
        full.append(np.pad(array, [(0, long - size) for long, size in zip(most, shape, strict=True)]))
    return tuple(short), tuple(full)


def _values(model: Model, sample: Sample) -> dict[str, np.ndarray]:
    """Return node key -> its value."""
    found: dict[str, np.ndarray] = {}
    Executor(model).run(sample, observe=lambda node, value: found.update({node.key: value.numpy().copy()}))
    return found


def _alike(short: np.ndarray, full: np.ndarray) -> bool:
    """Say whether the real places of a filled-up value are those of the short one."""
    if short.ndim != full.ndim or any(most < size for size, most in zip(short.shape, full.shape, strict=True)):
        return True  # lengths that are joined with others: whoever reads them tells
    real = full[tuple(slice(size) for size in short.shape)]
    if short.dtype.kind != "f":
        return bool(np.array_equal(short, real))
    finite = np.abs(short[np.isfinite(short)])
    return bool(np.allclose(short, real, rtol=0, atol=_TOLERANCE * float(finite.max(initial=1e-6)), equal_nan=True))
