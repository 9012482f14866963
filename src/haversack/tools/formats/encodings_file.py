"""Encodings in a file: safetensors, with one JSON entry in its header that says what the arrays belong to.

The header's metadata has one key, ``haversack``: ``{"format": 1, "tensors": {tensor key: {"kind": …, fields}}}``. An
array is named ``tensor key|field``, the integers of a weight ``tensor key|integers``, in the smallest of int8, uint8,
int16 and int32 that holds them, never packed. The same encodings give the same bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from haversack.base.encodings import Affine, BlockAffine, Codebook, Dynamic, Encoding, Encodings, Float
from haversack.base.errors import Fault, UsageError

FORMAT = 1
ENTRY = "haversack"
LARGEST_FILE = 16 << 30
LARGEST_HEADER = 64 << 20

_KINDS: Mapping[str, type[Encoding]] = {kind.__name__: kind for kind in (Float, Dynamic, Affine, BlockAffine, Codebook)}
_ARRAYS = frozenset({"scale", "zero_point", "minimum", "scale_of_scales", "entries"})
_OPTIONAL = frozenset({"minimum", "scale_of_scales"})
_PLAIN: Mapping[str, tuple[type, ...]] = {
    "dtype": (str,),
    "bits": (int,),
    "signed": (bool,),
    "axis": (int, type(None)),
    "block": (int,),
    "group": (int,),
}
_DTYPES = frozenset({"F32", "F16", "I32", "I16", "I8", "U8"})
_SMALLEST = (np.int8, np.uint8, np.int16, np.int32)


def to_bytes(encodings: Encodings) -> bytes:
    """Return the file's bytes."""
    from safetensors.numpy import save

    arrays = {name: np.array(value, order="C") for name, value in encodings.arrays()}
    for key, integers in encodings.integers.items():
        arrays[f"{key}|integers"] = _small(integers)
    described = {
        key: {"kind": type(value).__name__}
        | {name: field for name, field in vars(value).items() if name in _PLAIN and not isinstance(field, np.ndarray)}
        for key, value in sorted(encodings.tensors.items())
    }
    text = json.dumps({"format": FORMAT, "tensors": described}, sort_keys=True, separators=(",", ":"))
    data: bytes = save(arrays, metadata={ENTRY: text})
    return data


def write(encodings: Encodings, path: Path) -> None:
    """Write the file whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_bytes(to_bytes(encodings))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path) -> Encodings:
    """Return the encodings of a file.

    Raises:
        UsageError: the file is larger than 16 GiB, truncated, of another kind or format, or says what no encoding
            is: every fault at once.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise _foreign(str(path), f"{size} bytes are more than {LARGEST_FILE}")
    return from_bytes(path.read_bytes(), where=str(path))


def from_bytes(data: bytes, *, where: str = "encodings") -> Encodings:
    """Return the encodings that a file's bytes hold; ``where`` names the file in errors.

    Raises:
        UsageError: see ``read``.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    described = _described(data, where)
    try:
        arrays = load(data)
    except SafetensorError as error:
        raise _foreign(where, f"its arrays cannot be read ({error})") from error
    faults: list[Fault] = []
    tensors: dict[str, Encoding] = {}
    integers: dict[str, np.ndarray] = {}
    for key, told in described.items():
        try:
            tensors[key] = _encoding(key, told, arrays)
        except ValueError as error:
            faults.append(Fault(key, str(error)))
        if (codes := arrays.pop(f"{key}|integers", None)) is not None:
            integers[key] = codes
            if codes.dtype.type not in _SMALLEST:
                faults.append(Fault(key, f"integers are {codes.dtype}"))
    faults += [Fault(name, "an array that belongs to no tensor") for name in sorted(arrays)]
    if not faults:
        try:
            return Encodings(tensors, {key: codes.astype(np.int32) for key, codes in integers.items()})
        except ValueError as error:
            faults.append(Fault("", str(error)))
    raise _foreign(where, "it does not describe encodings", tuple(faults))


def _described(data: bytes, where: str) -> dict[str, Any]:
    """Return what the header says of each tensor, within the limits."""
    if len(data) < 8:
        raise _foreign(where, f"it ends after {len(data)} bytes")
    length = struct.unpack("<Q", data[:8])[0]
    if length > min(LARGEST_HEADER, len(data) - 8):
        raise _foreign(where, f"a header of {length} bytes in a file of {len(data)}")
    try:
        header = json.loads(data[8 : 8 + length])
        entry = json.loads(header["__metadata__"][ENTRY])
        number, described = entry["format"], entry["tensors"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _foreign(where, "its header is none of an encodings file") from error
    if type(number) is not int or number != FORMAT:  # true and 1.0 equal 1, and are none of its numbers
        raise _foreign(where, f"format {number!r}; this version reads format {FORMAT}")
    if not isinstance(described, dict) or not all(isinstance(told, dict) for told in described.values()):
        raise _foreign(where, "its header is none of an encodings file")
    odd = sorted({str(_dtype(item)) for name, item in header.items() if name != "__metadata__"} - _DTYPES)
    if odd:
        raise _foreign(where, f"arrays of type {', '.join(odd)}")
    return described


def _dtype(item: object) -> object:
    return item.get("dtype") if isinstance(item, dict) else None


def _encoding(key: str, told: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> Encoding:
    """Return one tensor's encoding; its arrays are taken out of ``arrays``.

    Raises:
        ValueError: a field is missing, unknown or of another type, or the encoding refuses its values.
    """
    kind = _KINDS.get(str(told.get("kind")))
    names = [] if kind is None else [field.name for field in fields(kind)]
    values: dict[str, Any] = {
        name: arrays.pop(f"{key}|{name}", None) for name in _ARRAYS if name in names or f"{key}|{name}" in arrays
    }
    if kind is None:
        message = f"an encoding of kind {told.get('kind')!r}"
        raise ValueError(message)
    values |= {name: value for name, value in told.items() if name != "kind"}
    wrong = [name for name in names if name not in values or not _fits(name, values[name])]
    wrong += [name for name in values if name not in names]
    if wrong:
        message = f"fields that are missing, unknown or of another type: {', '.join(sorted(wrong))}"
        raise ValueError(message)
    return kind(**values)


def _fits(name: str, value: object) -> bool:
    if name in _ARRAYS:
        return isinstance(value, np.ndarray) or (value is None and name in _OPTIONAL)
    return type(value) in _PLAIN[name]


def _small(integers: np.ndarray) -> np.ndarray:
    low, high = (int(integers.min()), int(integers.max())) if integers.size else (0, 0)
    for dtype in _SMALLEST:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return np.array(integers, dtype, order="C")
    message = f"integers in [{low}, {high}] do not fit int32"
    raise ValueError(message)


def _foreign(where: str, cause: str, faults: tuple[Fault, ...] = ()) -> UsageError:
    return UsageError(
        f"not a file of encodings: {cause}",
        where=where,
        faults=faults,
        next_step="pack again, or name the encodings.safetensors of a run",
    )
