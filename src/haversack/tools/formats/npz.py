"""Arrays in an .npz file, read within bounds: nothing is unpacked, no pickle is read, no header is believed.

Only what ``numpy.savez`` writes of plain numbers is taken: members that are stored, not compressed, so that no file
unpacks to more than it holds; arrays of numbers in little-endian C order (https://numpy.org/neps/nep-0001-npy-format).
"""

from __future__ import annotations

import io
import math
import zipfile

import numpy as np

from haversack.base.errors import Refused

_ENDING = ".npy"
_LONGEST_HEADER = 10_000
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
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
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
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"version {version}")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=_LONGEST_HEADER)
    except (ValueError, EOFError, RecursionError, TypeError) as error:
        raise ValueError(f"{name!r} has no header of an array: {error}") from error
    if dtype.hasobject:
        raise Refused(f"{name!r} holds a pickle, which would run code when read", where=where)
    rest = content[stream.tell() :]
    if dtype.kind not in "biuf" or dtype.byteorder == ">" or fortran or dtype.itemsize > 8:
        raise ValueError(f"{name!r} holds {dtype}, not plain numbers in little-endian C order")
    if len(shape) > _MOST_AXES or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(rest):
        raise ValueError(f"{name!r}: {len(rest)} bytes are not those of {dtype} {str(shape)[:80]}")
    return np.frombuffer(rest, dtype).reshape(shape).copy()
