"""The segmented form of a download: runs of bytes, each entropy-coded with a table, packed or stored.

The plan (levels of the tables, then the directory of segments) comes first, then what Zstandard packed, what is stored,
the states of the rANS lanes and their words. Bytes of one model's kind follow each other in the order of the runs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from haversack.base.errors import Refused
from haversack.tools.codec import models, plan, rans, tables, zstd
from haversack.tools.codec.plan import FIRST_TABLE, PACKED, STORED, Run

SIZES = struct.Struct("<HHIIIQ")
"""Tables, lanes, segments, bytes of the directory, bytes of the plan's frame, bytes of the packed frame."""

_PATIENCE = 1 << 23


def pack(content: bytes) -> bytes:
    """Return a file's body in this form.

    Raises:
        MissingExtra: the package zstandard is not installed.
    """
    data = np.frombuffer(content, np.uint8)
    cut, levels = models.fit(content)
    runs = [run for segment in cut for run in segment]
    directory = plan.write(cut)
    planned = zstd.compress(levels.tobytes() + directory, zstd.BEST)
    matched = _gathered(data, [run for run in runs if run.model == PACKED]).tobytes()
    packed = zstd.compress(matched, zstd.BEST if len(matched) <= _PATIENCE else zstd.DEEP)
    stored = _gathered(data, [run for run in runs if run.model == STORED]).tobytes()
    coded = [run for run in runs if run.model >= FIRST_TABLE]
    symbols = _gathered(data, coded)
    lanes, stream = 0, b""
    if symbols.size:
        lanes = rans.lanes_for(symbols.size)
        states, words = rans.encode(symbols, _models(coded), tables.to_frequencies(levels), lanes)
        stream = states.astype("<u4").tobytes() + words.astype("<u2").tobytes()
    head = SIZES.pack(len(levels), lanes, len(cut), len(directory), len(planned), len(packed))
    return b"".join([head, planned, packed, stored, stream])


def unpack(body: bytes, size: int, offset: int) -> bytes:
    """Return the file of a body.

    Args:
        body: what ``pack`` returned.
        size: the file's bytes.
        offset: where the body begins in what was received, for messages.

    Raises:
        Refused: the body is malformed; says what and where.
        MissingExtra: the package zstandard is not installed.
    """
    with _refused(offset, "sizes"):
        count, lanes, entries, directory, planned, packed = _sizes(body)
    at = SIZES.size
    with _refused(offset + at, "plan"):
        content = zstd.decompress(body[at : at + planned], 256 * count + directory)
        levels = np.frombuffer(content, np.uint8, 256 * count).reshape(count, 256)
        frequencies = tables.to_frequencies(levels)
        runs = plan.read(content[256 * count :], entries, size, count)
    at += planned
    data = np.empty(size, np.uint8)
    matched = [run for run in runs if run.model == PACKED]
    with _refused(offset + at, "packed bytes"):
        _scatter(data, matched, zstd.decompress(body[at : at + packed], sum(map(len, matched))))
    at += packed
    plain = [run for run in runs if run.model == STORED]
    end = at + sum(map(len, plain))
    with _refused(offset + at, "stored bytes"):
        _scatter(data, plain, body[at:end])
    coded = [run for run in runs if run.model >= FIRST_TABLE]
    with _refused(offset + end, "states and words"):
        _scatter(data, coded, _decoded(body[end:], lanes, coded, frequencies))
    return data.tobytes()


def _gathered(data: np.ndarray, runs: list[Run]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.uint8), *(data[run.place] for run in runs)])


def _models(runs: list[Run]) -> np.ndarray:
    """Return the table of each byte of coded runs: uint16 [bytes]."""
    each = np.array([run.model - FIRST_TABLE for run in runs], np.uint16)
    return np.repeat(each, [len(run) for run in runs])


def _scatter(data: np.ndarray, runs: list[Run], content: bytes | np.ndarray) -> None:
    given = np.frombuffer(content, np.uint8)
    if given.size != sum(map(len, runs)):
        message = f"{given.size} bytes are there of {sum(map(len, runs))}"
        raise ValueError(message)
    at = 0
    for run in runs:
        data[run.place] = given[at : at + len(run)]
        at += len(run)


def _sizes(body: bytes) -> tuple[int, int, int, int, int, int]:
    if len(body) < SIZES.size:
        message = f"{SIZES.size} bytes of sizes end after {len(body)}"
        raise ValueError(message)
    sizes = SIZES.unpack_from(body)
    count, lanes, entries, directory, planned, packed = sizes
    if count > plan.MOST_TABLES or lanes > rans.MOST_LANES or entries > plan.MOST_SEGMENTS:
        message = f"{count} tables, {lanes} lanes and {entries} segments are too many"
        raise ValueError(message)
    if directory > entries * plan.MOST_ENTRY:
        message = f"{directory} bytes of directory are too many for {entries} segments"
        raise ValueError(message)
    if planned + packed + 4 * lanes > len(body) - SIZES.size:
        message = f"the sizes say more than the {len(body)} bytes that are there"
        raise ValueError(message)
    return sizes


def _decoded(stream: bytes, lanes: int, runs: list[Run], frequencies: np.ndarray) -> np.ndarray:
    """Return the symbols of coded runs, uint8 [bytes], from states and words."""
    if not runs or not lanes:
        if runs or lanes or stream:
            message = f"{len(runs)} coded runs have {lanes} lanes in {len(stream)} bytes"
            raise ValueError(message)
        return np.zeros(0, np.uint8)
    if len(stream) < 4 * lanes or len(stream) % 2:
        message = f"{len(stream)} bytes are no {lanes} states and whole words"
        raise ValueError(message)
    if sum(map(len, runs)) > lanes * rans.MOST_OF_LANE:
        message = f"{sum(map(len, runs))} coded bytes are too many for {lanes} lanes"
        raise ValueError(message)
    states = np.frombuffer(stream, "<u4", lanes)
    return rans.decode(states, np.frombuffer(stream, "<u2", offset=4 * lanes), _models(runs), frequencies)


@contextmanager
def _refused(at: int, what: str) -> Iterator[None]:
    """Tell what is malformed as a refusal with its place."""
    try:
        yield
    except ValueError as error:
        raise Refused(str(error), where=f"byte {at} ({what})") from error
