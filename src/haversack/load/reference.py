"""A reference: a job in a module that Python can import, ``package.module:build``."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

from haversack.base.errors import EnvironmentFault, JobError
from haversack.load.place import Place
from haversack.load.user_code import UserCode


def open_module(name: str) -> Place:
    """Import a module and return its names; the current folder counts as a place to import from.

    Raises:
        EnvironmentFault: it imports a package that is not installed.
        JobError: there is no such module, it has a syntax error, or importing it raised.
    """
    here = Path.cwd()
    try:
        with UserCode(f"importing {name}", here):
            module = importlib.import_module(name)
    except (JobError, EnvironmentFault) as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and f"{name}.".startswith(f"{cause.name}."):
            raise JobError(
                f"there is no module {cause.name}",
                where=name,
                tried=f"importing it with {here} on the path",
                next_step="run in the folder that holds it, install it, or name a file: job.py",
            ) from cause
        if isinstance(cause, SyntaxError):
            line = (cause.text or "").strip()
            raise JobError(f"{cause.msg}: {line}", where=f"{cause.filename}:{cause.lineno}") from cause
        raise
    file = getattr(module, "__file__", None)
    return Place(name, Path(file).parent if file else here, vars(module), is_module=True)
