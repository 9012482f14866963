"""Whom to blame: the layer and the user's line at which PyTorch gave up."""

from __future__ import annotations

import linecache
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def layer_of(trace: TracebackType | None, module: nn.Module) -> str:
    """Return the dotted path of the innermost submodule that was running (its class name for the root), or "".

    In non-strict export the user's own modules run, so the frames of a traceback hold them as ``self``.
    """
    paths = {id(inner): path for path, inner in module.named_modules()}
    found = ""
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if id(owner) in paths:
            found = paths[id(owner)] or type(module).__name__
        trace = trace.tb_next
    return found


def line_of(trace: TracebackType | None) -> str:
    """Return ``file:line: source`` of the innermost frame outside of torch, or ""."""
    found = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        package = trace.tb_frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in ("torch", "haversack", "contextlib") and not file.startswith("<"):
            linecache.checkcache(file)
            source = linecache.getline(file, trace.tb_lineno).strip()
            found = f"{file}:{trace.tb_lineno}" + (f": {source}" if source else "")
        trace = trace.tb_next
    return found


def place_of(error: BaseException, module: nn.Module) -> str:
    """Return layer and line of an error, whichever are known."""
    layer, line = layer_of(error.__traceback__, module), line_of(error.__traceback__)
    return f"{layer} ({line})" if layer and line else layer or line or type(module).__name__
