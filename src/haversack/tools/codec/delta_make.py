"""Making a delta: what is alike is joined, residuals get tables and classes, and all is put into blocks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from haversack.base.stored import Stored
from haversack.tools.codec import (
    delta,
    delta_classes,
    delta_match,
    delta_plan,
    delta_tilt,
    delta_words,
    rans,
    tables,
    zstd,
)
from haversack.tools.codec.delta_classes import Alphabet, Field
from haversack.tools.codec.delta_match import Link
from haversack.tools.codec.delta_plan import (
    COPIED,
    FIRST_KIND,
    MOST_SYMBOLS,
    MOST_WRITTEN,
    NEGATED,
    PRODUCT,
    WRITTEN,
    Block,
    Segment,
)
from haversack.tools.codec.delta_words import BYTES, FLOAT32, KINDS, NIBBLES, ONE

_PIECE = 1 << 18
_SOURCES = 256
"""So many kept segments back a product is looked for."""
_APART = 1e-5
"""So far from one number, in parts, may the factors of a product's words be."""
_EQUAL, _CUTS = 64, 1 << 14
"""So many equal bytes end a segment, or more where a file would have more than so many cuts: what tells of a segment
takes a few bytes, and a plan has room for some hundred thousand."""
_FEW = 1000
"""Where not one byte in so many changed, rows and columns have no classes: telling them would take more."""
_LANE = 1 << 14
"""So many symbols are worth a lane, which costs four bytes."""
_WIDE = -1
"""Stands for all kinds of words that are wider than a byte."""


@dataclass
class _Draft:
    """A segment, and what is coded of it.

    Attributes:
        segment: as it stands in the plan; table and columns are set last.
        data: the bytes that are written out.
        field: symbols and classes.
        rest, bits: behind each symbol.
    """

    segment: Segment
    data: bytes = b""
    field: Field | None = None
    rest: np.ndarray | None = None
    bits: np.ndarray | None = None


