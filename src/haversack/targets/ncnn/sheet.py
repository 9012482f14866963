"""The files while they are made: layers in order, their arrays, and a Split wherever a blob is read more than once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from haversack.targets.ncnn.blobs import Array, Form, total
from haversack.targets.ncnn.text import Line, Setting, to_text

HINT = 30
"""The parameter that tells the shapes of a layer's outputs: rank, width, height, channels."""


@dataclass(frozen=True)
class Value:
    """A blob: its name, and its shape without the batch."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def plain(role: str, values: np.ndarray) -> Array:
    """Return an array of float32 values."""
    return Array(role, Form.PLAIN, np.asarray(values, np.float32).reshape(-1))


def sizes(shape: Sequence[int]) -> dict[int, Setting]:
    """Return a shape as parameters: 0 is the width (the last axis), 1 the height, 2 the channels."""
    return dict(enumerate(reversed(shape)))


def hint(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape as the value of the parameter ``HINT``."""
    return (len(shape), *reversed(shape), *[1] * (3 - len(shape)))


@dataclass
class Sheet:
    """Layers and arrays, in the order in which they were added."""

    lines: list[Line] = field(default_factory=list)
    arrays: dict[str, dict[str, Array]] = field(default_factory=dict)
    names: Counter[str] = field(default_factory=Counter)

    def layer(
        self,
        kind: str,
        name: str,
        inputs: Sequence[Value],
        made: Value,
        settings: Mapping[int, Setting] | None = None,
        arrays: Sequence[Array] = (),
    ) -> Value:
        """Add a layer and return what it makes; a name that is taken gets a number."""
        self.names[name] += 1
        if self.names[name] > 1:
            name = f"{name}.{self.names[name] - 1}"
        self.lines.append(Line(kind, name, tuple(one.name for one in inputs), (made.name,), dict(settings or {})))
        self.arrays[name] = {array.role: array for array in arrays}
        return made

    def constant(self, name: str, values: np.ndarray, shape: Sequence[int] | None = None) -> Value:
        """Add a constant of float32 values."""
        shape = tuple(values.shape if shape is None else shape) or (1,)
        return self.layer("MemoryData", name, (), Value(name, shape), sizes(shape), [plain("data", values)])

    def files(self) -> tuple[str, bytes]:
        """Return the .param file and the .bin file.

        Raises:
            ValueError: a name that ncnn does not read.
        """
        readers = Counter(name for line in self.lines for name in line.inputs)
        given: Counter[str] = Counter()

        def taken(name: str) -> str:
            if readers[name] < 2:
                return name
            given[name] += 1
            return f"{name}/{given[name] - 1}"

        lines = []
        for line in self.lines:
            inputs = tuple(taken(name) for name in line.inputs)
            lines.append(Line(line.type, line.name, inputs, line.outputs, line.settings))
            for name in line.outputs:
                if readers[name] > 1:
                    copies = tuple(f"{name}/{number}" for number in range(readers[name]))
                    lines.append(Line("Split", f"{name}/split", (name,), copies))
                    self.arrays[f"{name}/split"] = {}
        return to_text(lines), b"".join(total(lines, self.arrays))
