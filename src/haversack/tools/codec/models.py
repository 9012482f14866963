"""Which models code a file: its segments, their tables shared and counted, cut again, counted again.

Where one knows where the tensors lie, weights become grids and derived floats products. What is left, tensors of wide
words first and then all that is between, is cut as a file that knows nothing would be, and put back in its places.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from haversack.base.stored import Stored
from haversack.tools.codec import entropy, grid, plan, product, recut, segments, sharing, tables
from haversack.tools.codec.plan import FIRST_TABLE, PACKED, STORED, Grid, Product, Run, Segment
from haversack.tools.codec.recut import Choice

_LEAST = 32


def fit(content: bytes, tensors: Iterable[Stored] = ()) -> tuple[list[Segment], np.ndarray]:
    """Return the segments of a file, in order, and the levels of the tables that they name, uint8 [tables, 256].

    Args:
        content: the file.
        tensors: where it may keep tensors; what cannot be is left out.
    """
    known = _apart(tensors, len(content))
    products = product.find(content, known)
    grids, counts = grid.fit(content, known, plan.MOST_TABLES // 2)
    taken: list[Grid | Product] = [*products, *grids]
    pieces = _pieces(len(content), known, taken)
    chosen, levels = _generic(b"".join(content[start:stop] for start, stop in pieces), plan.MOST_TABLES - len(counts))
    found: list[Segment] = [*taken, *_placed(pieces, chosen, len(counts))]
    if len(found) > plan.MOST_SEGMENTS:  # far more tensors than models have
        return fit(content)
    return sorted(found, key=_start), np.concatenate([tables.to_levels(counts), levels])


def _apart(tensors: Iterable[Stored], size: int) -> list[Stored]:
    """Return tensors in the order of the file, without those that lie outside of it, or in another."""
    found: list[Stored] = []
    for each in sorted(tensors, key=lambda each: (each.start, each.length)):
        begin = found[-1].end if found else 0
        if begin <= each.start and 0 < each.length <= size - each.start and each.length % each.width == 0:
            found.append(each)
    return found


def _pieces(size: int, known: Sequence[Stored], taken: Sequence[Grid | Product]) -> list[tuple[int, int]]:
    """Return where all bytes are that are not taken: of tensors, the widest words first, then of what is between."""
    gone = {each.start for each in taken}
    apart = [each for each in known if each.start in gone or (each.width > 1 and each.length >= _LEAST)]
    left = [each for each in apart if each.start not in gone]
    left.sort(key=lambda each: (-min(each.width, 4), each.dtype))
    ends = [0, *(end for each in apart for end in (each.start, each.end)), size]
    between = [(start, stop) for start, stop in zip(ends[::2], ends[1::2], strict=True) if start < stop]
    return [(each.start, each.end) for each in left] + between


def _placed(pieces: Sequence[tuple[int, int]], chosen: Iterable[tuple[int, Choice]], count: int) -> list[Segment]:
    """Return segments of pieces that lay end to end, each where it is in the file, with tables behind ``count``."""
    found: list[Segment] = []
    places = iter(pieces)
    start = stop = 0
    for length, choice in chosen:
        models = [model if model < FIRST_TABLE else model + count for model in choice]
        left, stride = length, len(choice)
        while left:
            if start == stop:
                start, stop = next(places)
            here = min(left, stop - start)
            phase = (length - left) % stride
            turned = models[phase:] + models[:phase]
            end = start + here
            found.append(tuple(Run(start + at, end, stride, model) for at, model in enumerate(turned)))
            start, left = end, left - here
    return found


def _start(segment: Segment) -> int:
    return segment[0].start if isinstance(segment, tuple) else segment.start


def _generic(content: bytes, most: int) -> tuple[list[tuple[int, Choice]], np.ndarray]:
    """Return lengths and choices of segments, in order, and the levels of at most so many tables."""
    data = np.frombuffer(content, np.uint8)
    chosen, levels = _first(data, segments.cut(content), most)
    chosen = recut.recut(content, chosen, tables.to_frequencies(levels))
    return _recounted(data, chosen, len(levels))


def _first(
    data: np.ndarray, cut: tuple[segments.Segment, ...], most: int
) -> tuple[list[tuple[int, Choice]], np.ndarray]:
    """Return lengths and choices of a first cut, and levels of its tables, shared: uint8 [tables, 256]."""
    chosen = [(each.length, [STORED] * each.stride or [PACKED]) for each in cut]
    found, where = [], []
    for each, (_, models) in zip(cut, chosen, strict=True):
        for phase in range(each.stride):
            counts = np.bincount(data[each.start + phase : each.start + each.length : each.stride], minlength=256)
            bits = entropy.of_counts(counts) + segments.model_bits(counts)
            if bits < counts.sum() * 8 * entropy.UNIT:
                found.append(counts)
                where.append((models, phase))
    counts = np.array(found, np.int64).reshape(-1, 256)
    owner = sharing.share(counts, segments.model_bits(counts), most)
    for (models, phase), table in zip(where, owner.tolist(), strict=True):
        models[phase] = FIRST_TABLE + table
    joint = np.zeros((int(owner.max(initial=-1)) + 1, 256), np.int64)
    np.add.at(joint, owner, counts)
    return [(length, tuple(models)) for length, models in chosen], tables.to_levels(joint)


def _recounted(
    data: np.ndarray, chosen: list[tuple[int, Choice]], count: int
) -> tuple[list[tuple[int, Choice]], np.ndarray]:
    """Return the choices with the tables that are still used, numbered by first use, and their levels."""
    joint = np.zeros((count, 256), np.int64)
    start = 0
    for length, choice in chosen:
        for phase, model in enumerate(choice):
            if model >= FIRST_TABLE and phase < length:
                place = slice(start + phase, start + length, len(choice))
                joint[model - FIRST_TABLE] += np.bincount(data[place], minlength=256)
        start += length
    used = dict.fromkeys(model for _, choice in chosen for model in choice if model >= FIRST_TABLE)
    kept = [model for model in used if joint[model - FIRST_TABLE].any()]
    number = {model: FIRST_TABLE + index for index, model in enumerate(kept)}
    # A model that coded nothing, at a position that a short segment has no byte for, is called stored.
    renamed = [
        (length, tuple(model if model < FIRST_TABLE else number.get(model, STORED) for model in choice))
        for length, choice in chosen
    ]
    return renamed, tables.to_levels(joint[[model - FIRST_TABLE for model in kept]].reshape(-1, 256))
