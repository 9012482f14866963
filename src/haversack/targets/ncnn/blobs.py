"""The .bin file: arrays one after another, in the order of the layers, weights behind a word that tells their form.

As ncnn's ``ModelBin`` reads them: every array begins at a multiple of 4 bytes. A *table* is 256 float32 values and one
byte for each weight; ours holds the whole numbers -128 to 127, so that integers are stored in 8 bits for layers that
compute in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np

from haversack.base.errors import VerificationError
from haversack.targets.ncnn.text import Line, Malformed

_TABLE = np.arange(-128, 128).astype("<f4")
_LARGEST = 1 << 31
_ROLES = {
    "Quantize": ("scale",),
    "Scale": ("scale", "bias"),
    "BatchNorm": ("slope", "mean", "variance", "bias"),
    "LayerNorm": ("gamma", "beta"),
}
"""Type of a layer -> its arrays, each of as many values as parameter 0 says."""
_OPTIONAL = {"Scale": (1, 0), "LayerNorm": (2, 1)}
"""Type -> the parameter that says whether it has a bias, or any arrays, and what it is when it is not told."""


class Form(IntEnum):
    """The word before a weight; PLAIN arrays have none."""

    PLAIN = -1
    FLOAT32 = 0
    TABLE = 1
    INT8 = 0x000D4B38
    FLOAT16 = 0x01306B47


@dataclass(frozen=True, eq=False)
class Array:
    """One array: its role in the layer, its form, and its values [n] (int32 for INT8 and TABLE, else float32)."""

    role: str
    form: Form
    values: np.ndarray


def to_bytes(array: Array) -> bytes:
    """Return an array as it stands in the file.

    Raises:
        ValueError: integers leave [-127, 127].
    """
    values = np.ascontiguousarray(array.values).reshape(-1)
    if array.form in (Form.INT8, Form.TABLE) and values.size and int(np.abs(values).max()) > 127:
        raise ValueError("integers of 8 bits are in [-127, 127]")
    if array.form is Form.INT8:
        data = values.astype(np.int8).tobytes()
    elif array.form is Form.TABLE:
        data = _TABLE.tobytes() + (values + 128).astype(np.uint8).tobytes()
    else:
        data = values.astype("<f2" if array.form is Form.FLOAT16 else "<f4").tobytes()
    tag = b"" if array.form is Form.PLAIN else int(array.form).to_bytes(4, "little")
    return tag + data + bytes(-len(data) % 4)


def wanted(line: Line) -> tuple[tuple[str, int], ...]:
    """Return (role, number of values) of the arrays of a layer, in order; the role ``weight`` has a word before it.

    Raises:
        Malformed: a layer whose arrays are not known, or a number that is none.
    """
    if line.type.startswith("Convolution"):
        return _weighted(line, line.whole(6), biased=bool(line.whole(5)))
    if line.type == "InnerProduct":
        return _weighted(line, line.whole(2), biased=bool(line.whole(1)))
    if line.type == "MemoryData":
        return (("data", max(line.whole(0), 1) * max(line.whole(1), 1) * max(line.whole(2), 1)),)
    roles = _ROLES.get(line.type, ())
    if line.type in _OPTIONAL and not line.whole(*_OPTIONAL[line.type]):
        roles = roles[:1] if line.type == "Scale" else ()
    return tuple((role, line.whole(0, 1)) for role in roles)


def _weighted(line: Line, size: int, *, biased: bool) -> tuple[tuple[str, int], ...]:
    count, scales = line.whole(0), line.whole(8)
    found = [("weight", size)]
    found += [("bias", count)] if biased else []
    found += [("weight scale", count), ("input scale", 1)] if scales else []
    found += [("output scale", 1)] if scales > 100 else []
    return tuple(found)


def read(path: Path, lines: Sequence[Line]) -> dict[str, dict[str, Array]]:
    """Return layer name -> role -> array.

    Args:
        path: the .bin file.
        lines: of the .param file beside it.

    Raises:
        VerificationError: the file is shorter or longer than the layers say, or a weight has another form than ours.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    try:
        total = sum(count for line in lines for _, count in wanted(line))
        if size > _LARGEST or total > size:
            raise Malformed(f"{size} bytes for {total} values")
        return _arrays(path.read_bytes(), lines)
    except ValueError as error:
        raise VerificationError(
            f"it is no ncnn .bin file of this .param file: {error}",
            where=str(path),
            next_step="lower the model again",
        ) from error


def _arrays(data: bytes, lines: Sequence[Line]) -> dict[str, dict[str, Array]]:
    found: dict[str, dict[str, Array]] = {}
    start = 0
    for line in lines:
        if line.name in found:
            raise Malformed(f"two layers are named {line.name}")
        found[line.name] = {}
        for role, count in wanted(line):
            if count < 1:
                raise Malformed(f"{line.name}: {count} values")
            array, start = _array(data, start, role, count)
            found[line.name][role] = array
    if start != len(data):
        raise Malformed(f"{len(data) - start} bytes are left over")
    return found


def _array(data: bytes, start: int, role: str, count: int) -> tuple[Array, int]:
    form = Form.PLAIN
    if role == "weight":
        form = Form(int.from_bytes(data[start : start + 4], "little"))
        start += 4
    if form is Form.TABLE:
        if data[start : start + _TABLE.nbytes] != _TABLE.tobytes():
            raise Malformed("a table is not the one that we write")
        start += _TABLE.nbytes
    kind = {Form.INT8: "<i1", Form.TABLE: "<u1", Form.FLOAT16: "<f2"}.get(form, "<f4")
    end = start + count * np.dtype(kind).itemsize
    if end > len(data):
        raise Malformed(f"it ends after {len(data)} bytes")
    values = np.frombuffer(data[start:end], kind)
    after = end + -end % 4
    if any(data[end:after]):
        raise Malformed(f"bytes that are not 0 after {count} values")
    if form in (Form.INT8, Form.TABLE):
        values = values.astype(np.int32) - (128 if form is Form.TABLE else 0)
    return Array(role, form, values.astype(np.float32) if form is Form.FLOAT16 else values), after


def total(lines: Sequence[Line], arrays: dict[str, dict[str, Array]]) -> Iterator[bytes]:
    """Yield the file's bytes, array by array."""
    for line in lines:
        for role, _ in wanted(line):
            yield to_bytes(arrays[line.name][role])
