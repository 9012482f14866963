"""On a far device: keeps files by their content, starts one worker, and carries its bytes over standard streams.

It is sent as text and run by the device's Python before anything of ours is there: it imports the standard library
only, and still runs where Python is too old for the worker, to say so. ``link`` is the near end.

After ``GREETING`` both ends write records: a kind (one byte), a length (uint32, big-endian, at most ``LARGEST``), and
so many bytes. Questions and answers are JSON; frames of the worker travel in ``DATA``. The keeper kills its worker when
the connection ends, when a call is ``GRACE_SECONDS`` over its limit, and after an idle hour.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

VERSION = 1
GREETING = b"\nhaversack keeper 1\n"
RECORD = struct.Struct(">cI")
LARGEST = 1 << 20
ASK, ANSWER, PIECE, DATA, LOG, BEAT, LIMIT, END = b"q", b"a", b"p", b"d", b"l", b"b", b"t", b"x"
BEAT_SECONDS = 2.0
"""How often it is heard, whatever the worker does."""
GRACE_SECONDS = 5.0
IDLE_SECONDS = 3600.0
STORE_BYTES = 1 << 30
"""Bytes of files that stay on the device; what was not used for the longest time goes first."""
LEAST_DISK = 64 << 20
MOST_FILES, LONGEST_NAME = 4096, 200
_TOLD = 16 << 10
_SERVE = ("-X", "faulthandler", "-m", "haversack.tools.worker.serve")


class Store:
    """Folders by the digest of what is in them, below one folder that never holds more than ``bound`` bytes."""

    def __init__(self, root: Path, bound: int = STORE_BYTES) -> None:
        self.root = root
        self.bound = bound

    def path(self, key: str) -> Path | None:
        """Return the folder of a key and mark it as used, or None."""
        folder = self.root / key if _is_digest(key) else self.root
        if folder == self.root or not folder.is_dir():
            return None
        os.utime(folder)
        return folder

    def put(self, files: list[list[Any]], pieces: BinaryIO) -> Path:
        """Read files, each [name, bytes, sha256], one after the other; return their folder. Nothing half-made stays.

        Raises:
            ValueError: a name, a size or a digest is not what it must be.
            OSError: the disk.
        """
        _check(files)
        size = sum(one[1] for one in files)
        self._make_room(size)
        draft = Path(tempfile.mkdtemp(prefix="draft-", dir=str(self.root)))
        try:
            for name, length, digest in files:
                _receive(draft / name, length, digest, pieces)
            folder = self.root / key_of(files)
            if not folder.is_dir():
                draft.rename(folder)
            return folder
        finally:
            shutil.rmtree(str(draft), ignore_errors=True)

    def _make_room(self, size: int) -> None:
        if size > self.bound:
            message = f"{size} bytes are over the bound of {self.bound} for all files on the device"
            raise ValueError(message)
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = sorted((folder for folder in self.root.iterdir() if folder.is_dir()), key=_used)
        sizes = {folder: _size(folder) for folder in kept}
        total = sum(sizes.values())
        for folder in kept:
            lacks = shutil.disk_usage(str(self.root)).free < size + LEAST_DISK
            if total + size <= self.bound and not lacks:
                break
            shutil.rmtree(str(folder), ignore_errors=True)
            total -= sizes[folder]
        free = shutil.disk_usage(str(self.root)).free
        if free < size + LEAST_DISK:
            message = f"the device's disk has {free} bytes left, and {size + LEAST_DISK} are needed"
            raise OSError(message)


def key_of(files: list[list[Any]]) -> str:
    """Return the digest of a list of [name, bytes, sha256]."""
    return hashlib.sha256(json.dumps(sorted(files), separators=(",", ":")).encode()).hexdigest()


def _is_digest(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64 and not set(text) - set("0123456789abcdef")


def _check(files: list[list[Any]]) -> None:
    if not 0 < len(files) <= MOST_FILES:
        message = f"{len(files)} files are none, or too many"
        raise ValueError(message)
    for name, length, digest in files:
        parts = name.split("/")
        plain = all(part and part[0] != "." and part.isprintable() for part in parts) and len(name) <= LONGEST_NAME
        if not plain or not isinstance(length, int) or length < 0 or not _is_digest(digest):
            message = f"not a file to keep: {name!r}"
            raise ValueError(message)


def _receive(path: Path, length: int, digest: str, pieces: BinaryIO) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    told = hashlib.sha256()
    with path.open("wb") as stream:
        while length:
            piece = pieces.read(min(length, LARGEST))
            if not piece:
                message = f"the connection ended within {path.name}"
                raise OSError(message)
            told.update(piece)
            stream.write(piece)
            length -= len(piece)
    if told.hexdigest() != digest:
        message = f"{path.name} arrived with other bytes than were sent"
        raise ValueError(message)


def _used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size
    return total


class Keeper:
    """Reads records from a stream and writes records to a descriptor, until the stream ends."""

    def __init__(self, source: BinaryIO, drain: int, store: Store) -> None:
        self._source = source
        self._drain = drain
        self._store = store
        self._lock = threading.Lock()
        self._child: Any = None
        self._to_child = -1
        self._until = 0.0
        self._left = 0
        self._heard = time.monotonic()

    def serve(self) -> None:
        """Greet, answer questions and carry bytes."""
        with self._lock:
            _write(self._drain, GREETING)
        threading.Thread(target=self._beat, daemon=True).start()
        try:
            while True:
                kind, body = self._record()
                if not kind:
                    return
                if kind == ASK:
                    self._send(ANSWER, json.dumps(self._answer(json.loads(body.decode()))).encode())
                elif kind == DATA and self._to_child >= 0:
                    # A worker that died tells it by END.
                    with contextlib.suppress(BrokenPipeError):
                        _write(self._to_child, body)
                elif kind == LIMIT:
                    seconds = float(body.decode())
                    self._until = time.monotonic() + seconds + GRACE_SECONDS if seconds else 0.0
        finally:
            self.kill()

    def read(self, size: int) -> bytes:
        """Return at most so many bytes of the pieces that come; fewer is no end, none is."""
        while not self._left:
            header = self._source.read(RECORD.size)
            if len(header) < RECORD.size:
                return b""
            kind, self._left = RECORD.unpack(header)
            if kind != PIECE or self._left > LARGEST:
                message = "a piece of a file was expected"
                raise ValueError(message)
        piece = self._source.read(min(size, self._left))
        self._left -= len(piece)
        self._heard = time.monotonic()
        return piece

    def kill(self) -> None:
        """End the worker and its children at once."""
        if self._child is not None and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, signal.SIGKILL)

    def _record(self) -> tuple[bytes, bytes]:
        if self._left:  # the rest of files that were refused
            self._source.read(self._left)
            self._left = 0
        header = self._source.read(RECORD.size)
        if len(header) < RECORD.size:
            return b"", b""
        kind, length = RECORD.unpack(header)
        body = self._source.read(length) if length <= LARGEST else b""
        self._heard = time.monotonic()
        return (kind, body) if len(body) == length else (b"", b"")

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        try:
            asked = question["ask"]
            if asked == "about":
                return {"ok": True, **about(self._store.root, question["packages"])}
            if asked == "has":
                found = self._store.path(key_of(question["files"]))
                return {"ok": True, "path": "" if found is None else str(found)}
            if asked == "put":
                return {"ok": True, "path": str(self._store.put(question["files"], self))}  # type: ignore[arg-type]
            return {"ok": True, "pid": self._spawn(question)}
        except Exception as error:  # noqa: BLE001 - whatever went wrong is the near end's to judge
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}

    def _spawn(self, question: dict[str, Any]) -> int:
        code = question["code"]
        request_end, self._to_child = os.pipe()
        replies, reply_end = os.pipe()
        words = [question["entry"], str(request_end), str(reply_end), json.dumps(question["limits"])]
        try:
            self._child = subprocess.Popen(
                [sys.executable, *_SERVE, *words],
                pass_fds=(request_end, reply_end),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([code, *question.get("folders", [])])},
                cwd=code,
                start_new_session=True,
            )
        finally:
            os.close(request_end)
            os.close(reply_end)
        # When memory runs out it is the worker that goes, and not what lets us in.
        with contextlib.suppress(OSError):
            Path(f"/proc/{self._child.pid}/oom_score_adj").write_text("600", encoding="ascii")
        relays = [
            threading.Thread(target=self._relay, args=one, daemon=True)
            for one in ((replies, DATA), (self._child.stdout.fileno(), LOG))
        ]
        for thread in relays:
            thread.start()
        threading.Thread(target=self._wait, args=(relays,), daemon=True).start()
        return int(self._child.pid)

    def _relay(self, descriptor: int, kind: bytes) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = os.read(descriptor, LARGEST)
                if not data:
                    return
                self._send(kind, data)

    def _wait(self, relays: list[threading.Thread]) -> None:
        code = self._child.wait()
        for thread in relays:
            thread.join(1.0)  # a grandchild may hold its pipe open
        self._send(END, str(code).encode())
        os._exit(0)

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            now = time.monotonic()
            if self._until and now > self._until:
                self.kill()
            if not self._until and now - self._heard > IDLE_SECONDS:
                self._gone()
            self._send(BEAT, b"")

    def _send(self, kind: bytes, body: bytes) -> None:
        try:
            with self._lock:
                _write(self._drain, RECORD.pack(kind, len(body)) + body)
        except OSError:
            self._gone()

    def _gone(self) -> None:
        self.kill()
        os._exit(0)


def about(root: Path, packages: list[str]) -> dict[str, Any]:
    """Return what this device is and which distributions it has, JSON-able."""
    place = next(one for one in [root, *root.parents] if one.exists())
    return {
        "version": VERSION,
        "python": list(sys.version_info[:3]),
        "executable": sys.executable,
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpuinfo": _text(Path("/proc/cpuinfo")),
        "meminfo": _text(Path("/proc/meminfo")),
        "cores": os.cpu_count() or 0,
        "disk_bytes": shutil.disk_usage(str(place)).free,
        "folder": str(root),
        "packages": {name: _installed(name) for name in packages},
    }


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(_TOLD)
    except OSError:
        return ""


def _installed(name: str) -> str:
    try:
        from importlib.metadata import PackageNotFoundError, version
    except ImportError:  # before Python 3.8
        return ""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def main() -> int:
    """Serve on standard input and output; what anything prints goes to standard error."""
    drain = os.dup(1)
    os.dup2(2, 1)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    Keeper(sys.stdin.buffer, drain, Store(cache / "haversack" / "device")).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
