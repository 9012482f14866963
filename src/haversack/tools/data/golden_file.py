"""Golden vectors in a file: an .npz whose arrays are named ``number|input|name`` and ``number|output|name``.

An input of at most 256 different values is kept as uint8 places in a list of them, ``number|values|name``: an eighth to
a half of the bytes, and the same bits. Reading runs no code and unpacks nothing else: pickles are refused, and so is
what says more of its size than is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from haversack.base.errors import Fault, Refused, VerificationError
from haversack.tools.formats import npz
from haversack.tools.store import atomic

LARGEST = 1 << 30
"""Bytes of a file."""
_NAME = re.compile(r"(?P<number>0|[1-9][0-9]{0,5})\|(?P<role>input|values|output)\|(?P<name>.+)", re.DOTALL)
_PICKLE = 0x80
_MOST_VALUES = 256


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
    arrays: dict[str, np.ndarray] = {}
    for number, one in enumerate(vectors):
        for name, array in one.inputs.items():
            places, values = _listed(np.asarray(array, order="C"))
            arrays[f"{number}|input|{name}"] = places
            if values is not None:
                arrays[f"{number}|values|{name}"] = values
        arrays |= {f"{number}|output|{name}": np.asarray(array, order="C") for name, array in one.outputs.items()}
    with atomic.replacing(path) as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def read(path: Path) -> tuple[Golden, ...]:
    """Return the vectors of a file, in order.

    Raises:
        Refused: it holds a pickle, or is larger than ``LARGEST`` or than it says.
        VerificationError: it is missing, truncated, or no file of golden vectors: every fault at once.
    """
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise Refused(f"it has {size} bytes, allowed are {LARGEST}", where=str(path))
        data = path.read_bytes()
    except OSError as error:
        raise _foreign(error.strerror or str(error), str(path)) from error
    return from_bytes(data, where=str(path))


def from_bytes(data: bytes, *, where: str) -> tuple[Golden, ...]:
    """Return the vectors that a file's bytes hold, in order; ``where`` names the file in errors.

    Raises:
        Refused, VerificationError: as ``read``.
    """
    if len(data) > 1 and data[0] == _PICKLE and data[1] in range(2, 6):  # of protocol 2 and later
        raise Refused("it holds a pickle, which would run code when read", where=where)
    try:
        arrays = npz.arrays(data, where=where)
    except ValueError as error:
        raise _foreign(str(error), where) from error
    return _vectors(arrays, where)


def _listed(array: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return an array as uint8 places in a list of its values, told apart by their bits; itself where they are many."""
    if array.dtype.itemsize == 1 or array.size <= _MOST_VALUES:
        return array, None
    bits, places = np.unique(array.reshape(-1).view(f"<u{array.dtype.itemsize}"), return_inverse=True)
    if bits.size > _MOST_VALUES:
        return array, None
    return places.astype(np.uint8).reshape(array.shape), bits.view(array.dtype)


def _foreign(text: str, where: str) -> VerificationError:
    return VerificationError(f"it is no file of golden vectors: {text}", where=where)


def _vectors(arrays: Mapping[str, np.ndarray], where: str) -> tuple[Golden, ...]:
    found: dict[int, Golden] = {}
    faults: list[Fault] = []
    values: dict[tuple[int, str], np.ndarray] = {}
    for key, array in arrays.items():
        match = _NAME.fullmatch(key)
        if match is None:
            faults.append(Fault(key, "is no number|input|name or number|output|name"))
            continue
        if match["role"] == "values":
            values[int(match["number"]), match["name"]] = array
            continue
        vector = found.setdefault(int(match["number"]), Golden({}, {}))
        side = vector.inputs if match["role"] == "input" else vector.outputs
        side[match["name"]] = array  # type: ignore[index]  # made two lines above as dictionaries
    faults += _looked_up(found, values, where)
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
        raise VerificationError("it is no file of golden vectors", where=where, faults=tuple(faults))
    return tuple(found[number] for number in sorted(found))


def _looked_up(found: Mapping[int, Golden], values: Mapping[tuple[int, str], np.ndarray], where: str) -> list[Fault]:
    """Put values in the place of their places, and return what is wrong with them.

    Raises:
        Refused: they are more than ``LARGEST`` bytes.
    """
    faults, size = [], 0
    for (number, name), listed in values.items():
        places = found.get(number, Golden()).inputs.get(name)
        if places is None or places.dtype != np.uint8 or listed.ndim != 1 or places.max(initial=0) >= listed.size:
            cause = "is no list of values to which the input's uint8 places lead"
            faults.append(Fault(f"{number}|values|{name}", cause))
            continue
        if (size := size + places.size * listed.dtype.itemsize) > LARGEST:
            raise Refused(f"it unpacks to more than {LARGEST} bytes", where=where)
        found[number].inputs[name] = listed[places]  # type: ignore[index]  # made above as a dictionary
    return faults
