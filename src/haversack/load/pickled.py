"""A pickle that the user trusts: read only with ``--allow-pickle``, which ``opening.py`` asks for and tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haversack.base.errors import JobError
from haversack.load.checkpoint import filled
from haversack.load.user_code import first_line

if TYPE_CHECKING:
    from torch import nn


def module_of(path: Path, architecture: Callable[[], Any] | None) -> nn.Module:
    """Unpickle a module, or a state dict for ``architecture``. This runs whatever code the file holds.

    Raises:
        JobError: it cannot be read, or holds neither.
    """
    import torch

    try:
        value = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise JobError(
            f"it cannot be unpickled: {type(error).__name__}: {first_line(error)}", where=str(path), tried="torch.load"
        ) from error
    if isinstance(value, torch.nn.Module):
        return value
    if not isinstance(value, Mapping) or not all(isinstance(item, torch.Tensor) for item in value.values()):
        raise JobError(f"it holds a {type(value).__name__}, neither a module nor a state dict", where=str(path))
    if architecture is None:
        raise JobError("it holds weights but no architecture", where=str(path), next_step=f"{path}@package.module:Net")
    return filled(architecture(), value, str(path))
