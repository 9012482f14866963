"""The plan of a segmented download: where each run of bytes lies in the file, and which model codes it.

A segment is so many bytes and a stride of 1, 2 or 4; its runs are the bytes at each position modulo the stride. A run
is stored, packed with Zstandard, or coded with one of the tables. Segments follow each other without gaps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

STORED, PACKED, FIRST_TABLE = 0, 1, 2
"""Models of a run; from FIRST_TABLE on they are tables."""

STRIDES = frozenset({1, 2, 4})
MOST_SEGMENTS = 1 << 16
MOST_TABLES = 256
MOST_ENTRY = 9 + 1 + 4 * 2
"""The most bytes that a segment's entry takes."""

_SIZE_BITS = 63


@dataclass(frozen=True)
class Run:
    """The bytes ``start``, ``start + stride`` … below ``stop`` of a file, and their model."""

    start: int
    stop: int
    stride: int
    model: int

    def __len__(self) -> int:
        return len(range(self.start, self.stop, self.stride))

    @property
    def place(self) -> slice:
        """Return where its bytes are."""
        return slice(self.start, self.stop, self.stride)


def write(segments: Iterable[tuple[Run, ...]]) -> bytes:
    """Return the directory of segments, each given as its runs."""
    parts = []
    for runs in segments:
        parts += [_number(runs[0].stop - runs[0].start), bytes([len(runs)])]
        parts += [_number(run.model) for run in runs]
    return b"".join(parts)


def read(directory: bytes, segments: int, size: int, tables: int) -> list[Run]:
    """Return the runs of a directory, in order.

    Args:
        directory: what ``write`` returned.
        segments: how many it has.
        size: the file's bytes, which the segments must add up to.
        tables: how many tables there are.

    Raises:
        ValueError: it ends early or late, a number is not written in the shortest way, a stride or a model is unknown,
            or the segments have another size together.
    """
    runs: list[Run] = []
    at = start = 0
    for _ in range(segments):
        length, at = _read_number(directory, at)
        if not 0 < length <= size - start:
            message = f"a segment at byte {start} of {size} has {length} bytes"
            raise ValueError(message)
        stride, at = _read_number(directory, at)
        if stride not in STRIDES:
            message = f"a segment has a stride of {stride}"
            raise ValueError(message)
        for phase in range(stride):
            model, at = _read_number(directory, at)
            if model >= FIRST_TABLE + tables:
                message = f"a run has model {model}, and there are {tables} tables"
                raise ValueError(message)
            runs.append(Run(start + phase, start + length, stride, model))
        start += length
    if start != size or at != len(directory):
        message = f"{segments} segments have {start} bytes in {at} bytes of directory, not {size} in {len(directory)}"
        raise ValueError(message)
    return runs


def _number(value: int) -> bytes:
    """Return a number in groups of seven bits, lowest first, the top bit set on all but the last (LEB128)."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _read_number(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, _SIZE_BITS, 7):
        if at >= len(data):
            raise ValueError("the directory ends within an entry")
        group = data[at]
        at += 1
        value |= (group & 0x7F) << shift
        if group < 0x80:
            if not group and shift:
                raise ValueError("a number is longer than it must be")
            return value, at
    raise ValueError("a number has more than 63 bits")