def make(old: bytes, new: bytes, old_tensors: Sequence[Stored] = (), new_tensors: Sequence[Stored] = ()) -> bytes:
    """Return a delta from which ``delta.apply`` makes the new file.

    Args:
        old, new: the files.
        old_tensors, new_tensors: where their tensors are (tools/formats); hints, right or wrong.

    Raises:
        MissingExtra: the package zstandard or bsdiff4 is not installed.
    """
    before, after = np.frombuffer(old, np.uint8), np.frombuffer(new, np.uint8)
    links = delta_match.links(old, new, old_tensors, new_tensors)
    found = delta_match.merged(_plain(before, after, link) for link in links)
    kept = delta.Kept()
    equal = max(_EQUAL, len(new) // _CUTS)
    drafts = _joined(draft for link in found for draft in _drafts(before, after, link, kept, equal))
    levels = _tables(drafts)
    frequencies = tables.to_frequencies(levels)
    parts, blocks, classes = [], [], []
    for group in _grouped(drafts):
        block, content = _coded(group, frequencies)
        blocks.append(block)
        parts.append(content)
        classes += [one for draft in group if draft.field is not None for one in _classes(draft)]
    plan = delta_plan.write(levels, blocks)
    told = b"".join(classes)
    frames = [zstd.compress(plan, zstd.BEST), zstd.compress(told, zstd.BEST)]
    sizes = (len(plan), len(frames[0])), (len(told), len(frames[1]))
    digests = hashlib.sha256(old).digest(), hashlib.sha256(new).digest()
    head = delta.Header(len(old), len(new), *digests, *sizes)
    return b"".join([head.packed(), *frames, *parts])


def _plain(old: np.ndarray, new: np.ndarray, link: Link) -> Link:
    """Return a link without its kind of words where nothing changed, and without its columns where hardly anything.

    The former may be one with its neighbours.
    """
    if link.old < 0:
        return link
    changed = np.count_nonzero(old[link.old : link.old + link.length] != new[link.new : link.new + link.length])
    if not changed:
        return replace(link, kind=BYTES, columns=0)
    return replace(link, columns=0) if changed * _FEW < link.length else link


def _joined(drafts: Iterable[_Draft]) -> list[_Draft]:
    """Return segments with those joined that are copied from places that follow each other, or written out."""
    kept: list[_Draft] = []
    for one in drafts:
        mine, last = one.segment, kept[-1].segment if kept else None
        if last is not None and mine.how == last.how == COPIED and mine.old == last.old + last.length:
            kept[-1] = _Draft(replace(last, length=last.length + mine.length))
        elif last is not None and mine.how == last.how == WRITTEN and last.length + mine.length <= MOST_WRITTEN:
            kept[-1] = _Draft(replace(last, length=last.length + mine.length), kept[-1].data + one.data)
        else:
            kept.append(one)
    return kept


def _drafts(old: np.ndarray, new: np.ndarray, link: Link, kept: delta.Kept, most: int) -> Iterator[_Draft]:
    """Yield the segments of a link, which so many equal bytes end."""
    after = new[link.new : link.new + link.length]
    if link.old < 0:
        for low in range(0, link.length, MOST_WRITTEN):
            piece = after[low : low + MOST_WRITTEN].tobytes()
            yield _Draft(Segment(WRITTEN, len(piece)), piece)
        return
    before = old[link.old : link.old + link.length]
    if np.array_equal(before, after):
        yield _Draft(Segment(COPIED, link.length, link.old))
        return
    if link.columns or link.kind != BYTES:
        yield from _residuals(before, after, link, kept)
        return
    for start, end, equal in delta_match.same(before, after, most):
        if equal:
            yield _Draft(Segment(COPIED, end - start, link.old + start))
        else:
            yield from _residuals(before[start:end], after[start:end], replace(link, old=link.old + start), kept)


def _residuals(before: np.ndarray, after: np.ndarray, link: Link, kept: delta.Kept) -> Iterator[_Draft]:
    kind = KINDS[link.kind]
    product = _product(before, after, kept) if link.kind == FLOAT32 and link.length <= _PIECE else None
    if product is not None:
        yield product
        kept.add(after)
        return
    factor = _factor(before, after, link.kind) if kind.scaled else ONE
    found = delta_words.residual(before, after, kind, factor)
    columns = link.columns if 0 < link.columns <= _PIECE else 0
    piece = _PIECE // columns * columns if columns else _PIECE
    for low in range(0, len(found), piece):
        some = found[low : low + piece]
        symbols, rest, bits = (some, None, None) if kind.single else delta_words.split(some)
        segment = Segment(FIRST_KIND + link.kind, len(some) * kind.width, link.old + low * kind.width, factor=factor)
        width = columns if 0 < columns < len(some) else 0
        field = Field.of(symbols, width)
        if width and link.kind == BYTES:
            field = _tilted(field, *(data[low : low + len(some)] for data in (before, after)))
        yield _Draft(segment, b"", field, rest, bits)
        if segment.floats:
            kept.add(after[low * kind.width :][: segment.length])


def _tilted(field: Field, before: np.ndarray, after: np.ndarray) -> Field:
    """Return the field of bytes with the tilts of its rows, if any has one."""
    tilts = delta_tilt.fit(before, after, field.columns)
    if not tilts.any():
        return field
    predicted, degrees, negated = delta_tilt.lean(before, tilts, field.columns)
    symbols = after - predicted
    return replace(field, symbols=np.where(negated, -symbols, symbols), tilts=tilts, degrees=degrees)


def _product(before: np.ndarray, after: np.ndarray, kept: delta.Kept) -> _Draft | None:
    """Return a segment that is a kept one times a number, where that leaves less than the old words do.

    Scales of biases are those of weights times the input's: where these changed, those follow.
    """
    kind, best, least = KINDS[FLOAT32], None, _bits(before, after, FLOAT32, _factor(before, after, FLOAT32)) - 64
    new = np.frombuffer(after.tobytes(), "<f4").astype(np.float64)
    for back in range(1, min(len(kept.data), _SOURCES) + 1):
        content = kept.data[-back]
        if len(content) != len(after):
            continue
        source = np.frombuffer(content.tobytes(), "<f4").astype(np.float64)
        if not (np.isfinite(source).all() and np.isfinite(new).all() and source.all()):
            continue
        ratio = float(np.median(new / source))
        mantissa, power = math.frexp(ratio)
        if ratio <= 0 or abs(power) > delta_plan.MOST_POWER or np.abs(new / source - ratio).max() > ratio * _APART:
            continue
        factor = min(round(mantissa * 2 * ONE), 2 * ONE - 1)
        found = delta_words.residual(content, after, kind, factor, power - 1)
        symbols, rest, bits = delta_words.split(found)
        cost = _cost(symbols, rest)
        if cost < least:
            segment = Segment(PRODUCT, len(after), factor=factor, source=back, power=power - 1)
            best, least = _Draft(segment, b"", Field.of(symbols, 0), rest, bits), cost
    return best


def _factor(before: np.ndarray, after: np.ndarray, kind: int) -> int:
    """Return the factor of predictions that leaves the smallest residuals: 1, or what the words have in common."""
    dtype = "<i4" if kind == delta_words.INT32 else "<f4"
    one, two = (np.frombuffer(data.tobytes(), dtype).astype(np.float64) for data in (before, after))
    fit = np.isfinite(one) & np.isfinite(two) & (one != 0)
    if not fit.any():
        return ONE
    size = np.abs(one[fit])
    ratios = (two[fit] / one[fit])[size >= np.quantile(size, 0.75)]
    best, least = ONE, _bits(before, after, kind, ONE)
    factor = round(float(np.median(ratios)) * ONE) if np.isfinite(ratios).all() else ONE
    if delta_words.LEAST_FACTOR <= factor <= delta_words.MOST_FACTOR:
        bits = _bits(before, after, kind, factor) + 40
        best = factor if bits < least else best
    return best


def _bits(before: np.ndarray, after: np.ndarray, kind: int, factor: int) -> int:
    symbols, rest, _ = delta_words.split(delta_words.residual(before, after, KINDS[kind], factor))
    return _cost(symbols, rest)


def _cost(symbols: np.ndarray, rest: np.ndarray) -> int:
    """Return about how many bits residuals take."""
    loud = int((symbols >= delta_words.PLAIN).sum())
    return int(rest.sum()) + 3 * loud + int((symbols > 0).sum())


def _tables(drafts: Sequence[_Draft]) -> np.ndarray:
    """Set the classes of all segments, and return the levels of all tables; a ladder for each kind of symbols."""
    found, first = [np.zeros((0, 256), np.uint8)], 0
    for group in (BYTES, NIBBLES, _WIDE):
        mine = [one for one in drafts if one.field is not None and _group(one.segment) == group]
        fields = [one.field for one in mine if one.field is not None]
        levels = delta_classes.ladder(fields, _alphabet(group))
        for one, field in zip(mine, fields, strict=True):
            if field.classed:
                # Where the ladder has fewer tables than that, no word goes from one degree to the next.
                reach = min(field.reach, len(levels))
                one.segment = replace(one.segment, table=first, columns=field.columns, reach=reach)
            else:
                one.segment = replace(one.segment, table=first + int(field.rows[0]) + int(field.across[0]))
        found.append(levels)
        first += len(levels)
    return np.concatenate(found)


def _group(segment: Segment) -> int:
    return segment.how - FIRST_KIND if segment.kind.single else _WIDE


def _alphabet(group: int) -> Alphabet:
    """Return what symbols stand for: the change; of two halves the sum of both; its bits where words are wide."""
    symbols = np.arange(256)
    if group == BYTES:
        return Alphabet(symbols.astype(np.uint8).view(np.int8).astype(np.int64), 12, leans=delta_tilt.DEGREES)
    if group == NIBBLES:
        halves = [np.minimum(half, 16 - half) for half in (symbols & 15, symbols >> 4)]
        return Alphabet(np.asarray(halves[0] + halves[1]), 14)
    return Alphabet(symbols, 24)


def _grouped(drafts: Sequence[_Draft]) -> Iterator[list[_Draft]]:
    """Yield the segments of each block."""
    group: list[_Draft] = []
    symbols = written = 0
    for one in drafts:
        symbols, written = symbols + one.segment.words, written + len(one.data)
        if group and (symbols > MOST_SYMBOLS or written > MOST_WRITTEN):
            yield group
            group, symbols, written = [], one.segment.words, len(one.data)
        group.append(one)
    if group:
        yield group


def _coded(group: Sequence[_Draft], frequencies: np.ndarray) -> tuple[Block, bytes]:
    """Return a block and its bytes."""
    written = b"".join(one.data for one in group)
    packed = zstd.compress(written, zstd.BEST)
    coded = [one for one in group if one.field is not None and one.segment.words]
    wide = [(one.rest, one.bits) for one in coded if one.rest is not None and one.bits is not None]
    bits = b""
    if wide:
        bits = delta_words.pack_bits(np.concatenate([one[0] for one in wide]), np.concatenate([one[1] for one in wide]))
    stream, lanes, count = b"", 0, 0
    if coded:
        fields = [one.field for one in coded if one.field is not None]
        symbols = np.concatenate([field.coded() for field in fields])
        models = np.concatenate([_models(one) for one in coded])
        told = rans.certain(models, frequencies)[1]
        symbols, models = symbols[~told], models[~told]
        if symbols.size:
            lanes = min(max(len(symbols) // _LANE, 1), rans.MOST_LANES)
            states, words = rans.encode(symbols, models, frequencies, lanes)
            stream, count = states.astype("<u4").tobytes() + words.astype("<u2").tobytes(), len(words)
    segments = tuple(one.segment for one in group)
    return Block(segments, len(written), len(packed), len(bits), lanes, count), packed + bits + stream


def _models(one: _Draft) -> np.ndarray:
    field, segment = one.field, one.segment
    assert field is not None
    return field.models() + segment.table if segment.columns else np.full(segment.words, segment.table)


def _classes(one: _Draft) -> list[bytes]:
    field = one.field
    if field is None or not one.segment.columns:
        return []
    rows = field.rows + NEGATED * field.flipped
    tilts = [] if field.tilts is None else [delta_tilt.write(field.tilts)]
    return [rows.astype(np.uint8).tobytes(), field.across.astype(np.uint8).tobytes(), *tilts]
