"""The bounded log of a child: what it printed last."""

from __future__ import annotations

import threading
from collections import deque
from typing import IO

_STEP_BYTES = 4096
_JOIN_SECONDS = 1.0


class TailLog:
    """Reads a pipe in a thread, so that the child never blocks on printing, and keeps the last ``limit`` bytes."""

    def __init__(self, stream: IO[bytes] | None, limit: int) -> None:
        if stream is None:
            message = "the child's output is not a pipe"
            raise ValueError(message)
        self._stream = stream
        self._limit = limit
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._drain, name="worker-log", daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        with self._stream:
            read = self._stream.read1  # type: ignore[attr-defined]  # a pipe of Popen is a BufferedReader
            while piece := read(_STEP_BYTES):
                with self._lock:
                    self._pieces.append(piece)
                    self._size += len(piece)
                    while self._size - len(self._pieces[0]) >= self._limit:
                        self._size -= len(self._pieces.popleft())

    def text(self) -> str:
        """Return the end of the output so far, undecodable bytes replaced."""
        with self._lock:
            data = b"".join(self._pieces)
        return data[-self._limit :].decode("utf-8", "replace")

    def finish(self) -> str:
        """Wait a moment for the end of the output and return ``text``; a grandchild may hold the pipe open."""
        self._thread.join(_JOIN_SECONDS)
        return self.text()

    def close(self) -> None:
        """Wait a moment for the thread, which closes the pipe; if a grandchild holds it, both end with that."""
        self._thread.join(_JOIN_SECONDS)
