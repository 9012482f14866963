"""What a person gives a model: arrays in a file, a picture, or either on standard input."""

from __future__ import annotations

import io
import lzma
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from haversack.base.errors import EnvironmentFault, Refused, UsageError
from haversack.base.model import Port
from haversack.run.session import words

LARGEST = 1 << 30
"""Bytes of a file, and of all arrays in it together."""
_KINDS = ".npy, .npz, .png or .jpg"
_UNREAD = (
    *(ValueError, TypeError, EOFError, OSError, MemoryError, LookupError, ArithmeticError, RuntimeError, SyntaxError),
    *(AttributeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)
"""What NumPy, zipfile and Pillow raise for damaged files: a header of .npy is Python's source, and is tokenized."""
_FEWER, _SMALLER = "give fewer rows at once", "make the picture smaller"
_SAVE = "write it with numpy.save or numpy.savez"
_MARKS = {"npy": b"\x93NUMPY", "npz": b"PK\x03\x04", "png": b"\x89PNG", "jpg": b"\xff\xd8"}


def read(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        UsageError: there is none, or it has more than ``LARGEST``.
        EnvironmentFault: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except FileNotFoundError as error:
        raise UsageError("there is no such file", where=str(path), next_step=f"name a file: {_KINDS}") from error
    except OSError as error:
        step = f"name a file that may be read: {_KINDS}"
        raise EnvironmentFault(error.strerror or str(error), where=str(path), next_step=step) from error
    return data


def arrays(
    data: bytes, ports: Sequence[Port], *, raw: Mapping[str, tuple[int, ...]] | None = None, where: str
) -> dict[str, np.ndarray]:
    """Return a model's inputs by name, batch first; where one axis is missing that is the batch, and it is added.

    Args:
        data: of the file: NumPy's, a picture, told apart by how it begins.
        ports: the model's inputs.
        raw: names of those that the bundle preprocesses, which pictures may be, each with the dimensions that it may
            have; none for any.
        where: names the file in errors.

    Raises:
        Refused: it holds a pickle, or unpacks to more than ``LARGEST``.
        UsageError: it is no such file, or its names are not the model's.
        EnvironmentFault: a picture, and Pillow is not installed.
    """
    kind = next((name for name, mark in _MARKS.items() if data.startswith(mark)), "")
    if len(data) > LARGEST:
        raise Refused(f"it has more than {LARGEST} bytes", where=where, next_step=_FEWER)
    if not kind:
        raise UsageError(f"it is no {_KINDS} file", where=where, next_step=f"give {words(ports)} as an .npz, by name")
    if kind == "npz":
        found = _named(_unpacked(data, where), ports, where)
    elif len(ports) > 1:
        raise UsageError(f"the model has {len(ports)} inputs, and the file has one", where=where, next_step=_npz(ports))
    elif kind == "npy":
        found = {ports[0].name: _array(data, where)}
    else:
        if raw is None or ports[0].name not in raw:
            step = "give the array that the model takes, as .npy, or bundle the job with its preprocess"
            raise UsageError("the bundle does not say how pictures are preprocessed", where=where, next_step=step)
        found = {ports[0].name: picture(data, channels=_channels(ports[0]), where=where)}
    ranks = {port.name: (len(port.spec.shape),) for port in ports} | dict(raw or {})
    return {port.name: _batched(found[port.name], ranks[port.name]) for port in ports}


def picture(data: bytes, *, channels: int, where: str) -> np.ndarray:
    """Return a picture as uint8 [1, height, width, channels], turned as its EXIF data say.

    Args:
        data: of a PNG or JPEG file.
        channels: 1 for grey, else 3.
        where: names the file in errors.

    Raises:
        EnvironmentFault: Pillow is not installed.
        UsageError: it cannot be read as a picture.
        Refused: it has so many pixels that Pillow takes it for a bomb.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise EnvironmentFault("reading a picture needs the package pillow", next_step="pip install pillow") from error
    step = "open it elsewhere and save it as .png or .jpg"
    try:
        with (
            _told("it cannot be read as a picture", where, step),
            Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as opened,
        ):
            if opened.width * opened.height > LARGEST // 16:
                raise Refused(f"it has {opened.width} x {opened.height} pixels", where=where, next_step=_SMALLER)
            turned = ImageOps.exif_transpose(opened).convert("L" if channels == 1 else "RGB")
    except Image.DecompressionBombError as error:
        raise Refused(f"it has too many pixels: {error}", where=where, next_step=_SMALLER) from error
    found = np.asarray(turned, np.uint8)
    return found[None, :, :, None] if channels == 1 else found[None]


def _channels(port: Port) -> int:
    """Return 1 where an input [n, 1, h, w] is grey, else 3."""
    shape = port.spec.shape
    return 1 if len(shape) == 4 and 1 in (shape[1], shape[3]) and 3 not in (shape[1], shape[3]) else 3


def _array(data: bytes, where: str) -> np.ndarray:
    with _told("NumPy does not read it", where, _SAVE):
        return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))


def _unpacked(data: bytes, where: str) -> dict[str, np.ndarray]:
    with _told("NumPy does not read it", where, _SAVE):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > LARGEST:
            raise Refused(f"it unpacks to {size} bytes, and {LARGEST} are allowed", where=where, next_step=_FEWER)
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in file.files}


@contextmanager
def _told(cause: str, where: str, step: str) -> Iterator[None]:
    """Tell what a library says of a damaged file in one error, and no warnings beside it or of what it reads.

    Raises:
        Refused: it holds a pickle.
        UsageError: it is damaged otherwise.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except _UNREAD as error:
        if "allow_pickle=False" in str(error):  # what it says of long headers names the word too
            cause, numbers = "it holds Python objects, which would run code when read", "save an array of numbers"
            raise Refused(cause, where=where, next_step=f"{numbers}: numpy.save('input.npy', x)") from error
        why = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"{cause}: {why}", where=where, next_step=step) from error


def _named(found: dict[str, np.ndarray], ports: Sequence[Port], where: str) -> dict[str, np.ndarray]:
    names = [port.name for port in ports]
    if len(names) == 1 and [*found] == ["arr_0"]:
        return {names[0]: found["arr_0"]}
    if {*found} != {*names}:
        has = ", ".join(sorted(found)) or "nothing"
        raise UsageError(f"it has {has}, and the model takes {', '.join(names)}", where=where, next_step=_npz(ports))
    return found


def _npz(ports: Sequence[Port]) -> str:
    told = ", ".join(f"{port.name}=…" for port in ports)
    return f"numpy.savez('input.npz', {told}) and give that"


def _batched(array: np.ndarray, ranks: tuple[int, ...]) -> np.ndarray:
    return array[None] if array.ndim + 1 in ranks and array.ndim not in ranks else array
