"""The parent's side of a worker: start, call with a limit, kill, close."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from haversack.tools.worker.faults import WorkerCrashed, WorkerError, WorkerTimeout
from haversack.tools.worker.log import TailLog
from haversack.tools.worker.protocol import VERSION, BadFrame, Frame, encode, read_frame, send

_CLOSE_SECONDS = 2.0
_PIPE_BYTES = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What a worker may use.

    Attributes:
        call_seconds: wall-clock seconds of one call that states no limit of its own.
        start_seconds: wall-clock seconds until the first answer, imports included.
        address_space: bytes of virtual memory, or None; beyond it allocations fail inside the child.
        cpu_seconds: processor seconds of the whole process, or None; beyond them the kernel kills it.
        log_bytes: how much of the end of its output is kept.
    """

    call_seconds: float = 600.0
    start_seconds: float = 120.0
    address_space: int | None = None
    cpu_seconds: int | None = None
    log_bytes: int = 64 << 10


DEFAULT_LIMITS = Limits()


class Channel(Protocol):
    """What carries a worker's frames; reading and writing raise ``TimeoutError`` when the exchange takes too long."""

    def begin(self, seconds: float) -> None:
        """Begin an exchange that may take so long."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of the buffer; return the number of bytes, 0 at the end."""

    def write(self, data: memoryview, /) -> int:
        """Write a part of the data; return the number of bytes."""

    def close(self) -> None:
        """Close both directions. Safe to call twice."""


class Log(Protocol):
    """What a worker printed."""

    def text(self) -> str:
        """Return the end of it so far."""

    def finish(self) -> str:
        """Wait a moment for the end of it, and return it."""

    def close(self) -> None:
        """Let go of it."""


