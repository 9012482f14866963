"""The canonical form of a record, JSON whose bytes are decided, and reading such a file within bounds.

Keys in order, no spaces, ASCII with escapes, integers and shortest decimals of binary64, a line feed at the end. A file
that means the same in other bytes is refused: what is signed has one form.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

import numpy as np

from haversack.base.errors import Fault, Refused, UsageError
from haversack.base.recipe import structure, unstructure

Record = TypeVar("Record")
DEEPEST = 32
"""Brackets within brackets, at most: Python's reader would recurse as deep as a stranger likes."""
MOST_FAULTS = 100
"""Faults of one file that are told."""
_LONGEST = 200
_SURROGATE = b"\\ud"
"""How the escape of half a surrogate pair begins in canonical form; other spellings of it are refused as such."""
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


def dumps(record: object) -> bytes:
    """Return the canonical form of a record or of JSON-able data: ASCII, a line feed at the end.

    Raises:
        ValueError: a number in it is not finite.
    """
    text = json.dumps(unstructure(record), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii") + b"\n"


def loads(
    data: bytes,
    kind: type[Record],
    *,
    where: str,
    limit: int,
    formats: tuple[int, ...] | None = (1,),
    compared: bool = False,
) -> Record:
    """Return the record that bytes are the canonical form of.

    Args:
        data: the whole file.
        kind: the record's class, with a field ``format``.
        where: names the file in errors.
        limit: bytes that are looked at at all.
        formats: numbers that are read; None for a record without a number of its own.
        compared: whether they were found to be in canonical form before, as what is installed was: it is not asked of
            them again.

    Raises:
        Refused: too long, no JSON, nested too deep, of another format, with unknown, missing or wrong fields (all
            told at once), or not in canonical form.
    """
    found = _parsed(data, where, limit)
    if not isinstance(found, dict):
        raise Refused("the top of it is no object", where=where)
    if formats is not None and (type(found.get("format")) is not int or found["format"] not in formats):
        known = " or ".join(map(str, formats))
        raise Refused(f"format {shown(repr(found.get('format')))} is not one this version reads ({known})", where=where)
    try:
        record = structure(found, kind, where=where)
    except UsageError as error:
        told = tuple(Fault(shown(fault.where), shown(fault.cause)) for fault in error.faults[:MOST_FAULTS])
        raise Refused(error.cause, where=where, faults=told, tried=error.tried) from error
    if not compared:
        _demand_canonical(data, record, where)
    return record


def parse(data: bytes, *, where: str, limit: int, compared: bool = False) -> Any:  # noqa: ANN401 - JSON-able data
    """Return the JSON data that bytes are the canonical form of.

    Args:
        data: the whole file.
        where: names the file in errors.
        limit: bytes that are looked at at all.
        compared: as in ``loads``.

    Raises:
        Refused: too long, no JSON, nested too deep, or not in canonical form.
    """
    found = _parsed(data, where, limit)
    if not compared:
        _demand_canonical(data, found, where)
    return found


def _parsed(data: bytes, where: str, limit: int) -> Any:  # noqa: ANN401 - JSON-able data
    if len(data) > limit:
        raise Refused(f"it has {len(data)} bytes, and {limit} are allowed", where=where)
    if _depth(data) > DEEPEST:
        raise Refused(f"brackets are nested deeper than {DEEPEST}", where=where)
    try:
        return json.loads(data.decode("ascii"))
    except ValueError as error:
        raise Refused(f"it is no JSON: {error}", where=where) from error


def _demand_canonical(data: bytes, found: object, where: str) -> None:
    try:
        again = dumps(found)
        if _SURROGATE in data:
            json.dumps(unstructure(found), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Refused("half of a surrogate pair stands in a text", where=where) from error
    except ValueError as error:
        raise Refused("a number is NaN, or too large", where=where) from error
    if again != data:
        raise Refused("it is not in canonical form", where=where)


def _depth(data: bytes) -> int:
    """Return how deep brackets are nested outside of texts, never too few of what a reader sees before a fault."""
    if (most := data.count(b"[") + data.count(b"{")) <= DEEPEST:
        return most
    bare = np.frombuffer(_TEXT.sub(b"", data), np.uint8)
    opened = (bare == ord("[")) | (bare == ord("{"))
    closed = (bare == ord("]")) | (bare == ord("}"))
    return int(np.cumsum(opened.astype(np.int32) - closed).max(initial=0))


def shown(text: str, longest: int = _LONGEST) -> str:
    """Return a stranger's words as a terminal may show them: a bounded line, what is no printable character escaped."""
    kept = text if len(text) <= longest else f"{text[:longest]}…"
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in kept)
