"""What every indexer ends with: tensors in the order of the file, inside it, none over another, each with its name."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from haversack.base.stored import WIDTHS, Stored

MOST_TENSORS = 1 << 20
"""More are not told of a file."""
_LONGEST_NAME = 1 << 10
_MOST_AXES = 16


def placed(found: Iterable[Stored], size: int) -> tuple[Stored, ...]:
    """Return tensors in the order of the file; of those that overlap the one that begins first, then the longest.

    Those without bytes, with a broken word or outside the file are left out.

    Args:
        found: in the file's own order, which gives a name to the first that bears it.
        size: bytes of the file.
    """
    named: dict[str, int] = {}
    taken = []
    for one in found:
        if one.length > 0 and one.start >= 0 and one.end <= size and one.length % WIDTHS[one.dtype] == 0:
            taken.append(one)
    last, kept = 0, []
    for one in sorted(taken, key=lambda each: (each.start, -each.length)):
        if one.start >= last:
            kept.append(one)
            last = one.end
    unique = []
    for one in kept:
        again = named.get(one.name, 0)
        named[one.name] = again + 1
        name = f"{one.name}#{again}" if again else one.name
        unique.append(Stored(name, one.start, one.length, one.dtype, one.shape))
    return tuple(unique)


def stored(name: str, start: int, length: int, dtype: str, shape: tuple[int, ...]) -> Stored:
    """Return a tensor, its name and its shape cut to what is reasonable.

    A shape that does not go with the bytes is left out: nothing is decided by it alone.
    """
    words = length // WIDTHS[dtype] * (2 if dtype == "int4" else 1)
    fits = len(shape) <= _MOST_AXES and all(0 < axis <= words for axis in shape)
    there = fits and (dtype == "blocks" or prod(shape) in {words, words - (dtype == "int4")})
    return Stored(name[:_LONGEST_NAME], start, length, dtype, shape if there else ())
