"""The .param file: one line a layer, as ncnn's parser takes it, written exactly and read with bounds.

The form is that of ncnn's wiki page «param and model file structure»: a magic number, counts of layers and blobs, then
``type name inputs outputs blobs… id=value…``, where an array has the id -23300 - id and begins with its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from haversack.base.errors import VerificationError

MAGIC = 7767517
LONGEST = 255
"""Characters of a name: ncnn reads no more."""
LARGEST = 32 << 20
"""Bytes of a .param file that is read at all."""
_MOST = 100_000
_ARRAY = -23300
_IDS = 32
_NAME = re.compile(r"\S{1,255}")

Number = int | float
Setting = Number | tuple[Number, ...]


class Malformed(ValueError):
    """A line is not as ncnn's parser takes it; the message tells which."""


@dataclass(frozen=True)
class Line:
    """One layer of the file.

    Attributes:
        type: ncnn's name of the operator.
        name: the layer's.
        inputs, outputs: names of blobs.
        settings: number of a parameter -> its value.
    """

    type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: dict[int, Setting] = field(default_factory=dict)

    def whole(self, number: int, default: int = 0) -> int:
        """Return a setting that is one whole number.

        Raises:
            Malformed: it is something else.
        """
        found = self.settings.get(number, default)
        if not isinstance(found, int):
            raise Malformed(f"{self.name}: parameter {number} is no whole number")
        return found


def to_text(lines: Sequence[Line]) -> str:
    """Return the file of these layers, in this order.

    Raises:
        ValueError: a name has spaces, is empty or longer than ncnn reads.
    """
    blobs = {name for line in lines for name in line.outputs}
    text = [str(MAGIC), f"{len(lines)} {len(blobs)}"]
    for line in lines:
        names = (line.name, *line.inputs, *line.outputs)
        if wrong := [name for name in names if not _NAME.fullmatch(name)]:
            message = f"{wrong[0]!r} is no name in ncnn: 1 to {LONGEST} characters without spaces"
            raise ValueError(message)
        counts = (line.type, line.name, str(len(line.inputs)), str(len(line.outputs)))
        settings = [_setting(number, value) for number, value in sorted(line.settings.items())]
        text.append(" ".join([*counts, *line.inputs, *line.outputs, *settings]))
    return "\n".join(text) + "\n"


def _setting(number: int, value: Setting) -> str:
    if isinstance(value, tuple):
        return f"{_ARRAY - number}=" + ",".join([str(len(value)), *map(_number, value)])
    return f"{number}={_number(value)}"


def _number(value: Number) -> str:
    """Return a number as text: nine digits tell a float32 exactly; a point or exponent tells ncnn that it is one."""
    if isinstance(value, int):
        return str(value)
    text = f"{value:.9g}"
    return text if "." in text or "e" in text else f"{text}.0"


def parse(data: bytes, where: str) -> tuple[Line, ...]:
    """Return the layers of a file.

    Args:
        data: the file.
        where: its path, for errors.

    Raises:
        VerificationError: it is no .param file, or its blobs do not flow from line to line.
    """
    try:
        lines = tuple(_lines(data))
        _check_flow(lines)
    except (ValueError, OverflowError) as error:
        raise VerificationError(
            f"it is no ncnn .param file: {error}", where=where, next_step="lower the model again"
        ) from error
    return lines


def _lines(data: bytes) -> Iterator[Line]:
    if len(data) > LARGEST:
        raise Malformed(f"{len(data)} bytes are more than {LARGEST}")
    text = data.decode("utf-8").splitlines()
    if len(text) < 2 or text[0].strip() != str(MAGIC):
        raise Malformed("it does not begin with ncnn's number")
    counts = [int(word) for word in text[1].split()]
    if len(counts) != 2 or not 0 < counts[0] <= _MOST or counts[0] != len(text) - 2:
        raise Malformed(f"it tells {text[1][:40]!r} layers and blobs and has {len(text) - 2} lines")
    blobs = 0
    for number, line in enumerate(text[2:], 3):
        found = _line(line, number)
        blobs += len(found.outputs)
        yield found
    if blobs != counts[1]:
        raise Malformed(f"it tells {counts[1]} blobs and has {blobs}")


def _line(text: str, number: int) -> Line:
    words = text.split()
    if len(words) < 4 or not (words[2].isdecimal() and words[3].isdecimal()):
        raise Malformed(f"line {number} is no layer")
    inputs, outputs = int(words[2]), int(words[3])
    names = words[4 : 4 + inputs + outputs]
    if len(names) != inputs + outputs or any(len(name) > LONGEST for name in (words[1], *names)):
        raise Malformed(f"line {number}: {inputs} inputs and {outputs} outputs are not there")
    settings: dict[int, Setting] = {}
    for word in words[4 + inputs + outputs :]:
        key, _, value = word.partition("=")
        identity = int(key)
        place = _ARRAY - identity if identity <= _ARRAY else identity
        if not 0 <= place < _IDS or place in settings:
            raise Malformed(f"line {number}: no parameter {key}")
        settings[place] = _array(value, number) if identity <= _ARRAY else _parsed(value)
    return Line(words[0], words[1], tuple(names[:inputs]), tuple(names[inputs:]), settings)


def _array(text: str, number: int) -> tuple[Number, ...]:
    count, *values = text.split(",")
    if not count.isdecimal() or int(count) != len(values):
        raise Malformed(f"line {number}: an array tells {count} values and has {len(values)}")
    return tuple(map(_parsed, values))


def _parsed(text: str) -> Number:
    if "." in text or "e" in text:
        return float(text)
    found = int(text)
    if not -(1 << 31) <= found < 1 << 31:
        raise Malformed(f"{text} is no int32")
    return found


def _check_flow(lines: Sequence[Line]) -> None:
    made: set[str] = set()
    read: set[str] = set()
    for line in lines:
        if missing := [name for name in line.inputs if name not in made]:
            raise Malformed(f"{line.name} reads {missing[0]}, which no layer before it gives")
        if twice := [name for name in line.outputs if name in made]:
            raise Malformed(f"{twice[0]} is given twice")
        if again := [name for name in line.inputs if name in read]:
            raise Malformed(f"{again[0]} is read twice without a Split")
        made.update(line.outputs)
        read.update(line.inputs)
