"""A checkpoint: a safetensors file and the callable that builds the architecture it belongs to."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haversack.base.errors import Fault, JobError
from haversack.load.user_code import first_line

if TYPE_CHECKING:
    import torch
    from torch import nn

MAX_SHOWN = 20


def header(path: Path) -> list[str]:
    """Return the names of the tensors; the safetensors library bounds the header and checks offsets against the size.

    Raises:
        JobError: truncated, or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def module_of(path: Path, architecture: Callable[[], Any]) -> nn.Module:
    """Return the architecture with the file's weights, in eval mode.

    Raises:
        JobError: the file cannot be read, the callable gives no module, or names, shapes or dtypes differ (all told
            at once, with the nearest names).
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return filled(architecture(), tensors, str(path))


def filled(module: Any, tensors: Mapping[str, torch.Tensor], where: str) -> nn.Module:  # noqa: ANN401 - what the user built
    """Return ``module`` in eval mode with ``tensors`` (any shapes and dtypes) as its weights, which must fit exactly.

    Weights that are one tensor under several names (tied) may stand under any one of them.

    Raises:
        JobError: it is no module, or names, shapes or dtypes differ.
    """
    from torch import nn

    if not isinstance(module, nn.Module):
        raise JobError(
            f"the architecture is a {type(module).__name__}, not an nn.Module",
            where=where,
            next_step="name a class or a function that returns the module",
        )
    wanted: dict[str, torch.Tensor] = module.state_dict()
    faults = [*_name_faults(wanted, tensors), *_kind_faults(wanted, tensors)]
    if faults:
        more = f" (the first {MAX_SHOWN})" if len(faults) > MAX_SHOWN else ""
        raise JobError(
            f"its weights do not fit the architecture in {len(faults)} places{more}",
            where=where,
            faults=tuple(faults[:MAX_SHOWN]),
            next_step="build the architecture that was saved, or save state_dict() of this one",
        )
    module.load_state_dict(dict(tensors), strict=False)
    return module.eval()


def _name_faults(wanted: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> Iterable[Fault]:
    present = {_place(wanted[name]) for name in wanted if name in given}
    missing = [name for name in wanted if name not in given and _place(wanted[name]) not in present]
    stray = [name for name in given if name not in wanted]
    for name in missing:
        near = difflib.get_close_matches(name, stray, n=1, cutoff=0.7)
        yield Fault(name, "is not in the file" + (f"; it has {near[0]}" if near else ""))
    for name in stray:
        near = difflib.get_close_matches(name, missing, n=1, cutoff=0.7)
        yield Fault(name, "is in the file, but not in the architecture" + (f"; that has {near[0]}" if near else ""))


def _kind_faults(wanted: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> Iterable[Fault]:
    for name in (name for name in wanted if name in given):
        mine, theirs = wanted[name], given[name]
        if mine.shape != theirs.shape:
            yield Fault(name, f"has shape {list(theirs.shape)}, the architecture {list(mine.shape)}")
        elif mine.dtype != theirs.dtype:
            yield Fault(name, f"is {_word(theirs)}, the architecture {_word(mine)}")


def _place(tensor: torch.Tensor) -> tuple[object, ...]:
    """Where a tensor lies in memory: the same for tied weights."""
    return tensor.untyped_storage().data_ptr() or id(tensor), tensor.storage_offset(), tuple(tensor.shape)


def _word(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _unreadable(path: Path, error: Exception) -> JobError:
    return JobError(
        f"it is no whole safetensors file (truncated, or another kind of file): {first_line(error)}",
        where=str(path),
        tried=f"reading its header; the file has {path.stat().st_size} bytes",
        next_step="copy it again, or write it with safetensors.torch.save_file(model.state_dict(), path)",
    )
