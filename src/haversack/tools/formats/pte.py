"""Where the tensors of a .pte file are: constants of the program, and those of its XNNPACK graphs, with their scales.

Slots are those of ExecuTorch's program.fbs and of XNNPACK's schema.fbs. Constants that stand under a digest as name are
named for the first value that reads them, ``method/delegate/value``: a digest changes with every number.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from haversack.base.errors import Refused
from haversack.base.stored import Stored
from haversack.tools.formats.flat import Spoiled, Table, root
from haversack.tools.formats.placed import MOST_TENSORS, placed, stored

IDENTIFIER, GRAPH = b"ET12", b"XN01"
_NAMED = (1 << 64) - 1
_TENSOR, _PER_CHANNEL, _PER_GROUP = 1, 1, 4
_DTYPES = {1: "float32", 2: "float16", 3: "int8", 4: "uint8", 5: "int32", 6: "int8", 7: "int32", 8: "int4"}
_DTYPES |= {9: "int8", 10: "int4", 11: "int8", 12: "int32", 13: "float32", 14: "bfloat16"}
_SCALARS = {0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64"}
_SCALARS |= {11: "uint8", 12: "int8", 13: "uint8", 15: "bfloat16"}
_TENSOR_VALUE = 5
_HEADER = 30

Span = tuple[int, int]
"""Where bytes begin in the file, and where they end."""


@dataclass(frozen=True)
class _File:
    """The parts of a file that hold bytes.

    Attributes:
        view: all of it.
        program: its root table.
        segments: where they are.
        named: key -> segment.
    """

    view: memoryview
    program: Table
    segments: tuple[Span, ...]
    named: dict[str, Span]

    def segment(self, number: int) -> Span:
        """Return where a segment is; nowhere if there is none."""
        return self.segments[number] if number < len(self.segments) else (0, 0)


def matches(data: bytes | memoryview) -> bool:
    """Say whether bytes begin as such a file does."""
    return bytes(data[4:8]) == IDENTIFIER


def index(data: bytes | memoryview) -> tuple[Stored, ...]:
    """Return where the tensors are, in the order of the file.

    Raises:
        Refused: an offset or a length leads out of the file.
    """
    view = memoryview(data)
    try:
        program = root(view, IDENTIFIER)
        base = int.from_bytes(view[24:32], "little") if bytes(view[8:12]) == b"eh00" else 0
        segments = []
        for one in program.tables(4):
            start = base + one.integer(0, "Q")
            segments.append((start, min(start + one.integer(1, "Q"), len(view))))
        file = _File(view, program, tuple(segments), {})
        for entry in program.tables(7):
            file.named[entry.text(0)] = file.segment(entry.integer(1))
        return placed(_tensors(file), len(view))
    except Spoiled as error:
        raise Refused(str(error), where=".pte") from error


def _tensors(file: _File) -> Iterator[Stored]:
    seen: set[int] = set()
    inline = [one.span(0, 1) for one in file.program.tables(3)]
    constants = _constants(file)
    taken: set[int] = set()
    for plan in file.program.tables(1):
        if plan.at in seen:
            continue
        seen.add(plan.at)
        method = plan.text(0)
        yield from _program_tensors(plan, method, constants, seen)
        for number, delegate in enumerate(plan.tables(7)):
            reference = delegate.table(1)
            if reference is None or delegate.at in seen:
                continue
            seen.add(delegate.at)
            at = reference.integer(1)
            start, end = (0, 0) if reference.integer(0, "b") == 0 else file.segment(at)
            if not end and at < len(inline):
                start, end = inline[at][0], sum(inline[at])
            if start not in taken and start < end:
                taken.add(start)
                yield from _delegate(file, start, end, f"{method}/{number}")
    for key, (start, end) in file.named.items():  # what no value of a graph reads
        yield stored(key, start, end - start, "uint8", ())


def _constants(file: _File) -> list[Span]:
    """Return where the program's constants begin, and where the next one does."""
    segment = file.program.table(5)
    if segment is None:
        return [(start, start + count) for start, count in (one.span(0, 1) for one in file.program.tables(2))]
    start, end = file.segment(segment.integer(0))
    offsets = [start + offset for offset in segment.numbers(1, "Q")]
    border = sorted({*offsets, end})
    after = dict(itertools.pairwise(border))
    return [(offset, min(after.get(offset, offset), end)) for offset in offsets]


def _program_tensors(plan: Table, method: str, constants: list[Span], seen: set[int]) -> Iterator[Stored]:
    for number, value in enumerate(plan.tables(2)):
        tensor = value.table(1) if value.integer(0, "B") == _TENSOR_VALUE else None
        if tensor is None or tensor.at in seen:
            continue
        seen.add(tensor.at)
        if len(seen) > MOST_TENSORS:
            raise Spoiled(f"more than {MOST_TENSORS} tensors")
        at, dtype = tensor.integer(4), _SCALARS.get(tensor.integer(0, "b"), "uint8")
        shape = tensor.numbers(2, "i")
        if 0 < at < len(constants):
            start, end = constants[at]
            yield stored(f"{method}/{number}", start, _whole(end - start, dtype, shape), dtype, shape)


def _whole(length: int, dtype: str, shape: tuple[int, ...]) -> int:
    """Return the bytes of a constant without the padding behind it."""
    width = Stored("", 0, 0, dtype).width
    count = 1
    for axis in shape:
        count = min(count * max(axis, 0), length)
    return min(count * width, length // width * width)


def _delegate(file: _File, start: int, end: int, name: str) -> Iterator[Stored]:
    blob = file.view[start:end]
    if bytes(blob[4:8]) != b"XH00" or len(blob) < _HEADER:
        return
    at, size, constants = (int.from_bytes(blob[place : place + 4], "little") for place in (10, 14, 18))
    if bytes(blob[at + 4 : at + 8]) != GRAPH:
        return
    graph = root(blob[at : at + size], GRAPH, file.program.budget)
    data: list[Span] = []
    for entry in graph.tables(8):
        offset = entry.integer(0, "Q")
        where = file.named.get(entry.text(2), (0, 0)) if offset == _NAMED else (start + constants + offset, 0)
        data.append(where if where[1] else (where[0], where[0] + entry.integer(1, "Q")))
    seen: set[int] = set()
    for number, value in enumerate(graph.tables(2)):
        inner = value.table(1)
        if inner is not None and inner.at not in seen:
            seen.add(inner.at)
            yield from _value(inner, value.integer(0, "B"), data, f"{name}/{number}", start + at)


def _value(table: Table, kind: int, data: list[Span], name: str, base: int) -> Iterator[Stored]:
    """Yield what a value of a graph reads: its numbers, and its scales, among the constants or in the graph itself."""
    tensor = table if kind == _TENSOR else table.table(0)
    if tensor is None:
        return
    number, dtype = tensor.integer(3), _DTYPES.get(tensor.integer(0, "h"), "uint8")
    if 0 < number < len(data):
        start, end = data[number]
        yield stored(name, start, end - start, dtype, tensor.numbers(2, "I"))
    parameters = table.table(2) if kind != _TENSOR else None
    how = table.integer(1, "B") if kind != _TENSOR else 0
    if parameters is None or how not in (_PER_CHANNEL, _PER_GROUP):
        return
    slot, words = (2, "float32") if how == _PER_CHANNEL else (4, "bfloat16")
    held, count = parameters.span(0, 4)
    if count:
        yield stored(f"{name}/scale", base + held, 4 * count, "float32", ())
    number = parameters.integer(slot)
    if 0 < number < len(data):
        start, end = data[number]
        yield stored(f"{name}/scale", start, end - start, words, ())
