"""Examining what a job gives before anything is exported: the module, and its first calibration batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from haversack.base.counted import counted
from haversack.base.errors import Fault, JobError
from haversack.base.job import Job
from haversack.base.model import Sample
from haversack.load import torchscript

if TYPE_CHECKING:
    from torch import nn

MAX_SHOWN = 10
_KINDS = "biuf"


def module_of(job: Job) -> nn.Module:
    """Build the job's model and check it: an nn.Module in eval mode with finite weights.

    Raises:
        JobError: it is none, a submodule is in training mode, or a weight is NaN or infinite.
    """
    from torch import nn

    module = job.model()
    if not isinstance(module, nn.Module):
        raise JobError(
            f"model() returned a {type(module).__name__}, not an nn.Module",
            where=job.source,
            tried="calling model()",
            next_step="return the module itself: def model(): return Net().eval()",
        )
    training = [
        path or type(module).__name__ for path, inner in module.named_modules() if getattr(inner, "training", False)
    ]
    if training:
        shown = ", ".join(training[:MAX_SHOWN]) + (" …" if len(training) > MAX_SHOWN else "")
        raise JobError(
            f"the model is in training mode: {shown}",
            where=job.source,
            tried=f"asking every module of model() whether it trains: {len(training)} do",
            next_step="return model.eval() from model(); a module that is switched back in its code stays in training",
        )
    faults = tuple(_weight_faults(module))
    if faults:
        raise JobError(
            f"{counted(len(faults), 'weight')} {'is' if len(faults) == 1 else 'are'} not finite",
            where=job.source,
            faults=faults[:MAX_SHOWN],
            tried="looking at every parameter and buffer",
            next_step="load a checkpoint that was not trained to NaN",
        )
    return module


def _weight_faults(module: nn.Module) -> Iterator[Fault]:
    """Yield parameters with NaN or infinity, and buffers with NaN (a mask may hold -inf)."""
    import torch

    buffers = {name for name, _ in module.named_buffers()}
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if not value.is_floating_point():
            continue
        bad = torch.isnan(value) if name in buffers else ~torch.isfinite(value)
        if count := int(bad.sum()):
            yield Fault(name, f"{count} of {value.numel()} values are NaN or infinite")


def first_batch(job: Job) -> Sample:
    """Return the first calibration batch, as arrays of any numeric dtype with the samples on axis 0.

    Raises:
        JobError: there is none, or it is no tuple of arrays of numbers with one length on axis 0, or has NaN.
    """
    for batch in job.calibration():
        return checked(batch, job)
    raise JobError(
        "calibration() gave no batch",
        where=job.source,
        tried="asking it for the first one",
        next_step="yield at least one tuple of NumPy arrays",
    )


def checked(batch: Any, job: Job) -> Sample:  # noqa: ANN401 - what the user's iterator gave
    """Return a batch as a tuple of arrays of numbers (bool, integer or float; samples on axis 0), or say what is wrong.

    Raises:
        JobError: every array that does not fit, at once.
    """
    if not isinstance(batch, tuple | list):
        raise JobError(
            f"a batch of calibration() is {_word(batch)}, not a tuple",
            where=job.source,
            next_step="write yield (x,), with the comma" if _is_array(batch) else "yield (x,) with a NumPy array x",
        )
    faults = tuple(fault for index, array in enumerate(batch) for fault in _array_faults(index, array, job))
    if not batch:
        raise JobError("a batch of calibration() is empty", where=job.source, next_step="yield (array,)")
    lengths = {len(array) for array in batch if isinstance(array, np.ndarray) and array.ndim}
    if not faults and len(lengths) != 1:
        faults = (Fault("axis 0", f"the inputs hold {' and '.join(map(str, sorted(lengths)))} samples"),)
    if faults:
        raise JobError(
            "the first batch of calibration() cannot be used",
            where=job.source,
            faults=faults,
            tried="reading it",
            next_step="yield tuples of NumPy arrays of numbers, samples on axis 0",
        )
    return tuple(batch)


def _word(batch: object) -> str:
    return "an array" if isinstance(batch, np.ndarray) else f"a {type(batch).__name__}"


def _is_array(batch: object) -> bool:
    return hasattr(batch, "shape")  # a tensor too


def _array_faults(index: int, array: Any, job: Job) -> Iterator[Fault]:  # noqa: ANN401 - what the user's iterator gave
    name = job.input_names[index] if index < len(job.input_names) else f"input {index}"
    if not isinstance(array, np.ndarray):
        yield Fault(name, f"is a {type(array).__name__}, not a NumPy array")
    elif array.dtype.kind not in _KINDS or array.dtype == np.longdouble or not array.dtype.isnative:
        yield Fault(name, f"has dtype {array.dtype}, which is no array of numbers that PyTorch takes")
    elif not array.ndim or not len(array):
        yield Fault(name, f"has shape {array.shape}: no samples on axis 0")
    elif array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = ~np.isfinite(array)
        row = int(bad.reshape(len(array), -1).any(axis=1).argmax())
        yield Fault(name, f"{int(bad.sum())} of {array.size} values are NaN or infinite, the first in row {row}")


def input_names(module: nn.Module, batch: Sample, job: Job) -> tuple[str, ...]:
    """Return the names of the model's inputs: the job's, else those of ``forward``'s arguments.

    Args:
        module: the model.
        batch: arrays in the order of ``forward``'s arguments, samples on axis 0.
        job: whose ``input_names`` and ``dims`` must fit.

    Raises:
        JobError: ``forward`` does not take so many inputs, names do not fit it, or ``dims`` names another input.
    """
    # A program saved with torch.export calls its arguments what the exported module called them.
    parameters = list(torchscript.signature(module).parameters.values())
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    many = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    needed = sum(p.default is p.empty for p in parameters if p.name in named)
    count = len(batch)
    if count < needed or (count > len(named) and not many):
        takes = counted(needed, "input") if needed == len(named) else f"{needed} to {len(named)} inputs"
        raise JobError(
            f"forward({', '.join(named)}) takes {takes}, a batch of calibration() has {count}",
            where=job.source,
            next_step="yield one array for each argument, in order",
        )
    if job.input_names and len(job.input_names) != count:
        raise JobError(f"{len(job.input_names)} input_names for {counted(count, 'input')}", where=job.source)
    names = job.input_names or tuple(named[i] if i < len(named) else f"input{i}" for i in range(count))
    known = ", ".join(names)
    faults = [Fault(f"dims[{name!r}]", f"is no input (has: {known})") for name in job.dims if name not in names]
    for name, array in zip(names, batch, strict=True):
        axes = [axis for axis in job.dims.get(name, {}) if axis >= array.ndim]
        faults += [Fault(f"dims[{name!r}]", f"axis {axis} of an array of shape {array.shape}") for axis in axes]
    if faults:
        raise JobError("dims does not fit the inputs", where=job.source, faults=tuple(faults))
    return names
