"""Content digests: the same content gives the same key on every machine, and a name never does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

CHUNK_BYTES = 1 << 20


def of_bytes(data: bytes) -> str:
    """Return the sha256 of ``data`` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def of_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, read one MiB at a time.

    Raises:
        OSError: the file cannot be read.
    """
    state = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            state.update(chunk)
    return state.hexdigest()


def of_array(array: np.ndarray) -> str:
    """Return the sha256 of an array's dtype, shape and C-order bytes (any shape, any dtype but object).

    Raises:
        TypeError: the array holds Python objects.
    """
    if array.dtype.hasobject:
        message = "an array of Python objects has no content digest"
        raise TypeError(message)
    state = hashlib.sha256(f"{array.dtype.str}{array.dtype.name}{array.shape}".encode())
    state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return state.hexdigest()


def of_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Return one digest of named arrays (any shape, any dtype but object), independent of their order."""
    state = hashlib.sha256()
    for name in sorted(arrays):
        state.update(f"{len(name)}:{name}{of_array(arrays[name])}".encode())
    return state.hexdigest()


def of_data(data: object) -> str:
    """Return the digest of JSON-able data, with sorted keys and no spaces (floats as Python writes them).

    Raises:
        TypeError: ``data`` holds something that JSON cannot say.
        ValueError: ``data`` holds NaN or an infinity.
    """
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return of_bytes(text.encode())
