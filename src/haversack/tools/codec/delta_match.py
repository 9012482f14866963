"""Which bytes of an old file are the like of which bytes of a new one: tensors first, then what lies between them.

Tensors are joined by name; those without a like of that name by equal bytes, then by the old tensor of the same size
that shares most words with them, for files move and rename what they hold. Hints may be wrong: where words are not
alike, nothing is joined. What is left is searched for repetitions (C. Percival, "Naive differences of executable code",
2003, by the package bsdiff4).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from haversack.base.stored import Stored
from haversack.tools.codec import bsdiff, delta_words

LEAST = 24
"""Tensors of fewer bytes are searched with what lies between them: an entry in the plan would take as much."""
_SAMPLE = 4096
_CANDIDATES = 64
_KINDS = {
    "int4": delta_words.NIBBLES,
    "int16": delta_words.INT16,
    "int32": delta_words.INT32,
    "int64": delta_words.INT64,
    "float16": delta_words.FLOAT16,
    "bfloat16": delta_words.FLOAT16,
    "float32": delta_words.FLOAT32,
    "float64": delta_words.FLOAT64,
}


@dataclass(frozen=True)
class Link:
    """Bytes of the new file and the old ones that they are made of.

    Attributes:
        new: where the new bytes begin.
        length: bytes.
        old: where the old ones begin, or -1 where there are none.
        kind: number of the kind of words.
        columns: words of a row, or 0.
    """

    new: int
    length: int
    old: int = -1
    kind: int = delta_words.BYTES
    columns: int = 0


def links(old: bytes, new: bytes, old_tensors: Sequence[Stored], new_tensors: Sequence[Stored]) -> list[Link]:
    """Return links that cover the new file, in its order.

    Args:
        old, new: the files.
        old_tensors, new_tensors: where their tensors are, in their order; hints, which may be wrong in every way.

    Raises:
        MissingExtra: the package bsdiff4 is not installed, and something lies between the tensors.
    """
    joined = list(_joined(old, new, _within(old_tensors, len(old)), _within(new_tensors, len(new))))
    taken = sorted((one.old, one.old + one.length) for one in joined)
    found, last = [], 0
    spaces = []
    for one in sorted(joined, key=lambda each: each.new):
        spaces.append((last, one.new))
        last = one.new + one.length
    spaces.append((last, len(new)))
    free = list(_between(taken, len(old)))
    if sum(end - start for start, end in spaces) > 2 * sum(end - start for start, end in free) + _SAMPLE:
        free = [(0, len(old))]
    found = [*joined, *_searched(old, new, free, [space for space in spaces if space[0] < space[1]])]
    return sorted(found, key=lambda each: each.new)


def _within(tensors: Iterable[Stored], size: int) -> list[Stored]:
    """Return hints without those that are outside the file, too short, broken or over another one."""
    last, kept = 0, []
    for one in sorted(tensors, key=lambda each: (each.start, each.length)):
        if one.start >= last and one.length >= LEAST and one.end <= size and one.length % one.width == 0:
            kept.append(one)
            last = one.end
    return kept


def _joined(old: bytes, new: bytes, before: list[Stored], after: list[Stored]) -> Iterator[Link]:
    """Yield a link for each tensor that has a like."""
    named = {one.name: one for one in before}
    content: dict[bytes, Stored] = {_digest(old, one): one for one in reversed(before)}
    sized = defaultdict(list)
    for one in before:
        sized[one.length, one.dtype].append(one)
    for one in after:
        twin = content.get(_digest(new, one))
        like = named.get(one.name)
        if twin is not None and (like is None or _digest(old, like) != _digest(new, one)):
            like = twin
        if like is None or like.dtype != one.dtype or not _alike(old, new, like, one):
            like = _nearest(old, new, sized[one.length, one.dtype], one)
        if like is not None:
            length = min(like.length, one.length)
            yield Link(one.start, length, like.start, _KINDS.get(one.dtype, delta_words.BYTES), _columns(one))


def _columns(one: Stored) -> int:
    """Return how many words a row of a tensor has: what one output reads, or all channels of one place."""
    shape = one.shape
    words = one.length // one.width
    if len(shape) < 2:
        return 0
    row = prod(shape[1:]) if shape[0] > 1 else shape[-1]
    row = -(-row // 2) if one.dtype == "int4" else row
    return row if 0 < row < words else 0


def _digest(data: bytes, one: Stored) -> bytes:
    return hashlib.blake2b(memoryview(data)[one.start : one.end], digest_size=16).digest()


def _sample(data: bytes, one: Stored, length: int) -> np.ndarray:
    """Return the signed high bytes of evenly spaced words of a tensor: int64."""
    words = np.frombuffer(data, np.uint8, length, one.start).reshape(-1, one.width)
    step = max(len(words) // _SAMPLE, 1)
    if one.width == 1:
        return np.asarray(words[::step, 0].view(np.int8).astype(np.int64))
    wide = words[::step].copy().view(f"<i{one.width}")[:, 0].astype(np.float64)
    return np.asarray(wide / (1 << 8 * (one.width - 1))).astype(np.int64)


def _alike(old: bytes, new: bytes, before: Stored, after: Stored) -> bool:
    """Say whether words of two tensors are closer to each other than to their own order reversed."""
    length = min(before.length, after.length)
    mine, theirs = _sample(old, before, length), _sample(new, after, length)
    return bool(2 * np.abs(mine - theirs).sum() <= np.abs(mine[::-1] - theirs).sum())


def _nearest(old: bytes, new: bytes, candidates: list[Stored], after: Stored) -> Stored | None:
    """Return the old tensor of the same size whose words are nearest, where they are alike at all."""
    if not candidates:
        return None
    theirs = _sample(new, after, after.length)
    apart = [int(np.abs(_sample(old, one, one.length) - theirs).sum()) for one in candidates[:_CANDIDATES]]
    best = candidates[int(np.argmin(apart))]
    return best if _alike(old, new, best, after) else None


def _between(taken: list[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """Yield what no span takes; spans may lie over each other."""
    last = 0
    for start, end in [*taken, (size, size)]:
        if start > last:
            yield last, start
        last = max(last, end)


def _searched(old: bytes, new: bytes, free: list[tuple[int, int]], spaces: list[tuple[int, int]]) -> Iterator[Link]:
    """Yield links for spaces of the new file, each to what is like it in free parts of the old one, or to nothing."""
    if not spaces:
        return
    source = b"".join(old[start:end] for start, end in free)
    target = b"".join(new[start:end] for start, end in spaces)
    here, there = _Places(spaces), _Places(free)
    at = back = 0
    for mixed, extra, seek in _differences(source, target):
        for start, length in here.pieces(at, mixed):
            # A piece of the target may go over borders in the source as well.
            offset = back + here.before(start) - at
            done = start
            for place, part in there.pieces(offset, length):
                yield Link(done, part, place)
                done += part
        for start, length in here.pieces(at + mixed, extra):
            yield Link(start, length)
        at, back = at + mixed + extra, back + mixed + seek


class _Places:
    """Spans of a file laid end to end, and where their bytes are in the file."""

    def __init__(self, spans: list[tuple[int, int]]) -> None:
        self.spans = spans
        self.ends = np.cumsum([0, *(end - start for start, end in spans)])

    def pieces(self, at: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield (place in the file, bytes) of so many bytes from ``at`` on."""
        index = int(np.searchsorted(self.ends, at, side="right")) - 1
        while length > 0:
            inside = at - int(self.ends[index])
            start, end = self.spans[index]
            part = min(length, end - start - inside)
            yield start + inside, part
            at, length, index = at + part, length - part, index + 1

    def before(self, place: int) -> int:
        """Return how many bytes of the spans lie before a place in one of them."""
        index = next(i for i, (start, end) in enumerate(self.spans) if start <= place < end)
        return int(self.ends[index]) + place - self.spans[index][0]


