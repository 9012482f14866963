"""``haversack delta``: from one model file to the next by what changed. No torch."""

from __future__ import annotations

import mmap
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from haversack.base.errors import Refused, UsageError
from haversack.tools.codec import bsdiff, delta, delta_make
from haversack.tools.formats.index import hints
from haversack.tools.store import atomic

Codec = Literal["hvd1", "bsdiff", "auto"]
LARGEST = 4 << 30
"""Bytes that a file which a delta yields may have, unless more are allowed."""


@dataclass(frozen=True)
class Made:
    """A delta that was made.

    Attributes:
        path: its file.
        codec: its form.
        old_bytes, new_bytes: of both files.
        sizes: bytes by codec, of each that was tried.
    """

    path: Path
    codec: str
    old_bytes: int
    new_bytes: int
    sizes: dict[str, int]

    @property
    def bytes(self) -> int:
        """Of the delta."""
        return self.sizes[self.codec]

    @property
    def ratio(self) -> float:
        """Its bytes against those of the new file; 0 where that is empty."""
        return self.bytes / self.new_bytes if self.new_bytes else 0.0

    def lines(self) -> list[str]:
        """Return what to say of it."""
        others = [f"{name} takes {size:,} bytes" for name, size in self.sizes.items() if name != self.codec]
        lines = [
            f"{self.path}: {self.bytes:,} bytes ({self.codec}), {self.ratio:.1%} of the new file's {self.new_bytes:,}"
            + "".join(f"; {other}" for other in others)
        ]
        if self.bytes >= self.new_bytes:
            lines.append("the new file itself is smaller: the two have too little in common for a delta")
        return lines

    def data(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        names = ("codec", "old_bytes", "new_bytes", "bytes", "ratio", "sizes")
        return {"path": str(self.path), **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True)
class Applied:
    """A file that a delta yielded: its path, how many bytes it has, its sha256, and the delta's codec."""

    path: Path
    bytes: int
    sha256: str
    codec: str

    def lines(self) -> list[str]:
        """Return what to say of it."""
        return [f"{self.path}: {self.bytes:,} bytes, sha256 {self.sha256} ({self.codec})"]

    def data(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return {"path": str(self.path), "bytes": self.bytes, "sha256": self.sha256, "codec": self.codec}


def make(old: bytes, new: bytes, codec: Codec = "auto") -> dict[str, bytes]:
    """Return the deltas of a codec by its name; for ``auto`` those of both, the smaller one first.

    What the files hold is read as far as their format is known; a malformed file is taken as plain bytes.

    Args:
        old, new: the files.
        codec: which one.

    Raises:
        MissingExtra: the package zstandard or bsdiff4 is not installed.
    """
    found = {}
    if codec in {"hvd1", "auto"}:
        found["hvd1"] = delta_make.make(old, new, hints(old), hints(new))
    if codec in {"bsdiff", "auto"}:
        found["bsdiff"] = delta.wrapped(old, new, bsdiff.make(old, new))
    return dict(sorted(found.items(), key=lambda pair: len(pair[1])))


def smallest(old: bytes, new: bytes) -> tuple[Literal["hvd1", "bsdiff"], bytes]:
    """Return the codec and the bytes of the smaller delta for ``publish``; a patch is bare: a release says the rest.

    Raises:
        MissingExtra: as ``make``.
    """
    found: dict[Literal["hvd1", "bsdiff"], bytes] = {
        "hvd1": make(old, new, "hvd1")["hvd1"],
        "bsdiff": bsdiff.make(old, new),
    }
    codec = min(found, key=lambda name: len(found[name]))
    return codec, found[codec]


def make_file(old: Path, new: Path, out: Path, codec: Codec = "auto") -> Made:
    """Write the delta of two files; the smaller one for ``auto``.

    Args:
        old, new: the files.
        out: the delta's file; a delta that is there is replaced, anything else is not.
        codec: its form.

    Raises:
        UsageError: a file is missing, or ``out`` is a file that is no delta.
        EnvironmentFault: a file cannot be read or written.
        MissingExtra: as ``make``.
    """
    if out.is_dir():
        raise _folder(out)
    if out.exists() and not _is_delta(out):
        raise UsageError("it is there, and is no delta that could be replaced", where=str(out), next_step=_ELSEWHERE)
    before, after = _read(old), _read(new)
    found = make(before, after, codec)
    name, content = next(iter(found.items()))
    atomic.write_bytes(out, content)
    return Made(out, name, len(before), len(after), {one: len(data) for one, data in found.items()})


def apply_file(old: Path, patch: Path, new: Path, *, limit: int = LARGEST) -> Applied:
    """Write the file that a delta yields, whole and checked or not at all.

    Args:
        old: the file that the delta was made for; it is mapped, not read into memory.
        patch: the delta.
        new: where the new file goes, if nothing is there.
        limit: the most bytes that it may have.

    Raises:
        UsageError: a file is missing, or ``new`` is there.
        Refused: the delta was made for another file, is malformed, or yields another file than it says.
        EnvironmentFault: a file cannot be read or written.
    """
    if not _is_delta(patch) and (strange := next((path for path in (old, new) if _is_delta(path)), None)):
        cause = "it is the delta, which stands between the old file and the new one"
        rest = [path for path in (old, patch, new) if path != strange]
        typed = shlex.join(["haversack", "delta", "apply", str(rest[0]), str(strange), str(rest[1])])
        raise UsageError(cause, where=str(strange), next_step=typed)
    if new.is_dir():
        raise _folder(new)
    if new.exists():
        raise UsageError("it is there, and is not replaced", where=str(new), next_step=_ELSEWHERE)
    with _mapped(old) as before, _mapped(patch) as content:
        try:
            told = delta.header(content)
            with atomic.replacing(new, _ELSEWHERE) as stream:
                delta.apply_to(before, content, stream.write, limit=limit)
        except Refused as error:
            if error.where == "the old file":
                raise Refused(error.cause, where=str(old), next_step=_OTHER) from error
            raise Refused(error.cause, where=f"{patch}: {error.where}", next_step=_ANEW) from error
    return Applied(new, told.new_bytes, told.new_sha256.hex(), told.codec)


_ELSEWHERE = "give another name, or remove it first"
_OTHER = "give the file that the delta was made for, the old one, as the first"
_ANEW = "fetch it again, or make it anew: haversack delta make OLD NEW PATCH"


def _folder(path: Path) -> UsageError:
    return UsageError("it is a folder, not a file", where=str(path), next_step="name a file, such as one in it")


def _is_delta(path: Path) -> bool:
    if not path.is_file():
        return False
    with atomic.told(path, "read the file"), path.open("rb") as stream:
        return stream.read(len(delta.MAGIC)) == delta.MAGIC


def _read(path: Path) -> bytes:
    with _mapped(path) as view:
        return bytes(view)


@contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    """Yield a file as a view that is read where it is looked at."""
    if path.is_dir():
        raise _folder(path)
    if not path.is_file():
        step = "name the files in this order: haversack delta make OLD NEW PATCH, haversack delta apply OLD PATCH NEW"
        raise UsageError("there is no such file", where=str(path), next_step=step)
    with atomic.told(path, "read the file"), path.open("rb") as stream:
        if not path.stat().st_size:
            yield memoryview(b"")
            return
        # It is unmapped when nobody holds it any more: arrays of an error's traceback may hold it for a while.
        yield memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
