"""Where a user's own code went wrong: the place that an error from a job file is told with."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path

_PACKAGE = f"{Path(__file__).resolve().parent.parent}{os.sep}"
_LIBRARIES = tuple({sysconfig.get_paths()[name] + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def place(error: BaseException) -> str:
    """Return ``file:line`` of the deepest frame of ``error`` that is neither ours nor a library's; empty if none is."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def sentence(error: BaseException) -> str:
    """Return an error's type and first line as one sentence: ``ValueError: shapes do not match``."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _is_users(filename: str) -> bool:
    return not filename.startswith((_PACKAGE, "<", *_LIBRARIES))
