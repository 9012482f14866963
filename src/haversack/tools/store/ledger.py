"""The ledger: what was measured or made, by the digest of what it was made from; it survives kill -9 at any moment.

A text file: a first line with the format number, then one line a record, each with its own checksum::

    {"haversack-ledger":1}
    {"check":"<sha256 of the record's text>","record":{"key":"<sha256>","value":{...},"blobs":{...}}}

A record is one append and one fsync. What a kill leaves torn can only be the end of the last line; it is cut off
when the file is opened again. A damaged line in the middle is told and left out: what it held is made again.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from haversack.base import digest
from haversack.base.errors import EnvironmentFault, Fault
from haversack.tools.store import atomic

FORMAT = 1
MAX_LINE_BYTES = 64 << 20
_KEY = re.compile(r"[0-9a-f]{64}")
_HEAD = b'{"check":"'
_BODY = b'","record":'
_DIGEST_CHARS = 64


@dataclass(frozen=True)
class Record:
    """One entry: what was found, and the sha256 of blobs that belong to it, by name."""

    key: str
    value: Mapping[str, Any]
    blobs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Content:
    """What a ledger file holds.

    Attributes:
        records: key -> the last record of this key.
        faults: every damaged line, by ``file:line``.
        whole_bytes: the length of the file up to the end of its last whole line.
    """

    records: Mapping[str, Record]
    faults: tuple[Fault, ...]
    whole_bytes: int


def read(path: Path) -> Content:
    """Read a ledger without locking or changing it; a torn last line does not count. A missing file is empty.

    Raises:
        EnvironmentFault: it cannot be read, or is of a format this version does not know.
    """
    records: dict[str, Record] = {}
    faults: list[Fault] = []
    whole = 0
    with atomic.told(path, "read the ledger"):
        for number, line in enumerate(_lines(path), 1):
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            if number == 1:
                _check_format(line, path)
                continue
            record = _parse(line)
            if record is None:
                faults.append(Fault(f"{path}:{number}", "the line is damaged; what it held is made again"))
            else:
                records[record.key] = record
    return Content(records, tuple(faults), whole)


class Held(EnvironmentFault):
    """Another process has the ledger open for writing; the cause names it."""


class Ledger:
    """A ledger open for writing, by one process at a time; a context manager.

    Args:
        path: the file; created, with its folder, when it is missing.

    Attributes:
        faults: every damaged line found on opening, by ``file:line``.

    Raises:
        Held: another process writes it.
        EnvironmentFault: it cannot be written, or it is of an unknown format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        atomic.make_folder(path.parent)
        self._lock, self._file = _lock(path), -1
        opened = False
        try:
            content = read(path)
            self.faults = content.faults
            self._records = dict(content.records)
            with atomic.told(path, "open the ledger"):
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
                os.ftruncate(self._file, content.whole_bytes)
            if not content.whole_bytes:
                self._append(json.dumps({"haversack-ledger": FORMAT}, separators=(",", ":")).encode() + b"\n")
                with atomic.told(path, "open the ledger"):
                    atomic.sync_folder(path.parent)
            opened = True
        finally:
            if not opened:
                self.close()

    def get(self, key: str) -> Record | None:
        """Return the last record of a key, or None."""
        return self._records.get(key)

    def __len__(self) -> int:
        """Return how many keys have a record."""
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        """Yield the last record of every key."""
        return iter(tuple(self._records.values()))

    def put(self, key: str, value: Mapping[str, Any], blobs: Mapping[str, str] | None = None) -> Record:
        """Append a record; it is on the disk when this returns. A later record of the same key replaces it.

        Args:
            key: a sha256.
            value: JSON-able; NaN and infinities are kept.
            blobs: name -> sha256 of the files that belong to it; put them before the record.

        Raises:
            ValueError: ``key`` or a blob is no sha256, or the record is over 64 MiB.
            TypeError: ``value`` is not JSON-able.
            EnvironmentFault: the disk is full or fails; the ledger then holds what it held before.
        """
        record = Record(key, dict(value), dict(blobs or {}))
        for name in (key, *record.blobs.values()):
            if not _KEY.fullmatch(name):
                raise ValueError(f"not a sha256: {name!r:.80}")
        line = _line(record)
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"a record of {len(line)} bytes is over {MAX_LINE_BYTES}: put its data in a blob")
        self._append(line)
        # Taken from the text, so that this run sees what a later one will read.
        self._records[key] = _parse(line) or record
        return self._records[key]

    def _append(self, line: bytes) -> None:
        with atomic.told(self.path, "append to the ledger"):
            before = os.fstat(self._file).st_size
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[os.write(self._file, rest) :]
                os.fsync(self._file)
            except OSError:
                with suppress(OSError):  # the first error is the one to tell; a torn line is cut off on opening
                    os.ftruncate(self._file, before)
                raise

    def close(self) -> None:
        """Let another process write. Safe to call twice."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    def __enter__(self) -> Self:
        """Return the ledger."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def _lock(path: Path) -> int:
    name = path.with_name(path.name + ".lock")
    with atomic.told(name, "lock the ledger"):
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise Held(
                f"another run (process {holder or 'unknown'}) is writing to this folder",
                where=str(path),
                next_step="wait until it ends, or choose another folder with --out",
            ) from error
        except OSError:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def holder(path: Path) -> str:
    """Return the number of the process that has a ledger open for writing; empty where none has.

    Args:
        path: the ledger; it need not be there.
    """
    try:
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
    except OSError:
        return ""  # a file system without locks tells nothing
    finally:
        os.close(descriptor)
    return ""


def _line(record: Record) -> bytes:
    data = {"key": record.key, "value": record.value, "blobs": record.blobs}
    text = json.dumps(data, separators=(",", ":")).encode()
    return b"%s%s%s%s}\n" % (_HEAD, digest.of_bytes(text).encode(), _BODY, text)


def _parse(line: bytes) -> Record | None:
    start = len(_HEAD) + _DIGEST_CHARS + len(_BODY)
    text = line[start:-2]
    check = digest.of_bytes(text).encode()
    if line != b"%s%s%s%s}\n" % (_HEAD, check, _BODY, text):
        return None
    data = json.loads(text)
    return Record(data["key"], data["value"], data["blobs"])


def _lines(path: Path) -> Iterator[bytes]:
    if not path.exists():
        return
    with path.open("rb") as stream:
        yield from stream


def _check_format(line: bytes, path: Path) -> None:
    try:
        found = json.loads(line)["haversack-ledger"]
    except (ValueError, KeyError, TypeError) as error:
        raise EnvironmentFault(
            "it is not a ledger", where=f"{path}:1", next_step=f"mv {path} {path}.old    (then repeat the same command)"
        ) from error
    if found not in (FORMAT, FORMAT - 1):
        raise EnvironmentFault(
            f"a ledger of format {found!r}, which this version does not read ({FORMAT - 1} or {FORMAT})",
            where=str(path),
            next_step=f"mv {path} {path}.old    (then repeat the same command)",
        )
