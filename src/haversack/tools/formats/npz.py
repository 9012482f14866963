"""Arrays in an .npz file, read within bounds: nothing is unpacked, no pickle is read, no header is believed.

Only what ``numpy.savez`` writes of plain numbers is taken: members that are stored, not compressed, so that no file
unpacks to more than it holds; arrays of numbers in little-endian C order (https://numpy.org/neps/nep-0001-npy-format).
"""

from __future__ import annotations

import io
import math
import re
import zipfile

import numpy as np

from haversack.base.errors import Refused

_ENDING = ".npy"
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '(?P<kind>[|<>]?[a-zA-Z]?[0-9]{0,3})', 'fortran_order': (?P<order>True|False), "
    rb"'shape': \((?P<shape>|[0-9]{1,18},|[0-9]{1,18}(?:, [0-9]{1,18})+)\), \} *\n"
)
"""The one text that NumPy writes; no other is evaluated."""
_KINDS = frozenset(b"|b1 |i1 |u1 <i2 <u2 <f2 <i4 <u4 <f4 <i8 <u8 <f8".split())
_MOST_AXES = 32


def arrays(data: bytes, *, where: str) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name, any shape, of plain numbers.

    Args:
        data: the whole file.
        where: names the file in errors.

    Raises:
        Refused: it holds a pickle, says that it holds more than it has bytes, or is packed.
        ValueError: it is no such file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            size = sum(member.file_size for member in members)
            if size > len(data):
                raise Refused(f"it unpacks to {size} bytes, and has {len(data)}", where=where)
            content = {member.filename: archive.read(member) for member in members if _stored(member, where)}
    except (zipfile.BadZipFile, EOFError, OSError, OverflowError, RuntimeError) as error:
        raise ValueError(f"it is no zip archive: {error}") from error
    if len(content) != len(members):
        raise ValueError("a name stands there twice")
    strange = [name for name in content if not name.endswith(_ENDING)]
    if strange:
        raise ValueError(f"{strange[0]!r} is no array")
    return {name.removesuffix(_ENDING): _array(member, name, where) for name, member in content.items()}


def _stored(member: zipfile.ZipInfo, where: str) -> bool:
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 or member.file_size != member.compress_size:
        raise Refused(f"{member.filename!r} is packed", where=where)
    return True


def _array(content: bytes, name: str, where: str) -> np.ndarray:
    start = 10 + int.from_bytes(content[8:10], "little")
    header = _HEADER.fullmatch(content[10:start])
    if content[:8] != _MAGIC or header is None:
        raise ValueError(f"{name!r} has no header of an array as NumPy writes it")
    if header["kind"].endswith(b"O"):
        raise Refused(f"{name!r} holds a pickle, which would run code when read", where=where)
    if header["kind"] not in _KINDS or header["order"] != b"False":
        raise ValueError(f"{name!r} does not hold plain numbers in little-endian C order")
    dtype = np.dtype(header["kind"].decode())
    shape = tuple(int(size) for size in header["shape"].replace(b" ", b"").split(b",") if size)
    if len(shape) > _MOST_AXES or math.prod(shape) * dtype.itemsize != len(content) - start:
        raise ValueError(f"{name!r}: {len(content) - start} bytes are not those of {dtype} {str(shape)[:80]}")
    return np.frombuffer(content, dtype, offset=start).reshape(shape).copy()
