"""The segmented form of a download: runs of bytes, each entropy-coded with a table, packed or stored.

The plan (levels of the tables, then the directory of segments) comes first, then what Zstandard packed, what is stored,
the states of the rANS lanes and their words. Bytes of one model's kind follow each other in the order of the file's
segments. Products, from version 2 on, have none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from haversack.base.errors import Refused
from haversack.base.stored import Stored
from haversack.tools.codec import models, plan, product, rans, tables, zstd
from haversack.tools.codec.plan import PACKED, STORED, Grid, Product, Run

SIZES = struct.Struct("<HHIIIQ")
"""Tables, lanes, segments, bytes of the directory, bytes of the plan's frame, bytes of the packed frame."""

_PATIENCE = 1 << 23
_AT_ONCE = 1 << 20

Coded = list[Run | Grid]


def pack(content: bytes, tensors: Iterable[Stored] = ()) -> bytes:
    """Return a file's body in this form; with tensors, of version 2.

    Args:
        content: the file.
        tensors: where it keeps tensors: hints, for fewer bytes.
    """
    data = np.frombuffer(content, np.uint8)
    cut, levels = models.fit(content, tensors)
    entries = [entry for segment in cut for entry in (segment if isinstance(segment, tuple) else (segment,))]
    directory = plan.write(cut)
    planned = zstd.compress_parts([levels.tobytes(), *directory], zstd.BEST)
    matched = _gathered(data, [each.place for each in _of_model(entries, PACKED)]).tobytes()
    packed = zstd.compress(matched, zstd.BEST if len(matched) <= _PATIENCE else zstd.DEEP)
    stored = _gathered(data, [each.place for each in _of_model(entries, STORED)]).tobytes()
    pieces = [piece for each in _coded(entries) for piece in each.pieces(_AT_ONCE)]
    symbols = _gathered(data, [place for place, _ in pieces])
    lanes, stream = 0, b""
    if symbols.size:
        lanes = rans.lanes_for(symbols.size)
        each = np.concatenate([numbers for _, numbers in pieces])
        states, words = rans.encode(symbols, each, tables.to_frequencies(levels), lanes)
        stream = states.astype("<u4").tobytes() + words.astype("<u2").tobytes()
    head = SIZES.pack(len(levels), lanes, len(cut), sum(map(len, directory)), len(planned), len(packed))
    return b"".join([head, planned, packed, stored, stream])


def unpack(body: bytes | memoryview, size: int, offset: int, version: int = 1) -> bytes:
    """Return the file of a body.

    Args:
        body: what ``pack`` returned.
        size: the file's bytes.
        offset: where the body begins in what was received, for messages.
        version: of the form.

    Raises:
        Refused: the body is malformed; says what and where.
    """
    with _refused(offset, "sizes"):
        count, lanes, segments, directory, planned, packed = _sizes(body, size, version)
    at = SIZES.size
    with _refused(offset + at, "plan"):
        content = zstd.decompress(body[at : at + planned], 256 * count + directory)
        levels = np.frombuffer(content, np.uint8, 256 * count).reshape(count, 256)
        frequencies = tables.to_frequencies(levels)
        entries = plan.read(content[256 * count :], segments, size, count, version)
    data = np.empty(size, np.uint8)
    at += planned
    matched = _of_model(entries, PACKED)
    with _refused(offset + at, "packed bytes"):
        _scatter(data, matched, zstd.decompress(body[at : at + packed], sum(map(len, matched))))
    at += packed
    plain = _of_model(entries, STORED)
    end = at + sum(map(len, plain))
    with _refused(offset + at, "stored bytes"):
        _scatter(data, plain, body[at:end])
    with _refused(offset + end, "states and words"):
        _decode(data, _coded(entries), body[end:], lanes, frequencies)
    with _refused(offset + SIZES.size, "products"):
        _multiply(data, [each for each in entries if isinstance(each, Product)])
    return data.tobytes()


def _of_model(entries: Iterable[Run | Grid | Product], model: int) -> list[Run]:
    return [each for each in entries if isinstance(each, Run) and each.model == model]


