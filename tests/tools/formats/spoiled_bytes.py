"""Spoiled bytes for the indexers: what may come of them, whatever the format."""

from __future__ import annotations

from haversack.base.errors import EXIT_REFUSED, Refused
from haversack.base.stored import WIDTHS


def flipped(data, at, flip):
    """Return bytes of which one is changed."""
    return data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]


def in_order(found, size):
    """Say whether tensors follow each other inside a file, with whole words and names of their own."""
    ends = [0, *(one.end for one in found)]
    apart = all(one.start >= end and one.length > 0 for one, end in zip(found, ends, strict=False))
    whole = all(one.length % WIDTHS[one.dtype] == 0 for one in found)
    return apart and whole and ends[-1] <= size and len({one.name for one in found}) == len(found)


def well(reader, data):
    """Index a spoiled file and say whether all is well: refused with cause and place, or tensors that are in order."""
    try:
        return in_order(reader(data), len(data))
    except Refused as error:
        return bool(error.cause and error.where and error.exit_code == EXIT_REFUSED)
