"""Golden vectors in a file: an .npz whose arrays are named ``number|input|name`` and ``number|output|name``.

Reading runs no code: pickles are refused, and what a member says of its size is checked before it is unpacked.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from haversack.base.errors import Fault, Refused, VerificationError
from haversack.tools.store import atomic

LARGEST = 1 << 30
"""Bytes of all arrays together."""
_NAME = re.compile(r"(?P<number>0|[1-9][0-9]{0,5})\|(?P<role>input|output)\|(?P<name>.+)", re.DOTALL)
_OBJECTS = "pickle"


@dataclass(frozen=True, eq=False)
class Golden:
    """One vector: arrays by name that go in, and those that must come out (any shape, any dtype but object)."""

    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)


def write(vectors: Sequence[Golden], path: Path) -> None:
    """Write vectors whole or not at all.

    Raises:
        EnvironmentFault: the file cannot be written.
    """
    arrays = {
        f"{number}|{role}|{name}": array
        for number, one in enumerate(vectors)
        for role, found in (("input", one.inputs), ("output", one.outputs))
        for name, array in found.items()
    }
    with atomic.replacing(path) as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def read(path: Path) -> tuple[Golden, ...]:
    """Return the vectors of a file, in order.

    Raises:
        Refused: it holds a pickle, or says that it is larger than ``LARGEST``.
        VerificationError: it is missing, truncated, or no file of golden vectors: every fault at once.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > LARGEST:
            raise Refused(f"it unpacks to {size} bytes, allowed are {LARGEST}", where=str(path))
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, RuntimeError) as error:
        if _OBJECTS in str(error) or _is_pickle(path):
            raise Refused("it holds a pickle, which would run code when read", where=str(path)) from error
        text = (error.strerror if isinstance(error, OSError) else "") or str(error)
        raise VerificationError(f"it is no file of golden vectors: {text}", where=str(path)) from error
    return _vectors(arrays, path)


def _vectors(arrays: Mapping[str, np.ndarray], path: Path) -> tuple[Golden, ...]:
    found: dict[int, Golden] = {}
    faults: list[Fault] = []
    for key, array in arrays.items():
        match = _NAME.fullmatch(key)
        if match is None:
            faults.append(Fault(key, "is no number|input|name or number|output|name"))
            continue
        vector = found.setdefault(int(match["number"]), Golden({}, {}))
        side = vector.inputs if match["role"] == "input" else vector.outputs
        side[match["name"]] = array  # type: ignore[index]  # made two lines above as dictionaries
    for number in sorted({*range(len(found)), *found}):
        vector = found.get(number, Golden())
        faults += [
            Fault(f"vector {number}", f"has no {role}")
            for role, side in (("input", vector.inputs), ("output", vector.outputs))
            if not side
        ]
    if not found and not faults:
        faults.append(Fault("", "it holds no vector"))
    if faults:
        raise VerificationError("it is no file of golden vectors", where=str(path), faults=tuple(faults))
    return tuple(found[number] for number in sorted(found))


def _is_pickle(path: Path) -> bool:
    """Say whether a file begins as pickles of protocol 2 and later do."""
    try:
        with path.open("rb") as stream:
            head = stream.read(2)
    except OSError:
        return False
    return len(head) == 2 and head[0] == 0x80 and head[1] in range(2, 6)