def _coded(entries: Iterable[Run | Grid | Product]) -> Coded:
    return [each for each in entries if isinstance(each, Run | Grid) and each.coded]


def _gathered(data: np.ndarray, places: list[slice]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.uint8), *(data[place] for place in places)])


def _scatter(data: np.ndarray, runs: list[Run], content: bytes | memoryview) -> None:
    given = np.frombuffer(content, np.uint8)
    if given.size != sum(map(len, runs)):
        message = f"{given.size} bytes are there of {sum(map(len, runs))}"
        raise ValueError(message)
    _spread(data, [run.place for run in runs], given)


def _spread(data: np.ndarray, places: list[slice], content: np.ndarray) -> None:
    at = 0
    for place in places:
        there = data[place]
        there[:] = content[at : at + len(there)]
        at += len(there)


def _decode(data: np.ndarray, coded: Coded, stream: bytes | memoryview, lanes: int, frequencies: np.ndarray) -> None:
    """Put the symbols of coded runs and grids in their places, from states and words."""
    if not coded or not lanes:
        if coded or lanes or stream:
            message = f"{len(coded)} coded runs have {lanes} lanes in {len(stream)} bytes"
            raise ValueError(message)
        return
    if len(stream) < 4 * lanes or len(stream) % 2:
        message = f"{len(stream)} bytes are no {lanes} states and whole words"
        raise ValueError(message)
    if sum(map(len, coded)) > lanes * rans.MOST_OF_LANE:
        message = f"{sum(map(len, coded))} coded bytes are too many for {lanes} lanes"
        raise ValueError(message)
    words = np.frombuffer(stream, "<u2", offset=4 * lanes)
    decoder = rans.Decoder(np.frombuffer(stream, "<u4", lanes), words, frequencies)
    for places, numbers in _batches(coded):
        _spread(data, places, decoder.take(numbers))
    decoder.finish()


def _batches(coded: Coded) -> Iterator[tuple[list[slice], np.ndarray]]:
    """Yield places and the tables of their bytes, uint8 [bytes], so many together that a call is worth it."""
    places: list[slice] = []
    numbers: list[np.ndarray] = []
    count = 0
    for each in coded:
        for place, tables_there in each.pieces(_AT_ONCE):
            places.append(place)
            numbers.append(tables_there)
            count += len(tables_there)
            if count >= _AT_ONCE:
                yield places, np.concatenate(numbers)
                places, numbers, count = [], [], 0
    if places:
        yield places, np.concatenate(numbers)


def _multiply(data: np.ndarray, products: list[Product]) -> None:
    for each in products:
        words = data[each.source : each.source + len(each)].copy().view("<u4").astype(np.uint32)
        data[each.start : each.stop] = product.multiply(words, each.factor).astype("<u4").view(np.uint8)


def _sizes(body: bytes | memoryview, size: int, version: int) -> tuple[int, int, int, int, int, int]:
    if len(body) < SIZES.size:
        message = f"{SIZES.size} bytes of sizes end after {len(body)}"
        raise ValueError(message)
    sizes = SIZES.unpack_from(body)
    count, lanes, entries, directory, planned, packed = sizes
    if count > plan.MOST_TABLES or lanes > rans.MOST_LANES or entries > plan.MOST_SEGMENTS:
        message = f"{count} tables, {lanes} lanes and {entries} segments are too many"
        raise ValueError(message)
    if directory > plan.most_bytes(entries, size, version):
        message = f"{directory} bytes of directory are too many for {entries} segments"
        raise ValueError(message)
    if planned + packed + 4 * lanes > len(body) - SIZES.size:
        message = f"the sizes say more than the {len(body)} bytes that are there"
        raise ValueError(message)
    return sizes


@contextmanager
def _refused(at: int, what: str) -> Iterator[None]:
    """Tell what is malformed as a refusal with its place."""
    try:
        yield
    except ValueError as error:
        raise Refused(str(error), where=f"byte {at} ({what})") from error
