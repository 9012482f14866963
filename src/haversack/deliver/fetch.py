"""A file fetched by its size and sha256, in ranges: what has come survives kill -9, and no byte too many is written."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from haversack.base.errors import EnvironmentFault, Refused
from haversack.base.progress import Event, Sink, silent
from haversack.deliver.home import GOES_ON
from haversack.deliver.patience import Bounds, Patience
from haversack.deliver.transport import Answer, Broken, NoSuchRange, opened
from haversack.tools.store import atomic

PART, TAG = ".part", ".tag"
_TELL_SECONDS = 0.25
_LONGEST_TAG = 256
_WRONG = f"{GOES_ON}repeat later, and tell the publisher if it stays so"
_BOUNDS = Bounds()


@dataclass(frozen=True)
class Wanted:
    """A file somewhere else.

    Attributes:
        url: where.
        bytes, sha256: of its content.
        label: what a person calls it.
    """

    url: str
    bytes: int
    sha256: str
    label: str = "fetch"


@dataclass(frozen=True)
class Fetched:
    """What it took.

    Attributes:
        path: the file with what has come, in full where ``most`` was not given.
        bytes: that travelled now.
        wait_seconds: until the first of them.
        seconds: from then on.
    """

    path: Path
    bytes: int
    wait_seconds: float
    seconds: float


def fetch(
    wanted: Wanted, folder: Path, bounds: Bounds = _BOUNDS, sink: Sink = silent, *, most: int | None = None
) -> Fetched:
    """Fetch a file into ``folder`` as ``SHA256.part``, and go on from what an earlier call left there.

    Args:
        wanted: which.
        folder: where to; of one process at a time.
        bounds: what it may cost.
        sink: told how many bytes have come.
        most: stop after so many bytes that travelled now: a probe. The part is neither checked nor complete then.

    Raises:
        Refused: it has more bytes than it should, or another sha256; nothing of it is kept.
        TooSlow: the deadline is over or too few bytes came; what came is kept.
        EnvironmentFault: it is not there or has another size, or the network or the disk failed; what came is kept.
    """
    where = folder / f"{wanted.sha256}{PART}"
    patience = Patience(bounds, wanted.url)
    with atomic.told(where, "fetch a file", atomic.HOME), _Part.held(wanted, where, patience, sink) as part:
        fresh = part.length == 0
        _fill(wanted, part, patience, most)
        if part.length < wanted.bytes:
            return part.fetched()
        if not part.right() and not fresh:
            part.restart()  # what an earlier call left may be of another file, or a disk lost some of it
            _fill(wanted, part, patience, None)
        if not part.right():
            part.discard()
            cause = "what was fetched has another sha256 than the release says"
            raise Refused(cause, where=wanted.url, next_step=_WRONG)
        part.sync()
        return part.fetched()


def _fill(wanted: Wanted, part: _Part, patience: Patience, most: int | None) -> None:
    """Ask until all bytes have come, or so many; give up after too many attempts without a new one."""
    furthest, idle = part.length, 0
    while part.length < wanted.bytes and (most is None or part.travelled < most):
        try:
            with opened(wanted.url, patience, start=part.length, tag=part.tag) as answer:
                part.take(answer, most)
        except Broken as error:
            if isinstance(error, NoSuchRange):
                part.restart()
            idle = 0 if part.length > furthest else idle + 1
            if idle >= patience.bounds.attempts:
                step = "repeat the same command: it goes on from where it was"
                raise EnvironmentFault(error.cause, where=wanted.url, next_step=step) from error
            patience.pause(idle or 1)
        furthest = max(furthest, part.length)


class _Part:
    """The file with what has come, the hash of it, and the tag of what it is a part of."""

    def __init__(self, wanted: Wanted, path: Path, stream: io.FileIO, patience: Patience, sink: Sink) -> None:
        self.wanted, self.path, self.patience, self.sink = wanted, path, patience, sink
        self.stream = stream
        self.travelled = self.length = 0
        self._first, self._told = 0.0, -_TELL_SECONDS
        self._state = hashlib.sha256()
        self._tag_path = path.with_suffix(TAG)
        self.tag = _read_tag(self._tag_path)
        if os.fstat(stream.fileno()).st_size > wanted.bytes:
            stream.truncate(0)
        while piece := stream.read(1 << 20):
            self._state.update(piece)
            self.length += len(piece)

    @classmethod
    @contextlib.contextmanager
    def held(cls, wanted: Wanted, path: Path, patience: Patience, sink: Sink) -> Iterator[_Part]:
        """Open it, made if need be."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with io.FileIO(descriptor, "r+") as stream:
            yield cls(wanted, path, stream, patience, sink)

    def take(self, answer: Answer, most: int | None) -> None:
        """Add what a server sends; sizes are compared before a byte is written."""
        size = self.wanted.bytes
        if answer.total is not None and answer.total != size:
            kind = Refused if answer.total > size else EnvironmentFault
            cause = f"the server says {answer.total} bytes, and the release {size}"
            raise kind(cause, where=self.wanted.url, next_step=_WRONG)
        if answer.start and answer.tag != self.tag:
            raise NoSuchRange("the file changed on the server while it was fetched", where=self.wanted.url)
        if answer.start != self.length:
            self.restart()
        if answer.tag != self.tag:
            atomic.write_text(self._tag_path, answer.tag, atomic.HOME)
            self.tag = answer.tag
        for piece in answer.chunks:
            self._first = self._first or self.patience.spent
            if self.length + len(piece) > size:
                self.discard()
                raise Refused(f"more than {size} bytes came", where=self.wanted.url, next_step=_WRONG)
            self._add(piece)
            if most is not None and self.travelled >= most:
                return
        if self.length < size:
            raise Broken(f"it broke off after {self.length} of {size} bytes", where=self.wanted.url)

    def _add(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            rest = rest[self.stream.write(rest) :]
        self._state.update(piece)
        self.length += len(piece)
        self.travelled += len(piece)
        spent, size = self.patience.spent, self.wanted.bytes
        if self.length < size and spent - self._told < _TELL_SECONDS:
            return
        self._told = spent
        rate = self.travelled / max(spent, 1e-9)
        data = {"bytes_per_second": rate, "seconds_left": (size - self.length) / rate}
        self.sink(Event("deliver", "progress", self.wanted.label, self.length, size, data))

    def right(self) -> bool:
        """Say whether all of it is what was wanted."""
        return self._state.hexdigest() == self.wanted.sha256

    def restart(self) -> None:
        """Begin again with nothing."""
        self.stream.seek(0)
        self.stream.truncate(0)
        self.length, self._state = 0, hashlib.sha256()

    def discard(self) -> None:
        """Remove it."""
        self.restart()
        self.path.unlink(missing_ok=True)
        self._tag_path.unlink(missing_ok=True)

    def sync(self) -> None:
        """Let it survive a loss of power."""
        os.fsync(self.stream.fileno())

    def fetched(self) -> Fetched:
        """Return what it took."""
        wait = self._first or self.patience.spent
        return Fetched(self.path, self.travelled, wait, self.patience.spent - wait)


def _read_tag(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_LONGEST_TAG).decode("ascii", "replace")
    except FileNotFoundError:
        return ""
