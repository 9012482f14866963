"""Where the tensors of a .safetensors file are: 8 bytes of length, a header in JSON, the bytes of the tensors.

The format is https://huggingface.co/docs/safetensors; only the header is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from haversack.base.errors import Refused
from haversack.base.stored import Stored
from haversack.tools.formats.placed import MOST_TENSORS, placed, stored

LARGEST_HEADER = 64 << 20
_DEEPEST = 8
_LONGEST_NUMBER = 20
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "U64": "int64"}
_DTYPES |= {"I32": "int32", "U32": "int32", "I16": "int16", "U16": "int16", "I8": "int8", "U8": "uint8"}
_DTYPES |= {"BOOL": "uint8", "F8_E4M3": "uint8", "F8_E5M2": "uint8"}


def matches(data: bytes | memoryview) -> bool:
    """Say whether bytes begin as such a file does."""
    return len(data) >= 9 and int.from_bytes(data[:8], "little") <= len(data) - 8 and bytes(data[8:9]) == b"{"


def index(data: bytes | memoryview) -> tuple[Stored, ...]:
    """Return where the tensors are, in the order of the file.

    Raises:
        Refused: the header is not one.
    """
    view = memoryview(data)
    size = int.from_bytes(view[:8], "little")
    if len(view) < 8 or size > min(len(view) - 8, LARGEST_HEADER):
        raise Refused(f"a header of {size} bytes does not fit", where="byte 0 (length of the header)")
    header = _header(bytes(view[8 : 8 + size]))
    if len(header) > MOST_TENSORS:
        raise Refused(f"{len(header)} tensors are too many", where="byte 8 (header)")
    return placed(_tensors(header, 8 + size), len(view))


def _header(text: bytes) -> dict[str, Any]:
    depth = 0
    for byte in text:  # brackets in names count as well, which refuses no file that anybody writes
        depth += (byte in b"[{") - (byte in b"]}")
        if depth > _DEEPEST:
            raise Refused(f"brackets are nested deeper than {_DEEPEST}", where="byte 8 (header)")
    try:
        found = json.loads(text.decode("utf-8"), parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the header is no JSON: {error}", where="byte 8 (header)") from error
    if not isinstance(found, dict):
        raise Refused("the header is no object", where="byte 8 (header)")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError("a number is too long")
    return int(digits)


def _tensors(header: dict[str, Any], base: int) -> Iterator[Stored]:
    for name, entry in header.items():
        if name == "__metadata__" or not isinstance(entry, dict):
            continue
        dtype, shape, offsets = entry.get("dtype"), _whole(entry.get("shape")), _whole(entry.get("data_offsets"))
        if not isinstance(dtype, str) or dtype not in _DTYPES or shape is None or offsets is None or len(offsets) != 2:
            continue
        start, end = offsets
        if start < end:
            yield stored(name, base + start, end - start, _DTYPES[dtype], tuple(shape))


def _whole(value: object) -> list[int] | None:
    """Return a list of whole numbers, or None where it is none."""
    good = isinstance(value, list) and all(type(each) is int and each >= 0 for each in value)
    return value if isinstance(value, list) and good else None
