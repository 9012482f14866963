"""Running the user's code: whatever it raises becomes a JobError that stands at the user's own line."""

from __future__ import annotations

import linecache
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from haversack.base.errors import EnvironmentFault, HaversackError, JobError

FOLLOWING, WIDTH = 3, 200
"""Where an error's first line ends in a colon, so many of the lines behind it are told, each of so many characters."""

DISTRIBUTIONS = {
    "Bio": "biopython",
    "OpenSSL": "pyOpenSSL",
    "PIL": "pillow",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "fitz": "PyMuPDF",
    "pkg_resources": "setuptools",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
    "yaml": "pyyaml",
}
"""Module -> the distribution that has it, where the names differ."""


class UserCode:
    """A context in which the user's code runs, with his folder on ``sys.path``.

    Args:
        what: what runs, for the message (``calibration()``).
        folder: the folder of the user's file; frames below it are his.

    Raises:
        EnvironmentFault: it imports a module that is not installed.
        JobError: it raised anything else, or called ``sys.exit``; interrupts, lack of memory and our own errors pass.
    """

    def __init__(self, what: str, folder: Path) -> None:
        self.what = what
        self.folder = folder.resolve()

    def __enter__(self) -> Self:
        self._path = list(sys.path)
        sys.path.insert(0, str(self.folder))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if str(self.folder) in sys.path and str(self.folder) not in self._path:
            sys.path.remove(str(self.folder))
        if error is None or isinstance(error, HaversackError | KeyboardInterrupt | MemoryError | GeneratorExit):
            return
        cause, where = f"{self.what} raised {type(error).__name__}: {first_line(error)}", line_of(trace, self.folder)
        step = _traceback(where, self.what, self.folder)
        if isinstance(error, FileNotFoundError) and error.filename:
            step = _where_it_may_be(str(error.filename), self.folder)
        if isinstance(error, ModuleNotFoundError):
            raise _missing(error, cause, where, self.what) from error
        if isinstance(error, SystemExit):
            step = "keep what ends the program under: if __name__ == '__main__'"
        raise JobError(cause, where=where, tried=f"running {self.what}", next_step=step) from error


def _missing(error: ModuleNotFoundError, cause: str, where: str, what: str) -> HaversackError:
    """Return the error of a module that is not there: the machine's, unless it is a part of a package that is there."""
    name = error.name or ""
    top, dot, _ = name.partition(".")
    tried = f"running {what}"
    if dot:
        step = f"look at the import: {top} is there, and has no module {name}"
        return JobError(cause, where=where, tried=tried, next_step=step)
    step = f"install the package {DISTRIBUTIONS.get(name, name)}, or put the module {name} beside the job file"
    return EnvironmentFault(cause, where=where, tried=tried, next_step=step)


def _traceback(where: str, what: str, folder: Path) -> str:
    """Return the command that shows the whole traceback: what raised, run in the user's folder without haversack."""
    file = Path(where.partition(":")[0])
    if file.suffix != ".py" or not file.is_relative_to(folder):
        return "mend what it raised; run it in a Python of its own to see the whole traceback"
    name = file.stem
    code = f"import {name}; {name}.{what}" if what.endswith("()") else f"import {name}"
    walked = f"import {name}; list({name}.{what})" if what in ("calibration()", "evaluation()") else code
    return f"cd {shlex.quote(str(folder))} && python -c {shlex.quote(walked)}    (shows the whole traceback)"


def _where_it_may_be(name: str, folder: Path) -> str:
    """Return what to do about a file that is not there: a relative path starts where the command was typed."""
    if not Path(name).is_absolute() and (folder / name).exists():
        return (
            f"write Path(__file__).parent / {name!r}: it lies beside the job file, and was looked for in {Path.cwd()}"
        )
    beside = Path(name).absolute().parent
    there = next(folder for folder in (beside, *beside.parents) if folder.is_dir())
    why = "it was looked for there" if there == beside else f"there is no folder {beside}"
    return f"ls {shlex.quote(str(there))}    ({why})"


def line_of(trace: TracebackType | None, folder: Path) -> str:
    """Return ``file:line: source`` of the innermost frame that runs the user's code, or of the innermost at all."""
    found = last = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        linecache.checkcache(file)
        source = linecache.getline(file, trace.tb_lineno).strip()
        last = f"{file}:{trace.tb_lineno}" + (f": {source}" if source else "")
        if "site-packages" not in file and Path(file).is_relative_to(folder):
            found = last
        trace = trace.tb_next
    return found or last


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text that says something.

    One that ends in a colon says nothing by itself (PyTorch's «Error(s) in loading state_dict for Net:»): the lines
    behind it stand with it then, ``FOLLOWING`` of them and ``WIDTH`` characters of each; … stands for what is cut.
    """
    first, *others = [line.strip() for line in str(error).splitlines() if line.strip()] or ["(no text)"]
    if not first.endswith(":") or not others:
        return first
    kept = [line if len(line) <= WIDTH else f"{line[:WIDTH].rstrip()} …" for line in others[:FOLLOWING]]
    return " ".join([first, *kept, *(["…"] if len(others) > FOLLOWING else [])])


def guarded(function: Callable[[], Any], name: str, folder: Path) -> Callable[[], Any]:
    """Return ``function`` with its errors told at the user's line."""

    def call() -> Any:  # noqa: ANN401 - what the user returns
        with UserCode(f"{name}()", folder):
            return function()

    return call


def guarded_stream(function: Callable[[], Iterable[Any]], name: str, folder: Path) -> Callable[[], Iterator[Any]]:
    """Return ``function`` as one that yields its items, with errors of the call and of every step told at their line.

    Raises:
        JobError: from the returned function: it returns nothing that can be iterated, or raised.
    """

    def stream() -> Iterator[Any]:
        with UserCode(f"{name}()", folder):
            items = function()
            if not isinstance(items, Iterable):
                raise JobError(
                    f"{name}() returned {type(items).__name__}, which cannot be iterated",
                    where=name,
                    next_step="return a list, or yield one batch after the other",
                )
            walk = iter(items)
        end = object()
        while True:
            with UserCode(f"{name}()", folder):
                item = next(walk, end)
            if item is end:
                return
            yield item

    return stream
