"""A saved program: a .pt2 file that ``torch.export.save`` wrote, as a module that can be exported again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from haversack.base.errors import HaversackError, JobError
from haversack.load import archive
from haversack.load.quiet import quiet
from haversack.load.user_code import first_line

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram


def program_of(path: Path, *, allow_pickle: bool) -> ExportedProgram:
    """Load the program.

    Raises:
        JobError: truncated, foreign, or written by a version of PyTorch whose files this one does not read.
        Refused: reading it would run code that the file brings along.
    """
    archive.check(path, allow_pickle=allow_pickle)
    try:
        with quiet():
            from torch.export.pt2_archive._package import load_pt2

            contents = load_pt2(str(path))
            program: ExportedProgram = contents.exported_programs["model"]
    except HaversackError:
        raise
    except Exception as error:
        raise JobError(
            f"PyTorch cannot read this program: {type(error).__name__}: {first_line(error)}",
            where=str(path),
            tried="torch.export.load",
            next_step="write it again with torch.export.save and the PyTorch that runs here",
        ) from error
    program._guards_code = []  # noqa: SLF001 - source text from the file, which module() would compile and run
    return program


def module_of(path: Path, *, allow_pickle: bool) -> nn.Module:
    """Return the program as a module in eval mode (programs exported in training mode are found by ``export``).

    Raises:
        JobError, Refused: as ``program_of``.
    """
    program = program_of(path, allow_pickle=allow_pickle)
    with quiet():
        module: nn.Module = program.module(check_guards=False)
    for inner in module.modules():
        inner.training = False
    return module
