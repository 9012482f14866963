"""The canonical form of a record, JSON whose bytes are decided, and reading such a file within bounds.

Keys in order, no spaces, ASCII with escapes, integers and shortest decimals of binary64, a line feed at the end. A file
that means the same in other bytes is refused: what is signed has one form.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from haversack.base.errors import Refused, UsageError
from haversack.base.recipe import structure, unstructure

Record = TypeVar("Record")
DEEPEST = 32
"""Brackets within brackets, at most: Python's reader would recurse as deep as a stranger likes."""


def dumps(record: object) -> bytes:
    """Return a record's canonical form: ASCII, a line feed at the end.

    Raises:
        ValueError: a number in it is not finite.
    """
    text = json.dumps(unstructure(record), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii") + b"\n"


def loads(data: bytes, kind: type[Record], *, where: str, limit: int, formats: tuple[int, ...] = (1,)) -> Record:
    """Return the record that bytes are the canonical form of.

    Args:
        data: the whole file.
        kind: the record's class, with a field ``format``.
        where: names the file in errors.
        limit: bytes that are looked at at all.
        formats: numbers that are read.

    Raises:
        Refused: too long, no JSON, nested too deep, of another format, with unknown, missing or wrong fields (all
            told at once), or not in canonical form.
    """
    if len(data) > limit:
        raise Refused(f"it has {len(data)} bytes, and {limit} are allowed", where=where)
    if _depth(data) > DEEPEST:
        raise Refused(f"brackets are nested deeper than {DEEPEST}", where=where)
    try:
        found: Any = json.loads(data.decode("ascii"))
    except ValueError as error:
        raise Refused(f"it is no JSON: {error}", where=where) from error
    if not isinstance(found, dict):
        raise Refused("the top of it is no object", where=where)
    if type(found.get("format")) is not int or found["format"] not in formats:
        known = " or ".join(map(str, formats))
        raise Refused(f"format {found.get('format')!r} is not one this version reads ({known})", where=where)
    try:
        record = structure(found, kind, where=where)
    except UsageError as error:
        raise Refused(error.cause, where=where, faults=error.faults, tried=error.tried) from error
    if dumps(record) != data:
        raise Refused("it is not in canonical form", where=where)
    return record


def _depth(data: bytes) -> int:
    """Return how deep brackets are nested, those in strings counted as well: never too few where all is closed."""
    deepest = depth = 0
    for byte in data:
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest
