"""The near end of a connection to a far device: a program carries bytes, and a ``keeper`` answers at its other end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from haversack.tools.worker import keeper
from haversack.tools.worker.faults import LinkLost
from haversack.tools.worker.log import TailLog

SILENCE_SECONDS = 20.0
"""After so many without a beat the connection counts as lost."""
_NOISE_BYTES = 64 << 10
_STEP_BYTES = 256 << 10
_END_SECONDS = 2.0


@dataclass(frozen=True)
class Carrier:
    """How a device is reached.

    Attributes:
        name: of the device in messages.
        program: name -> argument list that runs Python there on a program of so many bytes of its standard input.
        hints: words of the carrier's messages -> what to do then.
    """

    name: str
    program: Callable[[int], Sequence[str]]
    hints: Mapping[str, str]


@dataclass(frozen=True)
class Parcel:
    """Files that go to a device together: name -> where they are here; names may have folders."""

    files: Mapping[str, Path]

    def listing(self) -> list[list[Any]]:
        """Return [name, bytes, sha256] of each, sorted by name.

        Raises:
            OSError: a file cannot be read.
        """
        return [[name, path.stat().st_size, _digest(path)] for name, path in sorted(self.files.items())]


class Link:
    """An open connection: questions to the keeper, and the stream of one worker's frames; a context manager.

    While it writes it also reads, so that neither end can block the other. It is the worker's ``process.Channel``.

    Args:
        carrier: how the device is reached.
        seconds: until the keeper must have greeted.
        log_bytes: how much of the end of what is printed is kept.

    Raises:
        LinkLost: there is no connection, or no Python at its other end.
    """

    def __init__(self, carrier: Carrier, seconds: float = 30.0, log_bytes: int = 64 << 10) -> None:
        self.carrier = carrier
        self._deadline = 0.0
        self._ending = "there is no connection to a Python there"
        self.code: int | None = None
        self._answers: deque[bytes] = deque()
        self._frames: deque[memoryview] = deque()
        self._printed: deque[bytes] = deque()
        self._log_bytes = log_bytes
        self._unread = bytearray()
        self._ended = self._closed = False
        source = Path(keeper.__file__).read_bytes()
        try:
            self.process = subprocess.Popen(
                list(carrier.program(len(source))),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # so that Ctrl-C reaches us only, and nothing asks on our terminal
            )
        except OSError as error:
            raise LinkLost(f"{carrier.name}: {error.strerror or error}: {error.filename}") from error
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._log = TailLog(self.process.stderr, log_bytes)
        self._writing, self._reading = self.process.stdin.fileno(), self.process.stdout.fileno()
        for descriptor in (self._writing, self._reading):
            os.set_blocking(descriptor, False)
        self._heard = time.monotonic()
        try:
            self._greet(source, seconds)
        except BaseException:
            self.close()
            raise

    def ask(self, question: Mapping[str, Any], seconds: float = 60.0, pieces: Sequence[Path] = ()) -> dict[str, Any]:
        """Ask the keeper, send files behind the question, and return its answer.

        Raises:
            LinkLost: the connection ended, or nothing came in time.
            OSError: the keeper refuses, or a file cannot be read here.
        """
        try:
            self._begin(seconds)
            self._record(keeper.ASK, json.dumps(question).encode())
            for path in pieces:
                with path.open("rb") as stream:
                    while data := stream.read(_STEP_BYTES):
                        self._deadline = time.monotonic() + seconds  # of each step: a file may be large, a line slow
                        self._record(keeper.PIECE, data)
            while not self._answers:
                self._step(None)
        except TimeoutError:
            raise self._lost(f"no answer within {seconds:g} s") from None
        answer: dict[str, Any] = json.loads(self._answers.popleft())
        if not answer.get("ok"):
            message = f"{self.carrier.name}: {answer.get('error')}"
            raise OSError(message)
        return answer

    def place(self, parcel: Parcel) -> str:
        """Make sure that files are on the device, and return their folder there.

        Raises:
            LinkLost: the connection ended.
            OSError: they cannot be read here or kept there.
        """
        listing = parcel.listing()
        found = str(self.ask({"ask": "has", "files": listing})["path"])
        if found:
            return found
        paths = [parcel.files[name] for name, *_ in listing]
        return str(self.ask({"ask": "put", "files": listing}, pieces=paths)["path"])

    def begin(self, seconds: float) -> None:
        """Begin a call; the device is told its limit, so that the worker ends there too when we are gone.

        Raises:
            BrokenPipeError: the worker has ended.
            LinkLost: the connection ended.
        """
        self._begin(seconds)
        self._record(keeper.LIMIT, repr(float(seconds)).encode())

    def end(self) -> None:
        """Tell the device that no call is under way; if it is gone, the next call says so."""
        with contextlib.suppress(BrokenPipeError, LinkLost, TimeoutError):
            self._begin(_END_SECONDS)
            self._record(keeper.LIMIT, b"0")

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of the buffer with the worker's frames; 0 when the worker has ended."""
        while not self._frames:
            if self.code is not None:
                return 0
            self._step(None)
        frame = self._frames[0]
        size = min(len(frame), len(buffer))
        buffer[:size] = frame[:size]
        if size == len(frame):
            self._frames.popleft()
        else:
            self._frames[0] = frame[size:]
        return size

    def write(self, data: memoryview, /) -> int:
        """Send a part of a frame to the worker.

        Raises:
            BrokenPipeError: the worker has ended.
        """
        size = min(len(data), _STEP_BYTES)
        self._record(keeper.DATA, bytes(data[:size]))
        return size

    def printed(self) -> str:
        """Return the end of what the worker printed, or of what the carrier did."""
        return b"".join(self._printed)[-self._log_bytes :].decode("utf-8", "replace") or self._log.text()

    def close(self) -> None:
        """End the connection; the keeper ends with it. Safe to call twice."""
        self._closed = True
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_SECONDS)
        self.kill()
        self.process.wait()
        self._log.close()

    def kill(self) -> None:
        """End the carrier at once."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        """Return the link."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _begin(self, seconds: float) -> None:
        self._heard = time.monotonic()  # nobody listened between two calls
        self._deadline = self._heard + seconds

    def _greet(self, source: bytes, seconds: float) -> None:
        self._begin(seconds)
        self._heard += seconds  # beats begin with the greeting
        rest = memoryview(source)
        noise = bytearray()
        try:
            while rest:
                rest = rest[self._poll(rest) :]
            while keeper.GREETING not in self._unread:
                noise += self._unread[: -len(keeper.GREETING)]
                del self._unread[: -len(keeper.GREETING)]
                if len(noise) > _NOISE_BYTES:
                    raise self._lost("it answers with something else")
                self._poll(None)
        except TimeoutError:
            raise self._lost(f"no answer within {seconds:g} s") from None
        self._heard = time.monotonic()
        self._ending = "the connection ended"
        del self._unread[: self._unread.index(keeper.GREETING) + len(keeper.GREETING)]

    def _record(self, kind: bytes, body: bytes) -> None:
        rest = memoryview(keeper.RECORD.pack(kind, len(body)) + body)
        while rest:
            rest = rest[self._step(rest) :]

    def _step(self, data: memoryview | None) -> int:
        """Write a part of the data, or read; return how many bytes were written.

        Raises:
            LinkLost: the connection ended or fell silent.
            BrokenPipeError: the worker has ended, and data were for it.
            TimeoutError: the deadline is over.
        """
        if self._closed or (data is not None and self.code is not None):
            raise BrokenPipeError
        written = self._poll(data)
        while len(self._unread) >= keeper.RECORD.size:
            kind, length = keeper.RECORD.unpack_from(self._unread)
            if length > keeper.LARGEST:
                raise self._lost("what it sends is no record")
            if len(self._unread) < keeper.RECORD.size + length:
                break
            body = bytes(self._unread[keeper.RECORD.size : keeper.RECORD.size + length])
            del self._unread[: keeper.RECORD.size + length]
            self._take(kind, body)
        return written

    def _take(self, kind: bytes, body: bytes) -> None:
        if kind == keeper.ANSWER:
            self._answers.append(body)
        elif kind == keeper.DATA:
            self._frames.append(memoryview(body))
        elif kind == keeper.LOG:
            self._printed.append(body)
            while sum(map(len, self._printed)) - len(self._printed[0]) > self._log_bytes:
                self._printed.popleft()
        elif kind == keeper.END:
            self.code = int(body)

    def _poll(self, data: memoryview | None) -> int:
        """Wait until something can be read, or written where there are data; do both as far as it goes."""
        if self._ended:
            raise self._lost(self._ending)
        now = time.monotonic()
        until = min(self._deadline, self._heard + SILENCE_SECONDS)
        poll = select.poll()
        poll.register(self._reading, select.POLLIN)
        if data is not None:
            poll.register(self._writing, select.POLLOUT)
        ready = dict(poll.poll(max(0.0, until - now) * 1000))
        if not ready:
            if time.monotonic() >= self._deadline:
                raise TimeoutError
            raise self._lost(f"nothing was heard of it for {SILENCE_SECONDS:g} s")
        if self._reading in ready:
            with contextlib.suppress(BlockingIOError):
                read = os.read(self._reading, keeper.LARGEST)
                self._ended = not read
                self._unread += read
                self._heard = time.monotonic()
        if data is None or self._writing not in ready or self._ended:
            return 0
        with contextlib.suppress(BlockingIOError):
            try:
                return os.write(self._writing, data[:_STEP_BYTES])
            except BrokenPipeError:
                self._ended = True
        return 0

    def _lost(self, cause: str) -> LinkLost:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_SECONDS if self._ended else 0.0)
        said = self._log.finish() if self.process.returncode is not None else self._log.text()
        step = next((step for words, step in self.carrier.hints.items() if words in said), "")
        return LinkLost(f"{self.carrier.name}: {cause}", log=said, next_step=step)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