def _differences(source: bytes, target: bytes) -> list[tuple[int, int, int]]:
    """Return (bytes that are like others, bytes that are not, how far the source goes on) one after the other."""
    if not source or not target:
        return [(0, len(target), 0)]
    return bsdiff.control(bsdiff.make(source, target), limit=len(target))[0]


def merged(found: Iterable[Link]) -> list[Link]:
    """Return links with those joined that follow each other in both files, bytes without rows or nothing at all."""
    kept: list[Link] = []
    for one in found:
        last = kept[-1] if kept else None
        follows = last is not None and (
            (last.old < 0 and one.old < 0)
            or (last.old >= 0 and one.old == last.old + last.length and last.kind == one.kind == delta_words.BYTES)
        )
        if last is not None and follows and not last.columns and not one.columns:
            kept[-1] = replace(last, length=last.length + one.length)
        else:
            kept.append(one)
    return kept


def same(old: np.ndarray, new: np.ndarray, least: int) -> list[tuple[int, int, bool]]:
    """Return (start, end, whether they are equal) of bytes cut where so many in a row are equal."""
    apart = np.flatnonzero(old != new)
    if not apart.size:
        return [(0, len(new), True)]
    cuts = np.flatnonzero(np.diff(apart) > least)
    starts, ends = [int(apart[0]), *apart[cuts + 1].tolist()], [*apart[cuts].tolist(), int(apart[-1])]
    found: list[tuple[int, int, bool]] = []
    last = 0
    for start, end in zip(starts, ends, strict=True):
        if start - last >= least:
            found.append((last, start, True))
            last = start
        found.append((last, end + 1, False))
        last = end + 1
    if len(new) - last >= least:
        found.append((last, len(new), True))
    else:
        found[-1] = (found[-1][0], len(new), False)
    return found