class Worker:
    """A child process that answers calls one at a time; use it as a context manager.

    Its stdout and stderr go to a bounded log: runtimes print. It dies with its parent. Calls from several threads wait
    for each other; ``kill`` may come from any thread and makes the call in progress raise ``WorkerCrashed``.
    """

    def __init__(
        self, entry: str, env: Mapping[str, str], limits: Limits, folders: Sequence[Path], python: Sequence[str]
    ) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._number = 0
        reading, reply_end = os.pipe()
        request_end, writing = os.pipe()
        self._pipe: Channel = _Pipe(reading, writing)
        limited = {"address_space": limits.address_space, "cpu_seconds": limits.cpu_seconds}
        command = [*(python or (sys.executable,)), "-X", "faulthandler", "-m", "haversack.tools.worker.serve"]
        try:
            self._process = subprocess.Popen(
                [*command, entry, str(request_end), str(reply_end), json.dumps(limited)],
                pass_fds=(request_end, reply_end),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=_environment(env, folders),
                start_new_session=True,  # so that Ctrl-C reaches us only, and a kill reaches its children
            )
        except OSError:
            self._pipe.close()
            raise
        finally:
            os.close(request_end)
            os.close(reply_end)
        self._log: Log = TailLog(self._process.stdout, limits.log_bytes)

    @classmethod
    def start(
        cls,
        entry: str,
        *,
        env: Mapping[str, str] | None = None,
        limits: Limits = DEFAULT_LIMITS,
        folders: Sequence[Path] = (),
        python: Sequence[str] = (),
    ) -> Self:
        """Start a worker and shake hands.

        Args:
            entry: ``module:factory``, imported by the child; see ``serve``.
            env: variables added to ours; a ``PYTHONPATH`` stands in place of ours, behind the folders.
            limits: what it may use.
            folders: where the child also looks for modules.
            python: the command that starts Python, an emulator before it or not; our own if empty.

        Raises:
            WorkerError: the factory cannot be imported or raises.
            WorkerCrashed, WorkerTimeout: the process does not come up, or speaks another version.
        """
        worker = cls(entry, env or {}, limits, folders, python)
        ready = False
        try:
            worker.greet()
            ready = True
        finally:
            if not ready:
                worker.close()
        return worker

    def greet(self) -> None:
        """Shake hands: the first call of a worker.

        Raises:
            WorkerError, WorkerCrashed, WorkerTimeout: as ``start``.
        """
        answer, _ = self.call("hello", {"version": VERSION}, timeout=self.limits.start_seconds)
        if answer.get("version") != VERSION:
            raise WorkerCrashed(f"it speaks version {answer.get('version')}, not {VERSION}", method="hello")

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """The end of what the process printed so far."""
        return self._log.text()

    def call(
        self,
        method: str,
        header: Mapping[str, Any] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
        timeout: float | None = None,
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Call a method of the child and wait for its answer.

        Args:
            method: a name of the factory's mapping.
            header: JSON-able data.
            arrays: named arrays of booleans, integers or floats.
            timeout: wall-clock seconds; None for the limit of the worker.

        Returns:
            The method's data and arrays.

        Raises:
            WorkerError: the method raised; the worker lives on.
            WorkerTimeout: no answer in time; the worker was killed.
            WorkerCrashed: the worker died, or its answer is none; it was killed.
            TypeError, ValueError: the request cannot be encoded; nothing was sent.
        """
        with self._lock:
            self._number += 1
            pieces = encode(Frame({"id": self._number, "method": method, "data": dict(header or {})}, arrays or {}))
            answer = self._exchange(method, pieces, self.limits.call_seconds if timeout is None else timeout)
        if answer.data["ok"]:
            return dict(answer.data["data"]), dict(answer.arrays)
        error = answer.data["error"]
        raise WorkerError(method=method, type_=error["type"], text=error["text"], traceback=error["traceback"])

    def _exchange(self, method: str, pieces: list[memoryview], seconds: float) -> Frame:
        intact = False
        try:
            self._pipe.begin(seconds)
            send(self._pipe, pieces)
            answer = read_frame(self._pipe)
            if answer is not None:
                _check(answer, self._number)
                intact = True
                return answer
            self._let_end()
        except TimeoutError:
            raise WorkerTimeout(method=method, seconds=seconds, log=self.log) from None
        except BrokenPipeError:
            self._let_end()
        except (BadFrame, OSError) as error:
            raise WorkerCrashed(f"its answer is none: {error}", method=method, log=self.log) from error
        finally:
            # Also after Ctrl-C: half an exchange leaves a stream that no later call can trust.
            if not intact:
                self.kill()
                self._process.wait()
        code = self._status()
        raise WorkerCrashed(_end(code), method=method, log=self._log.finish(), returncode=code)

    def _status(self) -> int:
        return self._process.wait()

    def _let_end(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_SECONDS)

    def kill(self) -> None:
        """End the process and its children at once."""
        with contextlib.suppress(ProcessLookupError):
            if self._process.returncode is None:
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process: by closing its input, and by a kill if that does not help. Safe to call twice."""
        if not self._lock.acquire(blocking=False):
            self.kill()  # another thread's call is under way: it raises, and then lets go of the lock
            self._lock.acquire()
        try:
            self._pipe.close()
            self._let_end()
            self.kill()
            self._process.wait()
            self._log.close()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        """Return the worker."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the worker; kill it at once when the block failed."""
        if kind is not None:
            self.kill()
        self.close()


class _Pipe:
    """The parent's two ends, non-blocking, with one deadline for a whole exchange."""

    def __init__(self, reading: int, writing: int) -> None:
        self.deadline = 0.0
        self._reading = reading
        self._writing = writing
        self._open = True
        for descriptor in (reading, writing):
            os.set_blocking(descriptor, False)
            with contextlib.suppress(OSError):
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def begin(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds

    def readinto(self, buffer: memoryview, /) -> int:
        while True:
            self._wait(self._reading, select.POLLIN)
            with contextlib.suppress(BlockingIOError):
                return os.readv(self._reading, [buffer])

    def write(self, data: memoryview, /) -> int:
        while True:
            self._wait(self._writing, select.POLLOUT)
            with contextlib.suppress(BlockingIOError):
                return os.write(self._writing, data)

    def _wait(self, descriptor: int, event: int) -> None:
        if not self._open:
            message = "the worker was closed"
            raise BrokenPipeError(message)
        poll = select.poll()
        poll.register(descriptor, event)
        if not poll.poll(max(0.0, self.deadline - time.monotonic()) * 1000):
            raise TimeoutError

    def close(self) -> None:
        if self._open:
            self._open = False
            os.close(self._reading)
            os.close(self._writing)


def _check(answer: Frame, number: int) -> None:
    fields = {"data": dict} if answer.data.get("ok") is True else {"error": dict}
    if answer.data.get("id") != number or not all(isinstance(answer.data.get(k), v) for k, v in fields.items()):
        message = f"not an answer to call {number}"
        raise BadFrame(message)
    error = answer.data.get("error", {"type": "", "text": "", "traceback": ""})
    if not all(isinstance(error.get(key), str) for key in ("type", "text", "traceback")):
        message = "an error without type, text and traceback"
        raise BadFrame(message)


def _environment(added: Mapping[str, str], folders: Sequence[Path]) -> dict[str, str]:
    ours = Path(__file__).resolve().parents[3]
    merged = {**os.environ, **added}
    paths = [*map(str, folders), str(ours), *filter(None, [merged.get("PYTHONPATH")])]
    return {**merged, "PYTHONPATH": os.pathsep.join(paths)}


def _end(code: int) -> str:
    if code >= 0:
        return f"the process ended with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"the process died of {name}" + (": memory may have run out" if code == -signal.SIGKILL else "")
