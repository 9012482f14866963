"""A job file: one Python file, executed as a module of its own."""

from __future__ import annotations

import difflib
import hashlib
import shlex
import sys
from pathlib import Path
from types import ModuleType

from haversack.base.errors import JobError
from haversack.load.place import Place
from haversack.load.user_code import UserCode, first_line

MAX_BYTES = 4 << 20
MOST_LISTED = 1000


def open_file(path: Path) -> Place:
    """Execute a Python file and return its names.

    It runs as a module of its own (not as ``__main__``), with its folder first on ``sys.path``, and leaves no byte
    code behind.

    Raises:
        JobError: no such file, no text, a syntax error (with its line), or it raised (at the user's line).
    """
    source = _text(path)
    try:
        code = compile(source, str(path.resolve()), "exec", dont_inherit=True)
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise JobError(
            f"{error.msg}" + (f": {line}" if line else ""),
            where=f"{path}:{error.lineno or 1}",
            next_step=f"python -m py_compile {path}",
        ) from error
    except ValueError as error:
        raise JobError(f"it is no Python source: {first_line(error)}", where=str(path)) from error
    name = f"haversack_job_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    module = ModuleType(name)
    module.__file__ = str(path.resolve())
    sys.modules[name] = module
    with UserCode("it", path.resolve().parent):
        exec(code, module.__dict__)  # noqa: S102 - the user's own file, named on the user's command line
    return Place(str(path), path.resolve().parent, vars(module))


def instead(path: Path) -> str:
    """Return the command that helps where a path leads nowhere: the nearest file of its kind, or what lists them."""
    folder = next(parent for parent in (path.parent, *path.parent.parents) if parent.is_dir())
    beside = [one.name for one in sorted(folder.glob(f"*{path.suffix}"))[:MOST_LISTED]] if folder == path.parent else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    return f"did you mean {shlex.quote(str(folder / near[0]))}?" if near else f"ls {shlex.quote(str(folder))}"


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise JobError(f"it is larger than {MAX_BYTES >> 20} MiB: no job file", where=str(path))
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise JobError(
            "there is no such job file", where=str(path), tried="opening it", next_step=instead(path)
        ) from error
    except OSError as error:
        raise JobError(f"it cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise JobError(f"it is no UTF-8 text: {error.reason} at byte {error.start}", where=str(path)) from error
