"""Parcels: values on the way to a worker and back, as bytes; a model's program travels once, apart from them.

They are pickles, which run code when they are opened: only those are opened that this run and its own workers made.
Every array that comes out is new and writable, as it is in a run that spreads nothing.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Name = str
"""What a program is called that travels apart."""


def packed(value: object, apart: Callable[[ExportedProgram], Name]) -> bytes:
    """Return a value as bytes.

    Args:
        value: data, and functions and classes that a module names.
        apart: takes every program in it, and returns what it is called.

    Raises:
        TypeError, AttributeError, pickle.PicklingError: it holds what does not travel: a function without a name, an
            open file.
    """
    from torch.export import ExportedProgram

    class Packer(pickle.Pickler):
        def persistent_id(self, obj: object) -> Name | None:
            return apart(obj) if isinstance(obj, ExportedProgram) else None

    stream = io.BytesIO()
    Packer(stream, protocol=5).dump(value)
    return stream.getvalue()


def unpacked(data: bytes, program: Callable[[Name], ExportedProgram]) -> Any:  # noqa: ANN401 - what was packed
    """Return the value again.

    Args:
        data: as ``packed`` gave it, in this run.
        program: name -> the program that travelled apart.
    """

    class Unpacker(pickle.Unpickler):
        def persistent_load(self, pid: Name) -> ExportedProgram:
            return program(pid)

    return Unpacker(io.BytesIO(data)).load()


def program_bytes(program: ExportedProgram) -> bytes:
    """Return a program as ``torch.export.save`` writes it."""
    import torch

    stream = io.BytesIO()
    torch.export.save(program, stream)
    return stream.getvalue()


def program_from(data: bytes) -> ExportedProgram:
    """Return a program that ``program_bytes`` took apart: the same operations, under the same names."""
    import torch

    return torch.export.load(io.BytesIO(data))
